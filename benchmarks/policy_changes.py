"""Changing policy: the engine of a home with a policy store, swapping 10,000 tenants under load, replay.

Usage: python benchmarks/policy_changes.py [--json FILE] [--calls N] [--tenants N ...]
                                           [--decisions N] [--distinct N] [--log FOLDER]

The shipped policies with N tenants x 50 users in their data, as one signed bundle. Peer, question by question
in turns: a bare regorus call (dict to JSON, evaluate, JSON to dict: what any caller of it must do). Each part
runs in a process of its own. (benchmarks/policy.py measures both engines without a store.)
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import Measure, in_child, machine, report, spent

USE, ADMISSION = "guard/dataset/use/decision", "guard/compute/admission/decision"
Asked = tuple[str, dict[str, Any]]
NOW_NS = 1_795_392_000_000_000_000


def policies(tenants: int) -> Any:
    """The shipped policies with generated tenants, each with 50 users and a queue."""
    from guard_core.policy.bundle import load_bundle, make_bundle, shipped_policies

    shipped = load_bundle(shipped_policies())
    config = dict(shipped.config)
    people = {f"user-{n}": ["data-scientist"] for n in range(50)}
    names = [f"tenant-{n}" for n in range(tenants)]
    config["tenants"] = {
        **config["tenants"],
        **{n: {"title": n, "tier": "basic", "state": "active", "members": people} for n in names},
    }
    amount = {"nominal": 4000, "borrowing_limit": 0, "lending_limit": 0}
    queue = {"cohort": "research", "weight": 1, "resources": {"gpu_milli": amount, "cpu_milli": amount}}
    queues = {**config["quotas"]["queues"], **{n: {"tenant": n, **queue} for n in names}}
    config["quotas"] = {**config["quotas"], "queues": queues}
    return make_bundle(shipped.modules, config)


def question(draw: random.Random, tenants: int, number: int) -> tuple[str, dict[str, Any]]:
    """A question as the product asks it: half about using a dataset, half about admitting a job."""
    tenant = f"tenant-{draw.randrange(tenants)}"
    fact = {
        "ref": f"{tenant}/set-{draw.randrange(20)}@1", "exists": True, "tenant": tenant, "name": "set",
        "version": 1, "verdict": draw.choice(["allow", "allow", "warn", "quarantine"]),
        "fingerprint": "dg1:" + "0" * 64, "signed": True, "record_ok": True, "shared_with": [],
        "findings": {"critical": 0, "warning": 1, "info": 2}, "tampered": False,
    }  # fmt: skip
    principal = {
        "tenant": tenant, "user": f"user-{draw.randrange(50)}", "roles": ["data-scientist"],
        "credential_id": f"{number:016x}", "kind": "tenant", "workload": None, "datasets": [],
        "on_behalf_of": None,
    }  # fmt: skip
    common = {"principal": principal, "now_ns": NOW_NS + number * 1_000_003}
    if draw.random() < 0.5:
        return USE, {**common, "dataset": fact, "purpose": "train", "workload": None}
    asked = draw.choice([1000, 2000, 8000])
    share = {
        "nominal": 4000, "used": 2000, "borrowing_limit": 0, "available": 2000, "requested": asked,
        "fits": asked <= 2000, "ever_fits": asked <= 4000,
    }  # fmt: skip
    workload = {
        "submission_id": f"job-{number}", "queue": tenant, "entrypoint": f"python train.py --seed {number}",
        "requests": {"jobs": 1, "gpu_milli": asked}, "runtime_env_fields": ["working_dir", "env_vars"],
        "datasets": [fact], "declared": [fact["ref"]], "priority": 0,
    }  # fmt: skip
    one = {
        "nominal": 9,
        "used": 1,
        "borrowing_limit": 0,
        "available": 8,
        "requested": 1,
        "fits": True,
        "ever_fits": True,
    }
    resources = {"gpu_milli": share, "jobs": one}
    quota = {"queue": tenant, "cohort": "research", "resources": resources}
    return ADMISSION, {**common, "workload": workload, "quota": quota}


def questions(tenants: int, count: int) -> list[tuple[str, dict[str, Any]]]:
    draw = random.Random(5)
    return [question(draw, tenants, number) for number in range(count)]


def timed(calls: dict[str, Callable[[str, dict[str, Any]], Any]], asked: list[Asked]) -> dict[str, Any]:
    """CPU of this thread and wall per call in ms, for each call in turns on the same question."""
    for path, value in asked[:200]:
        for call in calls.values():
            call(path, value)
    spent_ns: dict[str, tuple[list[int], list[int]]] = {name: ([], []) for name in calls}
    for path, value in asked:
        for name, call in calls.items():
            cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
            call(path, value)
            spent_ns[name][1].append(time.perf_counter_ns() - wall)
            spent_ns[name][0].append(time.thread_time_ns() - cpu)
    return {name: _summary(*ns) for name, ns in spent_ns.items()}


def _summary(cpu: list[int], wall: list[int]) -> dict[str, float]:
    cpu, wall = sorted(cpu), sorted(wall)
    at = {"p50": len(cpu) // 2, "p99": len(cpu) * 99 // 100}
    found = {f"cpu_{name}": cpu[n] / 1e6 for name, n in at.items()}
    found |= {f"wall_{name}": wall[n] / 1e6 for name, n in at.items()}
    return {**found, "rate": len(wall) / (sum(wall) / 1e9), "cpu_rate": len(cpu) / (sum(cpu) / 1e9)}


def store_in(folder: Path) -> Any:
    from guard_core.attestation import Signer
    from guard_core.policy.lifecycle.store import PolicyStore

    signer = Signer.open(folder / "keys")
    return PolicyStore(folder / "policy", keys=folder / "keys" / "policy", signer=lambda: signer)


def prepared(folder: Path, tenants: int) -> None:
    """A store with the generated policies in force."""
    with store_in(folder).changing(lambda: policies(tenants)) as draft:
        draft.put_in_force(draft.state)


def embedded(folder: Path, tenants: int, calls: int) -> dict[str, Any]:
    """Our engine on the store, and bare regorus, in turns over the same questions (so load hits both)."""
    import regorus

    from guard_core.policy.lifecycle.active import ActivePolicies
    from guard_core.policy.lifecycle.state import State

    store = store_in(folder)
    state: State = store.state()
    with spent() as loading:
        ours = ActivePolicies(store, lambda: policies(1))
        assert ours.evaluate(*questions(tenants, 1)[0]).error is None
    bundle = store.open(state.active).bundle
    bare = regorus.Engine()
    for name, text in bundle.modules.items():
        bare.add_policy(name, text)
    bare.add_data_json(bundle.data_json)
    queries = {path: "data." + path.replace("/", ".") for path in (USE, ADMISSION)}

    def ask_bare(path: str, value: dict[str, Any]) -> Any:
        bare.set_input_json(json.dumps(value))
        return json.loads(bare.eval_rule_as_json(queries[path]))

    asked = questions(tenants, calls)
    for path, value in asked[:50]:
        assert ours.evaluate(path, value).value == ask_bare(path, value)
    return {**timed({"ours": ours.evaluate, "bare": ask_bare}, asked), "load_seconds": loading.wall_seconds}


def decided(folder: Path, tenants: int, calls: int) -> dict[str, float]:
    """The whole of ``Home.decide``: engine, audit record on disk, signed head."""
    from guard_core.config import load_settings
    from guard_core.findings import Enforcement
    from guard_core.home import Home

    with Home.open(load_settings(home=folder)) as home:
        principal = home.principal()

        def ask(path: str, value: dict[str, Any]) -> Any:
            return home.decide(path, value, principal=principal, enforcement=Enforcement.ENFORCED)

        return timed({"home": ask}, questions(tenants, calls))["home"]


def activation(folder: Path, tenants: int) -> dict[str, float]:
    """Replace the policies of a deciding process: time until it decides by the new ones, longest pause."""
    from guard_core.policy.lifecycle.active import ActivePolicies

    store = store_in(folder)
    ours = ActivePolicies(store, lambda: policies(1))
    asked = questions(tenants, 500)
    new = policies(tenants + 1)
    stop = threading.Event()
    gaps: list[tuple[float, float]] = []
    revisions: list[tuple[float, str]] = []

    def decide() -> None:
        last, number, revision = time.perf_counter(), 0, ""
        while not stop.is_set():
            answer = ours.evaluate(*asked[number % len(asked)])
            assert answer.error is None, answer.error
            now = time.perf_counter()
            gaps.append((now, now - last))
            if answer.revision != revision:
                revision = answer.revision
                revisions.append((now, revision))
            last, number = now, number + 1

    with store.changing(lambda: new) as draft, spent() as signing:
        held = draft.sign(new)
    thread = threading.Thread(target=decide)
    thread.start()
    while len(gaps) < 500:  # its own engine is compiled, and it decides
        time.sleep(0.1)
    time.sleep(2)
    with store.changing(lambda: new) as draft:
        draft.put_in_force(replace(draft.state, active=held))
    switched = time.perf_counter()
    while len(revisions) < 2:
        time.sleep(0.05)
        if time.perf_counter() - switched > 60:
            break
    time.sleep(0.2)
    stop.set()
    thread.join()
    before = [gap for at, gap in gaps if at < switched][10:]
    during = [gap for at, gap in gaps if switched <= at <= revisions[-1][0] + 0.2]
    return {
        "seconds": revisions[-1][0] - switched,
        "pause_ms": max(during) * 1000,
        "usual_pause_ms": max(before) * 1000,
        "decisions_meanwhile": len(during),
        "sign_seconds": signing.wall_seconds,
        "switched": float(len(revisions) == 2),
    }


def recorded(folder: Path, tenants: int, decisions: int, distinct: int) -> None:
    """A log of ``decisions`` records over ``distinct`` questions that differ in ids and times only."""
    from guard_core.attestation import Signer
    from guard_core.audit.decision_event import decision_event
    from guard_core.audit.log import AuditLog
    from guard_core.clock import new_id, system_clock
    from guard_core.findings import Enforcement
    from guard_core.policy.decision import Decision
    from guard_core.policy.embedded import EmbeddedEngine

    signer = Signer.open(folder / "keys")
    log = AuditLog(folder / "audit", signer=lambda: signer)
    bundle = policies(tenants)
    engine = EmbeddedEngine(bundle)
    pool = []
    for path, value in questions(tenants, distinct):
        pool.append((path, value, engine.evaluate(path, value)))
    draw = random.Random(9)
    batch: list[dict[str, Any]] = []
    for number in range(decisions):
        path, value, answer = pool[draw.randrange(distinct)]
        again = {**value, "now_ns": NOW_NS + number}
        again["principal"] = {**value["principal"], "credential_id": f"{number:016x}"}
        if "quota" in value:
            again["workload"] = {**value["workload"], "submission_id": f"job-{number}"}
        decision = Decision(
            decision_id=new_id("dec"), path=path, value=answer.value, defined=True, error=None,
            revision=bundle.revision, engine="embedded", enforcement=Enforcement.ENFORCED, eval_ns=1,
        )  # fmt: skip
        batch.append(
            decision_event(decision, question=again, requested_by="x", subject="", moment=system_clock())
        )
        if len(batch) == 2000:
            log.append(batch)
            batch = []
    if batch:
        log.append(batch)


def replayed(folder: Path, tenants: int, processes: int) -> dict[str, Any]:
    """Replay the log under a stricter candidate."""
    from guard_core.policy.bundle import make_bundle
    from guard_core.policy.lifecycle.replay import replay

    bundle = policies(tenants)
    tiers = {
        name: {**tier, "use": {**tier["use"], "warn_verdict": "deny"}}
        for name, tier in bundle.config["thresholds"]["tiers"].items()
    }
    candidate = make_bundle(
        bundle.modules, {**bundle.config, "thresholds": {**bundle.config["thresholds"], "tiers": tiers}}
    )
    found = replay(folder / "audit", candidate, processes=processes)
    assert found.count("allow->deny") > 0
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        **found.to_json(),
        "own_mib": own / 1024,
        "worker_mib": workers / 1024,
        "changes": len(found.changes),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--tenants", type=int, nargs="*", default=[1000, 10_000])
    parser.add_argument("--decisions", type=int, default=200_000, help="records to replay")
    parser.add_argument("--log", type=Path, help="keep the log of these records here, or use the one kept")
    parser.add_argument("--distinct", type=int, default=5000, help="distinct questions among them")
    arguments = parser.parse_args()
    print(f"machine: {machine()}\n")
    measures: list[Measure] = []
    with tempfile.TemporaryDirectory(prefix="trainguard-bench-") as name:
        for tenants in arguments.tenants:
            measures += deciding(Path(name) / str(tenants), tenants, arguments.calls)
        folder = arguments.log or Path(name) / "replay"
        if not folder.exists():
            folder.mkdir()
            in_child(lambda: recorded(folder, 1000, arguments.decisions, arguments.distinct))
        if arguments.decisions:
            measures += replaying(folder, arguments.decisions)
    report(measures, arguments.json)
    return 0


def deciding(folder: Path, tenants: int, calls: int) -> list[Measure]:
    label = f"{tenants:,} tenants"
    folder.mkdir()
    prepared(folder, tenants)
    found = in_child(lambda: embedded(folder, tenants, calls)).answer
    ours, bare = found["ours"], found["bare"]
    peer = "bare regorus"
    share = ours["cpu_p50"] / bare["cpu_p50"]
    measures = [
        Measure(f"embedded p50 CPU, {label}", ours["cpu_p50"], "ms", peer, bare["cpu_p50"], share,
                "<= 0.5 ms", ours["cpu_p50"] <= 0.5),
        Measure(f"embedded p99 CPU, {label}", ours["cpu_p99"], "ms", peer, bare["cpu_p99"],
                ours["cpu_p99"] / bare["cpu_p99"]),
        Measure(f"embedded p50 wall, {label}", ours["wall_p50"], "ms", peer, bare["wall_p50"],
                ours["wall_p50"] / bare["wall_p50"]),
        Measure(f"embedded p99 wall, {label}", ours["wall_p99"], "ms", peer, bare["wall_p99"],
                ours["wall_p99"] / bare["wall_p99"]),
        Measure(f"embedded rate, {label}", ours["rate"], "decisions/s", peer, bare["rate"],
                ours["rate"] / bare["rate"], ">= 2,000/s", ours["rate"] >= 2000),
        Measure(f"embedded rate, {label}", ours["cpu_rate"], "/CPU-s", peer, bare["cpu_rate"],
                ours["cpu_rate"] / bare["cpu_rate"]),
        Measure(f"our layer over bare regorus, {label}", 100 * (share - 1), "% CPU", peer, 0.0, None,
                "<= 15 %", share <= 1.15),
        Measure(f"open, verify, compile, decide, {label}", found["load_seconds"], "s"),
    ]  # fmt: skip
    whole = in_child(lambda: decided(folder, tenants, min(calls, 500))).answer
    measures.append(Measure(f"Home.decide with audit on disk, p50 wall, {label}", whole["wall_p50"], "ms"))
    change = in_child(lambda: activation(folder, tenants)).answer
    assert change["switched"] == 1.0
    measures += [
        Measure(f"activation until decided by, {label}", change["seconds"], "s", "", None, None,
                "<= 2 s", change["seconds"] <= 2),
        Measure(f"longest pause of decisions meanwhile, {label}", change["pause_ms"], "ms",
                "2 s before it", change["usual_pause_ms"], change["pause_ms"] / change["usual_pause_ms"]),
        Measure(f"decisions made meanwhile, {label}", change["decisions_meanwhile"], ""),
        Measure(f"signing the bundle, {label}", change["sign_seconds"], "s"),
    ]  # fmt: skip
    return measures


def replaying(folder: Path, decisions: int) -> list[Measure]:
    size = sum(file.stat().st_size for file in (folder / "audit").glob("*.jsonl")) / 2**20
    child = in_child(lambda: replayed(folder, 1000, 2))
    found = child.answer
    rate = decisions / found["seconds"]
    return [
        Measure("replay, 2 processes", rate, "decisions/s", "", None, None, ">= 30,000/s", rate >= 30_000),
        Measure("replay, per CPU-second", decisions / child.cpu_seconds, "decisions"),
        Measure("replay, decisions", float(found["decisions"]), ""),
        Measure("replay, distinct questions asked", float(found["distinct"]), ""),
        Measure(
            "replay, 1 M decisions at this rate", 1e6 / rate, "s", "", None, None, "<= 60 s", 1e6 / rate <= 60
        ),
        Measure("replay, log read", size, "MiB"),
        Measure("replay, memory of the parent", found["own_mib"], "MiB"),
        Measure("replay, memory of the largest worker", found["worker_mib"], "MiB"),
    ]


if __name__ == "__main__":
    sys.exit(main())
