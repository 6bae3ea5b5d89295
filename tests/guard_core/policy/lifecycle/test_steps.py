"""Changing policy step by step: who may, what is written down before it happens, and the way back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from guard_core.clock import to_ns
from guard_core.config import load_settings
from guard_core.errors import Denied, Tampered, Undecidable, UserError
from guard_core.findings import Enforcement
from guard_core.home import Home
from guard_core.policy.decision import Decision
from guard_core.policy.lifecycle.bundle_archive import write_archive
from guard_core.policy.lifecycle.bundle_signature import BundleKey
from guard_core.policy.lifecycle.cli import status_text
from guard_core.policy.lifecycle.opening import store_of
from guard_core.policy.lifecycle.promotion import GateReport, Limits, judged
from guard_core.policy.lifecycle.replay import replay
from guard_core.policy.lifecycle.state import State
from guard_core.policy.lifecycle.steps import PolicySteps, end_emergency
from guard_core.testing import FrozenClock

USE = "guard/dataset/use/decision"


def warned_are_refused(candidate: Path) -> Path:
    """The candidate's change: datasets with warnings may no longer be used in tier basic."""
    file = candidate / "data" / "thresholds.yaml"
    value = yaml.safe_load(file.read_text())
    value["tiers"]["basic"]["use"]["warn_verdict"] = "deny"
    file.write_text(yaml.safe_dump(value))
    return candidate


def with_gamma(candidate: Path) -> Path:
    """Another change of the candidate: one tenant more."""
    with (candidate / "data" / "tenants.yaml").open("a") as file:
        file.write("gamma: {title: Gamma, tier: basic, state: active}\n")
    return candidate


def use(home: Home, *, verdict: str = "warn", tenant: str = "acme", name: str = "digits") -> Decision:
    fact = {
        "ref": f"{tenant}/{name}@1", "exists": True, "tenant": tenant, "name": name, "version": 1,
        "verdict": verdict, "signed": True, "record_ok": True, "shared_with": [], "tampered": False,
    }  # fmt: skip
    return home.decide(
        USE,
        {"dataset": fact, "purpose": "train", "workload": None},
        principal=home.principal(tenant=tenant),
        enforcement=Enforcement.ENFORCED,
    )


def gate(home: Home, **limits: Any) -> GateReport:
    staged = state_of(home).stage
    assert staged is not None
    found = replay(home.audit.directory, store_of(home).open(staged.held).bundle)
    return judged(found, Limits(**{"min_allows": 0, "p99_ms": 1000, **limits}), digest=staged.held.digest)


def state_of(home: Home) -> State:
    state = store_of(home).state()
    assert state is not None
    return state


def events(home: Home) -> list[str]:
    return [r["kind"] for r in home.audit.records(kind="policy.")]


@pytest.fixture
def staged(staged_home: Home, candidate: Path) -> Home:
    """A home where a stricter candidate is in shadow, staged by its owner."""
    PolicySteps(staged_home).stage("shadow", candidate=warned_are_refused(candidate))
    return staged_home


def test_the_whole_way_from_shadow_over_approval_to_force(
    staged: Home, acting_as: Callable[..., Home]
) -> None:
    assert use(staged).allow, "a shadow changes nothing"
    differences = list(staged.audit.records(kind="policy.difference"))
    assert [d["data"]["class"] for d in differences] == ["allow->deny"]
    other = acting_as("bob")
    PolicySteps(other).approve()
    PolicySteps(staged).promote(gate(staged, expected=("dataset-warned",)))
    refused = use(staged)
    assert not refused.allow
    assert [r.rule for r in refused.reasons] == ["dataset-warned"]
    assert refused.revision == state_of(staged).active.revision
    assert not use(other).allow, "another process of the same home follows"
    assert events(staged) == ["policy.staged", "policy.difference", "policy.approved", "policy.promoted"]
    promoted = next(iter(staged.audit.records(kind="policy.promoted")))
    assert promoted["data"]["approved_by"] == ["local/bob"]
    assert promoted["data"]["gate"]["expected_denials"] == 1
    assert promoted["decision_id"].startswith("dec-")


def test_a_difference_in_shadow_names_the_decision_it_belongs_to(staged: Home) -> None:
    decision = use(staged)
    noted = next(iter(staged.audit.records(kind="policy.difference")))
    assert noted["decision_id"] == decision.decision_id
    assert noted["data"]["candidate_rules"] == ["dataset-warned"]


def test_in_mode_warn_the_user_reads_what_is_coming(staged: Home) -> None:
    PolicySteps(staged).stage("warn")
    decision = use(staged)
    assert decision.allow
    assert "the coming policy would refuse this: dataset acme/digits@1 has warnings" in decision.explain()


def test_the_author_is_not_the_approver(staged: Home, acting_as: Callable[..., Home]) -> None:
    with pytest.raises(Denied, match=r"is the author of chg-.*; another person has to approve it"):
        PolicySteps(staged).approve()
    mine = acting_as(staged.principal().user)  # a second credential of the same person
    with pytest.raises(Denied, match="is the author"):
        PolicySteps(mine).approve()
    assert state_of(staged).stage.approvals == ()  # type: ignore[union-attr]
    assert events(staged)[-2:] == ["policy.refused", "policy.refused"]


def test_without_a_second_person_nothing_is_promoted_or_enforced(staged: Home) -> None:
    before = state_of(staged)
    with pytest.raises(Denied, match=r"nobody but its author .* has approved"):
        PolicySteps(staged).promote(gate(staged))
    with pytest.raises(Denied, match="not enforced: nobody but its author"):
        PolicySteps(staged).stage("enforce", tenants=("acme",), gate=gate(staged))
    with pytest.raises(UserError, match="not the one that was tried"):
        PolicySteps(staged).stage("enforce", tenants=("acme",))
    assert state_of(staged) == before


def test_an_approval_is_worth_nothing_for_other_content(
    staged: Home, acting_as: Callable[..., Home], candidate: Path
) -> None:
    PolicySteps(acting_as("bob")).approve()
    (candidate / "guard" / "lib" / "more").mkdir()
    (candidate / "guard" / "lib" / "more" / "more.rego").write_text("package guard.lib.more\n\nx := 1\n")
    PolicySteps(staged).stage("shadow", candidate=candidate)
    with pytest.raises(Denied, match="nobody but its author"):
        PolicySteps(staged).promote(gate(staged))


def test_the_same_content_staged_again_keeps_its_author_and_approvals(
    staged: Home, acting_as: Callable[..., Home], candidate: Path
) -> None:
    bob = acting_as("bob")
    PolicySteps(bob).approve()
    before = state_of(staged).stage
    PolicySteps(bob).stage("warn", candidate=candidate)
    after = state_of(staged).stage
    assert before is not None and after is not None
    assert (after.change, after.author, after.approvals) == (before.change, before.author, before.approvals)


def test_enforced_for_one_tenant_the_candidate_decides_there_and_nowhere_else(
    staged: Home, acting_as: Callable[..., Home]
) -> None:
    PolicySteps(acting_as("bob")).approve()
    PolicySteps(staged).stage("enforce", tenants=("acme",), percent=50, gate=gate(staged))
    names = [f"set-{n}" for n in range(40)]
    decided = {name: use(staged, name=name).allow for name in names}
    assert 8 < sum(decided.values()) < 32
    assert decided == {name: use(staged, name=name).allow for name in names}
    assert all(use(staged, tenant="canary", name=name).allow for name in names[:10])


def test_the_gate_refuses_new_denials_with_a_counter_example(
    staged: Home, acting_as: Callable[..., Home]
) -> None:
    example = use(staged).decision_id
    PolicySteps(acting_as("bob")).approve()
    report = gate(staged)
    assert not report.passed
    with pytest.raises(
        Denied, match=f"1 recorded allows would be refused, most by dataset-warned .*{example}"
    ):
        PolicySteps(staged).promote(report)
    assert use(staged).allow
    assert events(staged)[-2:] == ["policy.refused", "policy.difference"]


def test_the_gate_wants_enough_recorded_allows(staged: Home, acting_as: Callable[..., Home]) -> None:
    PolicySteps(acting_as("bob")).approve()
    for _ in range(3):
        use(staged, verdict="allow")
    with pytest.raises(Denied, match=r"only .* recorded allows to try it on, 100 wanted"):
        PolicySteps(staged).promote(gate(staged, min_allows=100))


def test_the_gate_refuses_a_candidate_that_fails_or_is_slow(staged: Home) -> None:
    use(staged, verdict="allow")
    staged_state = state_of(staged).stage
    assert staged_state is not None
    bundle = store_of(staged).open(staged_state.held).bundle
    found = _with(replay(staged.audit.directory, bundle), eval_cpu_ns={"p50": 1, "p99": 2})
    broken = judged(_with(found, classes={"error": 2}), Limits(min_allows=0), digest="")
    assert broken.failures == ("it fails on 2 recorded decisions: mend it",)
    slow = judged(_with(found, eval_cpu_ns={"p50": 1, "p99": 11_000_000}), Limits(min_allows=0), digest="")
    assert slow.failures == ("its 99th percentile takes 11.0 ms of CPU, 10 allowed",)
    masked = judged(_with(found, classes={"undecidable": 1}), Limits(min_allows=0), digest="")
    assert "cannot be tried" in masked.failures[0]


def _with(found: Any, **changed: Any) -> Any:
    from dataclasses import replace

    return replace(found, **changed)


def test_a_gate_for_another_bundle_does_not_count(
    staged: Home, acting_as: Callable[..., Home], candidate: Path
) -> None:
    old = gate(staged)
    PolicySteps(staged).stage("shadow", candidate=with_gamma(candidate))
    PolicySteps(acting_as("bob")).approve()
    with pytest.raises(UserError, match="not the one that was tried"):
        PolicySteps(staged).promote(old)


def promoted(home: Home, acting_as: Callable[..., Home], user: str = "bob") -> State:
    PolicySteps(acting_as(user)).approve()
    return PolicySteps(home).promote(gate(home, expected=("dataset-warned",)))


def test_rollback_puts_the_bundle_before_in_force_under_a_higher_number(
    staged: Home, acting_as: Callable[..., Home]
) -> None:
    first = state_of(staged).active
    second = promoted(staged, acting_as).active
    assert not use(staged).allow
    state = PolicySteps(staged).roll_back(reason="tenants complain")
    assert use(staged).allow
    assert state.active.revision == first.revision
    assert state.active.sequence > second.sequence
    assert next(iter(staged.audit.records(kind="policy.rolled-back")))["data"]["reason"] == "tenants complain"
    with pytest.raises(UserError, match="no earlier bundle to go back to"):
        PolicySteps(staged).roll_back()


def test_rollback_to_a_bundle_that_was_touched_is_refused(
    staged: Home, acting_as: Callable[..., Home]
) -> None:
    promoted(staged, acting_as)
    before = state_of(staged)
    file = store_of(staged).path(before.former[0])
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(Tampered, match="cut short"):
        PolicySteps(staged).roll_back()
    assert state_of(staged) == before


def test_an_older_signed_bundle_cannot_be_staged(
    staged: Home, acting_as: Callable[..., Home], tmp_path: Path
) -> None:
    state = promoted(staged, acting_as)
    old = tmp_path / "old.tar.gz"
    shutil.copy(store_of(staged).path(state.former[0]), old)
    with pytest.raises(
        Tampered, match="an older bundle is not taken; to go back use: trainguard policy rollback"
    ):
        PolicySteps(staged).stage("shadow", candidate=old)


def test_a_signed_bundle_from_another_machine_can_be_staged(
    staged_home: Home, candidate: Path, key: BundleKey, tmp_path: Path
) -> None:
    from guard_core.policy.bundle import load_bundle

    made = load_bundle(warned_are_refused(candidate))
    write_archive(tmp_path / "made.tar.gz", made, sequence=7, key=key)
    state = PolicySteps(staged_home).stage("shadow", candidate=tmp_path / "made.tar.gz")
    assert state.stage is not None
    assert (state.stage.held.sequence, state.stage.held.revision) == (7, made.revision)


def test_breaking_the_glass_works_at_once_ends_by_itself_and_leaves_a_review(
    staged_home: Home, candidate: Path, clock: FrozenClock, acting_as: Callable[..., Home]
) -> None:
    home = staged_home
    state = PolicySteps(home).break_glass("poisoned set in use", 600, candidate=warned_are_refused(candidate))
    assert not use(home).allow
    clock.advance(seconds=599)
    assert not use(home).allow
    assert "EMERGENCY" in status_text(state, now_ns=to_ns(clock()))
    clock.advance(seconds=1)
    assert "ended by itself at" in status_text(state, now_ns=to_ns(clock()))
    assert use(home).allow, "the emergency is over to the second, whoever has or has not cleaned up"
    end_emergency(home)
    end_emergency(home)
    assert state_of(home).emergency is None
    assert events(home).count("policy.break-glass-ended") == 1
    assert [r.id for r in state_of(home).reviews] == [state.emergency.id]  # type: ignore[union-attr]
    with pytest.raises(Denied, match="another person has to review it"):
        PolicySteps(home).review(state.reviews[0].id, verdict="justified", note="it was me")
    PolicySteps(acting_as("bob")).review(state.reviews[0].id, verdict="justified", note="poison confirmed")
    assert state_of(home).reviews == ()
    assert events(home)[0] == "policy.break-glass"
    assert events(home)[-1] == "policy.reviewed"


def test_an_emergency_is_ended_by_rollback(staged_home: Home, candidate: Path) -> None:
    PolicySteps(staged_home).break_glass("poisoned set in use", 600, candidate=warned_are_refused(candidate))
    PolicySteps(staged_home).roll_back()
    assert use(staged_home).allow
    assert state_of(staged_home).emergency is None
    assert len(state_of(staged_home).reviews) == 1


def test_nothing_is_promoted_while_an_emergency_awaits_its_review(
    staged: Home, acting_as: Callable[..., Home], candidate: Path, clock: FrozenClock
) -> None:
    PolicySteps(staged).break_glass("poisoned set in use", 60, candidate=with_gamma(candidate))
    clock.advance(seconds=61)
    PolicySteps(acting_as("bob")).approve()
    with pytest.raises(Denied, match="awaits its review"):
        PolicySteps(staged).promote(gate(staged))


@pytest.mark.parametrize(
    ("reason", "ttl", "said"),
    [
        ("fire", 600, "at least ten characters"),
        ("a long enough reason", 10, "lasts 60 s"),
        ("a long enough reason", 90_000, "24 h"),
    ],
)
def test_an_emergency_needs_a_reason_and_an_end(
    staged_home: Home, candidate: Path, reason: str, ttl: int, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        PolicySteps(staged_home).break_glass(reason, ttl, candidate=warned_are_refused(candidate))
    assert store_of(staged_home).state() is None


def test_somebody_without_the_role_changes_nothing(
    staged: Home, acting_as: Callable[..., Home], candidate: Path
) -> None:
    before = state_of(staged)
    eve = PolicySteps(acting_as("eve", ()))
    with pytest.raises(Denied, match="may not approve a policy change: that takes one of policy-approver"):
        eve.approve()
    for step in (
        eve.unstage,
        lambda: eve.stage("warn"),
        eve.roll_back if before.former else lambda: eve.stage("shadow"),
        lambda: eve.break_glass("because I want to", 600, candidate=with_gamma(candidate)),
    ):
        with pytest.raises(Denied, match="user eve may not change policy"):
            step()
    assert state_of(staged) == before
    asked = [r for r in staged.audit.records(kind="decision") if r["path"] == "guard/policy/change/decision"]
    assert sum(r["result"]["allow"] is False for r in asked) == 4, "every refusal is on record"


def test_policies_that_cannot_decide_about_changes_allow_none(
    staged_home: Home, candidate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mute = tmp_path / "mute"
    shutil.copytree(candidate, mute)
    shutil.rmtree(mute / "guard" / "policy")
    monkeypatch.setattr("guard_core.policy.engine.shipped_policies", lambda: mute)
    with pytest.raises(Undecidable, match="no decision about this change could be had"):
        PolicySteps(staged_home).stage("shadow", candidate=warned_are_refused(candidate))
    assert store_of(staged_home).state() is None


def test_a_candidate_that_would_lock_everybody_out_is_refused(staged_home: Home, candidate: Path) -> None:
    shutil.rmtree(candidate / "guard" / "policy")
    with pytest.raises(UserError, match="nobody could change policy again"):
        PolicySteps(staged_home).stage("shadow", candidate=candidate)


def test_a_candidate_with_a_fault_is_refused_with_its_place(staged_home: Home, candidate: Path) -> None:
    with (candidate / "data" / "tenants.yaml").open("a") as file:
        file.write("gamma: {title: Gamma, tier: golden, state: active}\n")
    with pytest.raises(UserError, match=r"tenants\.yaml:\d+.*golden"):
        PolicySteps(staged_home).stage("shadow", candidate=candidate)


def test_staging_what_is_in_force_is_refused(staged_home: Home, candidate: Path) -> None:
    with pytest.raises(UserError, match="is what is in force already"):
        PolicySteps(staged_home).stage("shadow", candidate=candidate)


def test_an_unknown_tenant_is_named(staged: Home) -> None:
    with pytest.raises(UserError, match="no tenant 'gamma'"):
        PolicySteps(staged).stage("warn", tenants=("gamma",))


def test_where_a_directory_is_configured_there_is_no_store_to_change(home_dir: Path, candidate: Path) -> None:
    with Home.open(load_settings(home=home_dir, policy={"dir": candidate})) as home:
        with pytest.raises(UserError, match=r"policy\.dir is set"):
            PolicySteps(home)
        assert use(home).allow


def test_no_step_happens_that_cannot_be_recorded(staged: Home, acting_as: Callable[..., Home]) -> None:
    PolicySteps(acting_as("bob")).approve()
    report = gate(staged)
    before = state_of(staged)
    segment = max(staged.audit.directory.glob("*.jsonl"))
    content = segment.read_bytes()
    segment.write_bytes(content[: len(content) // 2])  # a log that lost records takes no more
    with pytest.raises(Undecidable, match="audit log"):
        PolicySteps(staged).promote(report)
    assert state_of(staged) == before


def test_policy_data_of_the_home_follows_the_store(
    staged_home: Home, acting_as: Callable[..., Home], candidate: Path
) -> None:
    assert "gamma" not in staged_home.tenants()
    PolicySteps(staged_home).stage("shadow", candidate=with_gamma(candidate))
    promoted(staged_home, acting_as)
    assert "gamma" in staged_home.tenants()
