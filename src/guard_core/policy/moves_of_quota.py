"""What a job asks of its queue, changed. Every number in a sentence comes from the question's facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from guard_core.policy.move import Json, Move, at, number_at, setting, without

_NEEDED = ("cpu_milli", "memory_bytes", "jobs")
"""What no job does without."""


def resources(question: Mapping[str, Any]) -> Iterator[Move]:
    """Ask for less, or wait until there is more: of the queue, of the user, of a job's reservation."""
    shares = at(question, "quota", "resources")
    for name, share in shares.items() if isinstance(shares, dict) else ():
        numbers = {key: number_at(share, key) for key in ("requested", "available", "potential", "used")}
        limit, mine = number_at(share, "user_limit"), number_at(share, "user_used") or 0
        asked, available, potential = numbers["requested"], numbers["available"], numbers["potential"]
        if asked is None or available is None:
            continue
        room = available if limit is None else min(available, limit - mine)
        ever = min(n for n in (potential, limit, asked) if n is not None)
        if 0 < room < asked:
            yield Move(f"quota {name}", f"ask for at most {_shown(name, room)}", _request(name, room))
        if max(0, room) < ever < asked:
            words = f"ask for at most {_shown(name, ever)}, once the queue has as much"
            yield Move(f"quota {name}", words, _request(name, ever))
        if room <= 0 < asked and name not in _NEEDED:
            yield Move(f"quota {name}", f"ask for no {_unit(name)}", _request(name, 0))
        if potential is not None and available < asked <= potential:
            words = f"wait until {_shown(name, asked - available)} more are free in the queue"
            yield Move(f"quota {name}", words, _free(name, "available", asked))
        if limit is not None and limit - mine < asked <= limit:
            words = f"wait until your own jobs give back {_shown(name, asked - (limit - mine))}"
            yield Move(f"user {name}", words, _free(name, "user_used", limit - asked))
    requests = at(question, "workload", "requests")
    for name in requests if isinstance(requests, dict) and isinstance(shares, dict) else ():
        if name not in shares and name not in _NEEDED:
            yield Move(f"quota {name}", f"ask for no {_unit(name)}", without("workload", "requests", name))
    left, task = question.get("left"), at(question, "task", "requests")
    for name in task if isinstance(left, dict) and isinstance(task, dict) else ():
        asked, room = number_at(task, name) or 0, number_at(left, name) or 0
        if room < asked:
            words = f"ask for at most {_shown(name, room)} in the task"
            yield Move(f"task {name}", words, setting("task", "requests", name, room))
    if isinstance(at(question, "quota", "hold"), str):
        yield Move("hold", "wait until the hold on the queue ends", setting("quota", "hold", None))


def queues(question: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Move]:
    """Other queues of the caller's tenant, taken as idle: what they could ever have is in the data."""
    known, own = at(config, "quotas", "queues"), at(question, "principal", "tenant")
    current = at(question, "workload", "queue")
    requests = at(question, "workload", "requests")
    for name, queue in known.items() if isinstance(known, Mapping) and isinstance(requests, dict) else ():
        if name == current or not isinstance(queue, Mapping) or queue.get("tenant") != own:
            continue

        def apply(copy: Json, name: str = name, queue: Mapping[str, Any] = queue) -> None:
            shares = {}
            for resource, asked in copy["workload"]["requests"].items():
                nominal = number_at(at(queue, "resources", resource), "nominal") or 0
                shares[resource] = {"nominal": nominal, "used": 0, "borrowing_limit": 0, "requested": asked}
                shares[resource] |= {"available": nominal, "potential": nominal}
                _judge(shares[resource])
            copy["workload"]["queue"] = name
            copy["quota"] = {"queue": name, "resources": shares, "ahead": 0, "hold": None}

        yield Move("queue", f"submit to queue {name}, when it is idle", apply)


def _request(name: str, most: int) -> Callable[[Json], None]:
    def apply(copy: Json) -> None:
        requests = at(copy, "workload", "requests")
        if isinstance(requests, dict) and name in requests:
            requests[name] = most
        share = copy["quota"]["resources"][name]
        share["requested"] = most
        share["available"] = max(share["available"], most)
        _judge(share)

    return apply


def _free(name: str, key: str, value: int) -> Callable[[Json], None]:
    def apply(copy: Json) -> None:
        share = copy["quota"]["resources"][name]
        share[key] = value
        _judge(share)

    return apply


def _judge(share: Json) -> None:
    """What follows from the numbers, as compute_guard works it out."""
    asked = share["requested"]
    share["fits"] = asked == 0 or asked <= share["available"]
    share["ever_fits"] = asked <= share.get("potential", share["available"])
    if number_at(share, "user_limit") is not None:
        share["user_ever_fits"] = asked <= share["user_limit"]
        share["user_fits"] = asked == 0 or share.get("user_used", 0) + asked <= share["user_limit"]


def _unit(name: str, one: bool = False) -> str:
    known = {"gpu_milli": "GPUs", "cpu_milli": "CPUs", "memory_bytes": "memory", "jobs": "jobs"}
    unit = known.get(name, name.removesuffix("_milli"))
    return unit.removesuffix("s") if one else unit


def _shown(name: str, value: int) -> str:
    if name == "memory_bytes":
        whole, rest = divmod(value, 1 << 30)
        return f"{value} bytes of memory" if rest else f"{whole} GiB of memory"
    if name.endswith("_milli") or name.startswith("custom_"):
        whole, rest = divmod(value, 1000)
        value_text = f"{whole}.{rest:03}".rstrip("0") if rest else str(whole)
        return f"{value_text} {_unit(name, value == 1000)}"
    return f"{value} {_unit(name, value == 1)}"
