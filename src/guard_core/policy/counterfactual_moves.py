"""Changes of a question that a person could bring about, each with the sentence that says how.

They follow the documented input of the shipped policies (docs/admin/policy.md), wherever those shapes stand
in a question; what a question does not hold gives no move. Every number in a sentence comes from its facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Move:
    """One change; two moves ``about`` the same thing are never made together. ``people`` it takes."""

    about: str
    sentence: str
    apply: Callable[[Json], None]
    people: int = 0


def moves(question: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Move]:
    """Every single change that is worth asking about ``question``, under the policy data ``config``."""
    yield from _resources(question)
    yield from _queues(question, config)
    yield from _fields(question)
    yield from _datasets(question)
    yield from _approvals(question, config)
    yield from _times(question, config)
    if (_number(question, "in_use") or 0) > 0:
        yield Move("in_use", "wait until no alias, version or job names it", _setting("in_use", 0))
    if question.get("purpose") in ("train", "evaluate", "export"):
        yield Move("purpose", "only inspect it (purpose inspect)", _setting("purpose", "inspect"))
    yield from _flags(question)


# --- quota -----------------------------------------------------------------------------------------------


def _resources(question: Mapping[str, Any]) -> Iterator[Move]:
    shares = _at(question, "quota", "resources")
    for name, share in shares.items() if isinstance(shares, dict) else ():
        numbers = {key: _number(share, key) for key in ("requested", "available", "potential", "used")}
        limit, mine = _number(share, "user_limit"), _number(share, "user_used") or 0
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
    requests = _at(question, "workload", "requests")
    for name in requests if isinstance(requests, dict) and isinstance(shares, dict) else ():
        if name not in shares and name not in _NEEDED:
            yield Move(f"quota {name}", f"ask for no {_unit(name)}", _without("workload", "requests", name))
    left, task = question.get("left"), _at(question, "task", "requests")
    for name in task if isinstance(left, dict) and isinstance(task, dict) else ():
        asked, room = _number(task, name) or 0, _number(left, name) or 0
        if room < asked:
            words = f"ask for at most {_shown(name, room)} in the task"
            yield Move(f"task {name}", words, _setting("task", "requests", name, room))
    if isinstance(_at(question, "quota", "hold"), str):
        yield Move("hold", "wait until the hold on the queue ends", _setting("quota", "hold", None))


def _queues(question: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Move]:
    """Other queues of the caller's tenant, taken as idle: what they could ever have is in the data."""
    queues, own = _at(config, "quotas", "queues"), _at(question, "principal", "tenant")
    current = _at(question, "workload", "queue")
    requests = _at(question, "workload", "requests")
    for name, queue in queues.items() if isinstance(queues, Mapping) and isinstance(requests, dict) else ():
        if name == current or not isinstance(queue, Mapping) or queue.get("tenant") != own:
            continue

        def apply(copy: Json, name: str = name, queue: Mapping[str, Any] = queue) -> None:
            shares = {}
            for resource, asked in copy["workload"]["requests"].items():
                nominal = _number(_at(queue, "resources", resource), "nominal") or 0
                shares[resource] = {"nominal": nominal, "used": 0, "borrowing_limit": 0, "requested": asked}
                shares[resource] |= {"available": nominal, "potential": nominal}
                _judge(shares[resource])
            copy["workload"]["queue"] = name
            copy["quota"] = {"queue": name, "resources": shares, "ahead": 0, "hold": None}

        yield Move("queue", f"submit to queue {name}, when it is idle", apply)


def _request(name: str, most: int) -> Callable[[Json], None]:
    def apply(copy: Json) -> None:
        requests = _at(copy, "workload", "requests")
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
    if _number(share, "user_limit") is not None:
        share["user_ever_fits"] = asked <= share["user_limit"]
        share["user_fits"] = asked == 0 or share.get("user_used", 0) + asked <= share["user_limit"]


# --- the job and its data --------------------------------------------------------------------------------


def _fields(question: Mapping[str, Any]) -> Iterator[Move]:
    for parent in ("workload", "task"):
        fields = _at(question, parent, "runtime_env_fields")
        for field in fields if isinstance(fields, list) else ():

            def apply(copy: Json, parent: str = parent, field: Any = field) -> None:
                kept = [f for f in copy[parent]["runtime_env_fields"] if f != field]
                copy[parent]["runtime_env_fields"] = kept

            yield Move(f"field {field}", f"leave {field} out of the runtime environment", apply)


def _datasets(question: Mapping[str, Any]) -> Iterator[Move]:
    tenant = _at(question, "principal", "tenant")
    if isinstance(question.get("dataset"), dict):
        ref, declared = question["dataset"].get("ref"), _at(question, "principal", "datasets")
        if _at(question, "principal", "kind") == "job" and isinstance(declared, list) and ref not in declared:
            declare = _setting("principal", "datasets", [*declared, ref])
            yield Move("declared", f"submit the job with {ref} among its datasets", declare)
        yield from _fact(question["dataset"], lambda copy: copy["dataset"], tenant)
    facts = _at(question, "workload", "datasets")
    for fact in facts if isinstance(facts, list) else ():
        if not isinstance(fact, dict):
            continue
        name, ref = _named(fact), fact.get("ref")

        def leave_out(copy: Json, ref: Any = ref) -> None:
            job = copy["workload"]
            job["datasets"] = [f for f in job["datasets"] if not isinstance(f, dict) or f.get("ref") != ref]
            if isinstance(job.get("declared"), list):
                job["declared"] = job["declared"][: len(job["datasets"])]

        def same(copy: Json, ref: Any = ref) -> Json:
            known = (f for f in copy["workload"]["datasets"] if isinstance(f, dict) and f.get("ref") == ref)
            return next(known, {})  # left out by another move

        yield Move(f"dataset {name}", f"run without {name}", leave_out)
        yield from _fact(fact, same, tenant)


def _fact(fact: Mapping[str, Any], place: Callable[[Json], Json], tenant: Any) -> Iterator[Move]:
    name = _named(fact)

    def move(sentence: str, **values: Any) -> Move:
        return Move(f"{name} {min(values)}", sentence, lambda copy: place(copy).update(values))

    if "exists" not in fact:
        return  # a description of data that is to be registered
    if fact["exists"] is not True:
        known = {"exists": True, "tenant": tenant, "record_ok": True, "tampered": False, "signed": True}
        yield move(f"register {name}, with the verdict allow", **known, verdict="allow")
        return
    if fact.get("tampered") is not False or fact.get("record_ok") is not True:
        restored = {"tampered": False, "record_ok": True, "signed": True}
        yield move(f"have the registered data and record of {name} restored", **restored)
        yield move(f"register {name} anew, with the verdict allow", **restored, verdict="allow")
    elif fact.get("signed") is not True:
        yield move(f"have {name} registered again, signed", signed=True)
    if fact.get("tenant") != tenant:
        shared = fact.get("shared_with")
        with_us = [*(shared if isinstance(shared, list) else ()), tenant]
        yield move(f"have {fact.get('tenant')} share {name} with {tenant}", shared_with=with_us)
    if fact.get("verdict") != "allow":
        said = f"have {name}, now {fact.get('verdict')}, corrected and registered with the verdict "
        yield move(f"{said}allow", verdict="allow")
        if fact.get("verdict") != "warn":
            yield move(f"{said}warn", verdict="warn")
    rules = fact.get("critical_rules")
    if fact.get("verdict") == "quarantine" and isinstance(rules, list) and rules:
        end = {"author": "one person", "approver": "another", "expires_ns": 2**63 - 1}
        waived = [{"rule_id": rule, **end} for rule in rules]
        yield move(f"have {', '.join(map(str, rules))} on {name} waived by two people", waived=waived)


def _named(fact: Mapping[str, Any]) -> str:
    return f"dataset {fact.get('ref') or '(without a reference)'}"


# --- people and time -------------------------------------------------------------------------------------

_OPERATION = ("dataset-export", "dataset-share", "dataset-destroy", "policy-promote")


def _approvals(question: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Move]:
    now, given = _number(question, "now_ns"), question.get("approvals")
    if not isinstance(given, list) or now is None:
        return
    operations = _at(config, "approvers", "operations")
    roles = (
        {role for o in operations.values() for role in o["roles"]}
        if isinstance(operations, Mapping)
        else set()
    )
    extra = _at(config, "playbooks", "approver_roles")
    roles |= set(extra) if isinstance(extra, list) else set()
    tenant = _at(question, "principal", "tenant")
    for more in (1, 2, 3):
        for role in sorted(roles):

            def apply(copy: Json, more: int = more, role: str = role) -> None:
                copy["approvals"] = copy["approvals"] + [
                    {"by": f"(person {number})", "role": role, "tenant": tenant, "at_ns": now}
                    for number in range(more)
                ]

            people = "one more person" if more == 1 else f"{more} more people"
            yield Move("approvals", f"have {people} with the role {role} approve it", apply, people=more)


def _times(question: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Move]:
    """The ends of the calendars' periods."""
    now = _number(question, "now_ns")
    calendars = config.get("calendars")
    if now is None or not isinstance(calendars, Mapping):
        return
    ends = {
        str(period["to"])
        for kind in ("freezes", "maintenance")
        for period in calendars.get(kind) or ()
        if isinstance(period, Mapping) and "to" in period
    }
    for end in sorted(ends):
        moment = datetime.fromisoformat(end).astimezone(UTC)
        later = int(moment.timestamp()) * 10**9
        if later > now:
            yield Move("time", f"wait until {moment:%Y-%m-%d %H:%M}Z", _setting("now_ns", later))


def _flags(question: Mapping[str, Any], depth: int = 3) -> Iterator[Move]:
    """Yes-or-no facts that no move above knows: rules of the admins' own may ask them."""

    def below(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], bool]]:
        for key, value in node.items() if isinstance(node, dict) and len(keys) < depth else ():
            if isinstance(value, bool):
                yield (*keys, key), value
            else:
                yield from below(value, (*keys, key))

    for keys, value in below(question, ()):
        if keys[0] in ("principal", "quota", "dataset"):
            continue  # who asks is not for changing, and the others have moves of their own
        said = "true" if not value else "false"
        yield Move(f"flag {keys}", f"let {'.'.join(keys)} be {said}", _setting(*keys, not value))


def _without(*keys: str) -> Callable[[Json], None]:
    def apply(copy: Json) -> None:
        node = copy
        for key in keys[:-1]:
            node = node[key]
        node.pop(keys[-1], None)

    return apply


def _setting(*path_and_value: Any) -> Callable[[Json], None]:
    *keys, value = path_and_value

    def apply(copy: Json) -> None:
        node = copy
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return apply


def _at(node: Any, *keys: str) -> Any:
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _number(node: Any, key: str) -> int | None:
    found = _at(node, key)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


_NEEDED = ("cpu_milli", "memory_bytes", "jobs")
"""What no job does without."""


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
