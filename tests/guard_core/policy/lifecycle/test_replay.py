"""Replay: each recorded decision gets exactly what the candidate would have answered, asked or not."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from guard_core.attestation import Signer
from guard_core.audit.decision_event import decision_event
from guard_core.audit.log import AuditLog
from guard_core.clock import to_ns
from guard_core.errors import UserError
from guard_core.findings import Enforcement
from guard_core.home import Home
from guard_core.policy.bundle import Bundle, load_bundle, make_bundle, shipped_policies
from guard_core.policy.decision import Decision
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.lifecycle.outcome import Outcome, change
from guard_core.policy.lifecycle.replay import Replay, gpu_hours_of, replay
from guard_core.testing import FrozenClock

USE = "guard/dataset/use/decision"
FIRST_NS = to_ns(FrozenClock()())
ADMISSION = "guard/compute/admission/decision"


class Recorder:
    """Writes decisions really made under ``bundle`` to a real log, many at a time."""

    def __init__(self, folder: Path, bundle: Bundle, clock: FrozenClock) -> None:
        signer = Signer.open(folder / "keys")
        self.engine = EmbeddedEngine(bundle)
        self.log = AuditLog(folder / "audit", signer=lambda: signer, clock=clock, segment_bytes=200_000)
        self.clock = clock
        self.made: list[tuple[str, dict[str, Any]]] = []
        self.bodies: list[dict[str, Any]] = []

    def ask(self, path: str, question: Mapping[str, Any], **changed: Any) -> str:
        moment = self.clock()
        asked = {"now_ns": to_ns(moment), **question}
        answer = self.engine.evaluate(path, asked)
        decision = Decision(
            decision_id=f"dec-{len(self.made)}", path=path, value=answer.value, defined=answer.defined,
            error=answer.error, revision=answer.revision, engine="embedded", enforcement=Enforcement.ENFORCED,
        )  # fmt: skip
        body = decision_event(decision, question=asked, requested_by="x", subject="", moment=moment)
        self.made.append((path, asked))
        self.bodies.append({**body, **changed})
        if len(self.bodies) >= 50:
            self.write()
        return decision.decision_id

    def write(self) -> Path:
        self.log.append(self.bodies)
        self.bodies = []
        return self.log.directory


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return load_bundle(shipped_policies())


@pytest.fixture
def recorder(tmp_path: Path, shipped: Bundle, clock: FrozenClock) -> Recorder:
    return Recorder(tmp_path, shipped, clock)


def fact(**changed: Any) -> dict[str, Any]:
    return {
        "ref": "acme/digits@1", "exists": True, "tenant": "acme", "name": "digits", "version": 1,
        "verdict": "allow", "signed": True, "record_ok": True, "shared_with": [], "tampered": False,
        **changed,
    }  # fmt: skip


def principal(**changed: Any) -> dict[str, Any]:
    return {
        "tenant": "acme", "user": "ann", "roles": [], "credential_id": "c", "kind": "tenant",
        "workload": None, "datasets": [], "on_behalf_of": None, **changed,
    }  # fmt: skip


def reading(**changed: Any) -> dict[str, Any]:
    return {"principal": principal(), "dataset": fact(), "purpose": "train", "workload": None, **changed}


def job(draw: random.Random, number: int) -> dict[str, Any]:
    tenant = draw.choice(["acme", "beta"])
    free, asked = draw.choice([0, 1000, 2000]), draw.choice([0, 1000, 2000, 8000])
    share = {
        "nominal": 2000,
        "borrowing_limit": 1000,
        "used": 2000 - free,
        "available": free,
        "requested": asked,
    }
    resources = {"gpu_milli": {**share, "fits": asked <= free, "ever_fits": asked <= 3000}}
    return {
        "principal": principal(tenant=tenant, credential_id=f"c-{number}"),
        "workload": {
            "submission_id": f"job-{number}", "queue": draw.choice([tenant, "acme"]),
            "entrypoint": f"python {number}", "requests": {"gpu_milli": asked},
            "runtime_env_fields": draw.choice([[], ["pip"], ["working_dir"]]),
            "datasets": draw.choice([[], [fact()], [fact(verdict="warn")]]), "declared": [], "priority": 0,
        },
        "quota": {"queue": tenant, "cohort": "research", "resources": resources},
    }  # fmt: skip


def stricter(shipped: Bundle) -> Bundle:
    """No warned datasets for anyone, and `pip` allowed: some allows become denies and the reverse."""
    import copy

    config = copy.deepcopy(dict(shipped.config))
    for tier in config["thresholds"]["tiers"].values():
        tier["use"]["warn_verdict"] = "deny"
        tier["runtime_env_allowed"].append("pip")
    return make_bundle(shipped.modules, config)


def one_by_one(recorder: Recorder, candidate: Bundle) -> Counter[str]:
    """The same question answered without any shortcut: every record, every time."""
    engine = EmbeddedEngine(candidate)
    found: Counter[str] = Counter()
    records = [r for r in recorder.log.records() if r["kind"] == "decision"]
    for event, (path, asked) in zip(records, recorder.made, strict=True):
        answer = engine.evaluate(path, asked)
        new = Outcome.of(answer.value, defined=answer.defined, error=answer.error)
        found[change(Outcome.recorded(event), new)] += 1
    return found


def waived(until_ns: int) -> dict[str, Any]:
    """A quarantined set whose critical finding two people accepted until a moment."""
    waiver = {"rule_id": "POIS001", "author": "ann", "approver": "bob", "expires_ns": until_ns}
    return fact(verdict="quarantine", critical_rules=["POIS001"], waived=[waiver])


def test_only_questions_whose_answer_depends_on_the_time_are_told_apart_by_it(
    recorder: Recorder, shipped: Bundle, clock: FrozenClock
) -> None:
    until = to_ns(clock()) + 50 * 10**9
    for _ in range(100):
        clock.advance(seconds=1)
        recorder.ask(USE, reading())
        recorder.ask(USE, reading(dataset=waived(until)))
    recorder.write()
    candidate = stricter(shipped)
    found = replay(recorder.log.directory, candidate)
    assert dict(found.classes) == dict(one_by_one(recorder, candidate)) == {"unchanged": 200}
    assert (found.decisions, found.allows) == (200, 100 + 49)
    assert found.distinct == 1 + 1 + 100, "one plain question, and the waived one again for every moment"


@pytest.mark.parametrize("processes", [1, 2])
def test_replay_knows_when_a_time_limit_of_the_candidate_passes(
    recorder: Recorder, shipped: Bundle, clock: FrozenClock, processes: int
) -> None:
    """The candidate lets nobody read after a moment within the recorded time."""
    limit = to_ns(clock()) + 30 * 10**9 + 1
    late = f'\ndeny contains {{"rule": "late", "msg": "too late"}} if input.now_ns > {limit}\n'
    name = "guard/dataset/use/use.rego"
    candidate = make_bundle({**shipped.modules, name: shipped.modules[name] + late}, dict(shipped.config))
    for _ in range(80):
        clock.advance(seconds=1)
        recorder.ask(USE, reading())
    recorder.write()
    found = replay(recorder.log.directory, candidate, processes=processes, pool_bytes=0)
    assert dict(found.classes) == {"allow->deny": 50, "unchanged": 30}
    assert sum(found.revisions.values()) == 80


def random_log(recorder: Recorder, count: int) -> None:
    draw = random.Random(11)
    for number in range(count):
        recorder.clock.advance(seconds=1)
        if draw.random() < 0.5:
            recorder.ask(ADMISSION, job(draw, number))
        else:
            verdict = draw.choice(["allow", "warn", "quarantine"])
            recorder.ask(
                USE, reading(dataset=fact(verdict=verdict), purpose=draw.choice(["train", "inspect"]))
            )
    recorder.write()


@pytest.mark.parametrize("processes", [1, 2])
def test_replay_agrees_with_asking_every_single_decision_again(
    recorder: Recorder, shipped: Bundle, processes: int
) -> None:
    random_log(recorder, 400)
    candidate = stricter(shipped)
    found = replay(recorder.log.directory, candidate, processes=processes, pool_bytes=0)
    assert dict(found.classes) == dict(one_by_one(recorder, candidate))
    assert found.decisions == 400
    assert found.processes == processes
    assert found.count("allow->deny") > 0
    assert found.count("deny->allow") + found.count("deny->hold") > 0


def test_each_distinct_question_is_asked_once(recorder: Recorder, shipped: Bundle) -> None:
    for number in range(120):
        recorder.clock.advance(seconds=1)
        recorder.ask(USE, reading(principal=principal(credential_id=f"c-{number}")))
    recorder.ask(USE, reading(purpose="inspect"))
    recorder.write()
    found = replay(recorder.log.directory, shipped)
    assert (found.decisions, found.distinct, dict(found.classes)) == (121, 2, {"unchanged": 121})
    assert found.changes == ()


def test_the_same_policy_changes_nothing(recorder: Recorder, shipped: Bundle) -> None:
    random_log(recorder, 150)
    assert dict(replay(recorder.log.directory, shipped).classes) == {"unchanged": 150}


def by_class(found: Replay) -> dict[str, Any]:
    return {c.kind: c for c in found.changes}


def test_changes_are_grouped_by_tenant_and_rule_with_counter_examples(
    recorder: Recorder, shipped: Bundle
) -> None:
    first = [recorder.ask(USE, reading(dataset=fact(verdict="warn"))) for _ in range(5)]
    recorder.ask(
        USE, reading(principal=principal(tenant="beta"), dataset=fact(verdict="warn", tenant="beta"))
    )
    recorder.write()
    found = replay(recorder.log.directory, stricter(shipped))
    assert [(c.kind, c.tenant, c.rules, c.count) for c in found.changes] == [
        ("allow->deny", "acme", ("dataset-warned",), 5),
        ("allow->deny", "beta", ("dataset-warned",), 1),
    ]
    assert found.changes[0].examples == tuple(first[:3])
    assert "warnings" in found.changes[0].message


def test_a_changed_verdict_a_changed_reason_and_a_failure_have_their_own_class(tmp_path: Path) -> None:
    def policy(rest: str) -> Bundle:
        return make_bundle({"guard/t/t.rego": f"package guard.t\n\n{rest}\n"}, {"tenants": {}})

    recorder = Recorder(tmp_path, policy('decision := {"allow": true, "verdict": "allow"}'), FrozenClock())
    recorder.ask("guard/t/decision", {"principal": principal()})
    log = recorder.write()
    for rest, kind in (
        ('decision := {"allow": true, "verdict": "warn"}', "verdict"),
        ('decision := {"allow": true, "verdict": "allow", "warn": [{"rule": "r", "msg": "m"}]}', "reasons"),
        ('decision := {"allow": to_number("x") == 1}', "error"),
        ("other := 1", "error"),
        (
            'decision := {"allow": false, "deny": [], "hold": [{"rule": "full", "msg": "later"}]}',
            "allow->hold",
        ),
        ('decision := {"allow": false}', "allow->deny"),
    ):
        found = replay(log, policy(rest))
        assert dict(found.classes) == {kind: 1}, rest
        assert len(found.changes[0].examples) == 1, "whatever changed, one can be looked at"
        if kind == "reasons":
            assert (found.changes[0].rules, found.changes[0].message) == (("r",), "until now by [-]")


def test_a_masked_field_that_the_candidate_reads_is_undecidable_not_guessed(
    recorder: Recorder, shipped: Bundle
) -> None:
    recorder.ask(USE, reading(token="hidden"))  # taken out of the record, read by nobody
    recorder.ask(USE, reading(dataset=fact(password="hidden")))  # below what the decision reads
    recorder.ask(USE, reading(), masked=["/input/principal/tenant"])  # replaced by a mask policy
    recorder.ask(USE, reading(), masked=["/input/principal/credential_id"])
    recorder.ask(USE, reading(), masked=["/result/deny/0/msg"])  # words only: what was decided is known
    recorder.ask(USE, reading(), masked=["/result/deny/0"])
    recorder.write()
    found = replay(recorder.log.directory, stricter(shipped))
    assert dict(found.classes) == {"unchanged": 3, "undecidable": 3}
    assert {c.message.split(" was")[0] for c in found.changes} == {
        "/input/dataset/password", "/input/principal/tenant", "/result/deny/0",
    }  # fmt: skip


def test_an_error_of_the_past_that_now_has_an_answer_is_told_apart(
    recorder: Recorder, shipped: Bundle
) -> None:
    recorder.ask(USE, reading(purpose="\ud800"[:0] + "x\x00"))  # a NUL cannot be asked
    recorder.ask(USE, reading(), error={"message": "the policy engine is down"}, result=None)
    recorder.write()
    assert dict(replay(recorder.log.directory, shipped).classes) == {"unchanged": 1, "error->allow": 1}


def test_since_leaves_out_what_is_older(recorder: Recorder, shipped: Bundle, clock: FrozenClock) -> None:
    for _ in range(500):
        recorder.ask(USE, reading())
    middle = clock.advance(seconds=86_400)
    for _ in range(30):
        recorder.ask(USE, reading())
    log = recorder.write()
    assert len(list(log.glob("*.jsonl"))) > 1
    assert replay(log, shipped, since=middle).decisions == 30
    assert replay(log, shipped, since=middle + timedelta(days=1)).decisions == 0
    assert replay(log, shipped).decisions == 530


def test_a_line_torn_by_a_crash_and_lines_cut_by_a_piece_are_read_right(
    recorder: Recorder, shipped: Bundle
) -> None:
    from guard_core.policy.lifecycle.recorded import Piece, lines_of, pieces

    random_log(recorder, 60)
    log = recorder.log.directory
    newest = max(log.glob("*.jsonl"))
    with newest.open("ab") as file:
        file.write(b'{"_hash":"torn')
    whole = [line for piece in pieces(log) for _, line in lines_of(piece)]
    for size in (1, 100, 1500, 4096, 100_000):
        cut = [line for piece in pieces(log, piece_bytes=size) for _, line in lines_of(piece)]
        assert cut == whole, size
    assert len(whole) == 60
    assert [offset for offset, _ in lines_of(Piece(str(newest), 0, 10))] == [0]
    assert replay(log, shipped).decisions == 60


def test_the_gpu_hours_of_the_jobs_that_were_let_in_are_summed(
    recorder: Recorder, shipped: Bundle, home: Home, clock: FrozenClock
) -> None:
    from guard_core.storage.tables import WorkloadRow

    draw = random.Random(3)
    warned = {**job(draw, 1), "principal": principal(), "quota": {"queue": "acme", "resources": {}}}
    warned["workload"] |= {
        "queue": "acme", "requests": {"jobs": 0}, "datasets": [fact(verdict="warn")], "declared": ["digits"],
        "runtime_env_fields": [],
    }  # fmt: skip
    admitted = [recorder.ask(ADMISSION, warned), recorder.ask(ADMISSION, warned)]
    recorder.write()
    now = clock()
    with home.storage.session() as session:
        for number, (decision, gpus, hours, done) in enumerate(
            [(admitted[0], 4, 2, True), (admitted[1], 1, 3, False), ("dec-other", 8, 9, True)]
        ):
            session.add(
                WorkloadRow(
                    id=f"job-{number}", tenant="acme", user="ann", queue="acme", state="finished",
                    requests={"gpu_milli": gpus * 1000}, datasets=[], spec={}, reason="",
                    decision_id=decision, priority=0, created_at=now,
                    admitted_at=now - timedelta(hours=hours),
                    finished_at=now if done else None,
                )
            )  # fmt: skip
    hours_of = gpu_hours_of(home.storage, now=now)
    found = replay(recorder.log.directory, stricter(shipped), gpu_hours=hours_of)
    assert dict(found.classes) == {"allow->deny": 2}
    assert found.gpu_hours == pytest.approx(4 * 2 + 1 * 3)
    assert found.changes[0].gpu_hours == pytest.approx(11)


def test_a_candidate_that_does_not_compile_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    broken = make_bundle({"t.rego": "package guard.t\n\ndecision := {"}, {"tenants": {}})
    with pytest.raises(UserError, match="does not compile"):
        replay(tmp_path, broken)


def test_an_empty_log_is_no_decisions(tmp_path: Path, shipped: Bundle) -> None:
    found = replay(tmp_path / "none", shipped)
    assert (found.decisions, found.distinct, dict(found.classes)) == (0, 0, {})
