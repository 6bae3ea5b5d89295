"""Hot reload: every decision is made under one whole bundle, none is dropped, nothing broken gets in."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guard_core.attestation import Signer
from guard_core.errors import Tampered
from guard_core.policy.bundle import Bundle, make_bundle
from guard_core.policy.lifecycle.active import ActivePolicies
from guard_core.policy.lifecycle.state import Emergency, Held, Person, Stage
from guard_core.policy.lifecycle.store import STATE_FILE, PolicyStore
from guard_core.testing import FrozenClock

ANN = Person("acme", "ann", "0123")
PATH = "guard/t/decision"


def numbered(n: int, **config: Any) -> Bundle:
    """A policy that says its own number, once from Rego and once from data: they must never disagree."""
    rego = (
        "package guard.t\n\n"
        f'decision := {{"allow": true, "deny": [], "n": {n}, "data": data.guard.config.number.n}}\n'
    )
    return make_bundle({"guard/t/t.rego": rego}, {"number": {"n": n}, **config})


def saying(rego: str) -> Bundle:
    return make_bundle({"guard/t/t.rego": f"package guard.t\n\n{rego}\n"}, {"number": {"n": 0}})


@pytest.fixture
def store(tmp_path: Path, keys: Path) -> PolicyStore:
    shutil.copytree(keys, tmp_path / "keys" / "policy")
    signer = Signer.open(tmp_path / "keys")
    return PolicyStore(tmp_path / "policy", keys=tmp_path / "keys" / "policy", signer=lambda: signer)


@pytest.fixture
def told() -> list[tuple[str, Mapping[str, Any]]]:
    """What was sent to the audit log."""
    return []


@pytest.fixture
def engine(store: PolicyStore, told: list[tuple[str, Mapping[str, Any]]]) -> ActivePolicies:
    return ActivePolicies(store, lambda: numbered(0), notify=lambda kind, data: told.append((kind, data)))


def put(store: PolicyStore, bundle: Bundle) -> Held:
    with store.changing(lambda: numbered(0)) as draft:
        held = draft.sign(bundle)
        draft.put_in_force(replace(draft.state, active=held))
        return held


def stage(store: PolicyStore, bundle: Bundle, mode: Any, **choices: Any) -> None:
    with store.changing(lambda: numbered(0)) as draft:
        staged = Stage("chg-1", draft.sign(bundle), mode, ANN, 0, **choices)
        draft.put_in_force(replace(draft.state, stage=staged))


def question(tenant: str = "acme", job: str = "job-1") -> dict[str, Any]:
    return {"principal": {"tenant": tenant, "user": "ann"}, "workload": {"submission_id": job}}


def test_without_a_store_the_base_decides(engine: ActivePolicies) -> None:
    assert engine.evaluate(PATH, {}).value["n"] == 0
    assert (engine.generation, engine.revision) == (0, numbered(0).revision)


def test_the_next_decision_after_a_change_is_made_under_it(
    engine: ActivePolicies, store: PolicyStore
) -> None:
    for n in (1, 2, 1, 3):
        put(store, numbered(n))
        answer = engine.evaluate(PATH, {})
        assert (answer.value["n"], answer.revision) == (n, numbered(n).revision)


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns fifty times as often: more interleavings, and the swapper gets its turn."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 50)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("restless")
def test_no_decision_is_dropped_or_torn_while_a_hundred_bundles_are_swapped_under_load(
    engine: ActivePolicies, store: PolicyStore
) -> None:
    revisions = {numbered(n).revision: n for n in range(4)}
    stop = threading.Event()
    counts = [0, 0, 0, 0]
    wrong: list[Any] = []

    def decide(worker: int) -> None:
        while not stop.is_set():
            answer = engine.evaluate(PATH, {"worker": worker})
            value = answer.value
            if answer.error or value["n"] != value["data"] or revisions.get(answer.revision) != value["n"]:
                wrong.append(answer)
            counts[worker] += 1

    signed = [put(store, numbered(n)) for n in range(4)]
    threads = [threading.Thread(target=decide, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for n in range(100):
        with store.changing(lambda: numbered(0)) as draft:
            draft.put_in_force(replace(draft.state, active=signed[n % 4]))
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]
    assert min(counts) > 100
    assert engine.evaluate(PATH, {}).value["n"] == 3
    assert engine.generation == 104


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(bytes(content))


def _halve(file: Path) -> None:
    file.chmod(0o644)
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("harm", [_flip, _halve, Path.unlink])
def test_a_broken_new_bundle_leaves_the_old_one_in_force_and_is_recorded(
    engine: ActivePolicies, store: PolicyStore, told: list[Any], harm: Any
) -> None:
    put(store, numbered(1))
    assert engine.evaluate(PATH, {}).value["n"] == 1
    with store.changing(lambda: numbered(0)) as draft:
        held = draft.sign(numbered(2))
        harm(store.path(held))
        draft.put_in_force(replace(draft.state, active=held))
    for _ in range(3):
        assert engine.evaluate(PATH, {}).value["n"] == 1
    assert [kind for kind, _ in told] == ["policy.reload-refused"], "recorded once, not at every decision"
    assert told[0][1]["in_force"] == numbered(1).revision
    assert engine.health() == (told[0][1]["reason"],)
    put(store, numbered(3))
    assert engine.evaluate(PATH, {}).value["n"] == 3
    assert engine.health() == ()


def test_a_bundle_that_does_not_compile_leaves_the_old_one_in_force(
    engine: ActivePolicies, store: PolicyStore, told: list[Any]
) -> None:
    put(store, numbered(1))
    engine.refresh()
    put(store, saying("decision := {"))
    assert engine.evaluate(PATH, {}).value["n"] == 1
    assert "does not compile" in told[0][1]["reason"]


def test_an_older_state_put_back_leaves_the_newer_in_force(
    engine: ActivePolicies, store: PolicyStore, told: list[Any]
) -> None:
    put(store, numbered(1))
    old = (store.directory / STATE_FILE).read_bytes()
    put(store, numbered(2))
    engine.refresh()
    (store.directory / STATE_FILE).write_bytes(old)
    assert engine.evaluate(PATH, {}).value["n"] == 2
    assert "an older one was put back" in told[0][1]["reason"]


def test_a_removed_store_leaves_the_last_state_in_force_and_a_new_process_refuses(
    engine: ActivePolicies, store: PolicyStore, told: list[Any]
) -> None:
    put(store, numbered(1))
    engine.refresh()
    (store.directory / STATE_FILE).unlink()
    assert engine.evaluate(PATH, {}).value["n"] == 1
    assert "was removed" in told[0][1]["reason"]
    with pytest.raises(Tampered, match="was removed"):
        ActivePolicies(store, lambda: numbered(0))


def test_a_shadow_changes_no_answer_and_notes_every_difference(
    engine: ActivePolicies, store: PolicyStore
) -> None:
    stage(store, saying('decision := {"allow": false, "deny": [{"rule": "no", "msg": "never"}]}'), "shadow")
    answer = engine.evaluate(PATH, question())
    assert answer.value == numbered_value(0)
    assert answer.difference is not None
    assert {k: answer.difference[k] for k in ("class", "candidate_rules", "candidate_message")} == {
        "class": "allow->deny", "candidate_rules": ["no"], "candidate_message": "never",
    }  # fmt: skip


def numbered_value(n: int) -> dict[str, Any]:
    return {"allow": True, "deny": [], "n": n, "data": n}


def test_one_bundle_alone_decides_until_a_candidate_is_staged(
    engine: ActivePolicies, store: PolicyStore
) -> None:
    put(store, numbered(3))
    sole = engine.sole_bundle()
    assert sole is not None
    assert sole.revision == numbered(3).revision
    stage(store, numbered(9), "shadow")
    assert engine.sole_bundle() is None


def test_a_shadow_that_agrees_notes_nothing(engine: ActivePolicies, store: PolicyStore) -> None:
    stage(store, numbered(9), "shadow")
    answer = engine.evaluate(PATH, question())
    assert (answer.value["n"], answer.difference) == (0, None)


def test_a_shadow_that_fails_is_a_noted_error_and_the_answer_stands(
    engine: ActivePolicies, store: PolicyStore
) -> None:
    stage(store, saying('decision := {"allow": to_number("x") == 1}'), "shadow")
    answer = engine.evaluate(PATH, question())
    assert answer.value == numbered_value(0)
    assert answer.difference is not None
    assert answer.difference["class"] == "error"


def test_in_mode_warn_the_difference_is_a_warning_in_the_users_answer(
    engine: ActivePolicies, store: PolicyStore
) -> None:
    stage(store, saying('decision := {"allow": false, "deny": [{"rule": "no", "msg": "never"}]}'), "warn")
    value = engine.evaluate(PATH, question()).value
    assert value["allow"] is True
    assert [w["msg"] for w in value["warn"]] == ["the coming policy would refuse this: never [no]"]


def test_enforce_decides_for_the_chosen_tenants_and_share_only(
    engine: ActivePolicies, store: PolicyStore
) -> None:
    stage(store, numbered(5), "enforce", tenants=("acme",), percent=50)
    jobs = [engine.evaluate(PATH, question("acme", f"job-{n}")).value["n"] for n in range(200)]
    assert 70 < jobs.count(5) < 130
    assert jobs.count(0) == 200 - jobs.count(5)
    again = [engine.evaluate(PATH, question("acme", f"job-{n}")).value["n"] for n in range(200)]
    assert again == jobs, "the same job is always on the same side"
    assert {engine.evaluate(PATH, question("beta", f"job-{n}")).value["n"] for n in range(50)} == {0}


def test_a_candidate_that_fails_where_it_is_enforced_is_an_error_not_a_fall_back(
    engine: ActivePolicies, store: PolicyStore
) -> None:
    stage(store, saying('decision := {"allow": to_number("x") == 1}'), "enforce")
    assert engine.evaluate(PATH, question()).error


def test_a_candidate_never_decides_about_policies(store: PolicyStore) -> None:
    change = 'package guard.policy.change\n\ndecision := {{"allow": {0}}}\n'

    def having(allow: str) -> Bundle:
        return make_bundle({"guard/policy/change/c.rego": change.format(allow)}, {"tenants": {}})

    engine = ActivePolicies(store, lambda: having("false"))
    with store.changing(lambda: having("false")) as draft:
        mine = draft.sign(having("true"))
        emergency = Emergency("em-1", mine, ANN, "because", 0, 2**62)
        staged = Stage("chg-1", mine, "enforce", ANN, 0)
        draft.put_in_force(replace(draft.state, stage=staged, emergency=emergency))
    assert engine.evaluate("guard/policy/change/decision", {}).value == {"allow": False}


def test_an_emergency_bundle_decides_until_it_expires_and_not_a_moment_longer(
    store: PolicyStore, clock: FrozenClock
) -> None:
    from guard_core.clock import to_ns

    ended = threading.Event()
    engine = ActivePolicies(store, lambda: numbered(0), expire=ended.set, clock=clock)
    with store.changing(lambda: numbered(0)) as draft:
        held = draft.sign(numbered(7))
        until = to_ns(clock()) + 60 * 10**9
        emergency = Emergency("em-1", held, ANN, "the store is on fire", to_ns(clock()), until)
        draft.put_in_force(replace(draft.state, emergency=emergency))
    assert engine.evaluate(PATH, {}).value["n"] == 7
    assert engine.bundle.revision == numbered(7).revision
    assert engine.sole_bundle() is None
    clock.advance(seconds=59.999)
    assert engine.evaluate(PATH, {}).value["n"] == 7
    clock.advance(seconds=0.001)
    assert engine.evaluate(PATH, {}).value["n"] == 0
    assert engine.bundle.revision == numbered(0).revision
    assert ended.wait(10)


def test_large_data_is_loaded_beside_the_decisions_in_steps(store: PolicyStore) -> None:
    def large(n: int) -> Bundle:
        tenants = {f"tenant-{i}": {"users": {f"u{j}": [f"role-{n}"] for j in range(40)}} for i in range(1500)}
        rego = (
            "package guard.t\n\n"
            f'decision := {{"allow": true, "n": {n}, "role": data.guard.config.tenants[input.t].users.u7[0],'
            ' "tenants": count(data.guard.config.tenants)}\n'
        )
        return make_bundle({"guard/t/t.rego": rego}, {"tenants": tenants})

    engine = ActivePolicies(store, lambda: large(0), background_bytes=1)
    put(store, large(1))
    seen = []
    while not seen or seen[-1] != 1:
        answer = engine.evaluate(PATH, {"t": "tenant-777"})
        assert answer.error is None
        assert answer.value["role"] == f"role-{answer.value['n']}"
        assert answer.value["tenants"] == 1500
        seen.append(answer.value["n"])
    assert seen == sorted(seen), "once the new bundle decides, the old one does not come back"
    assert seen[0] == 0, "the question that noticed the new bundle did not wait for it"
