"""What doctor says of the policy store."""

from __future__ import annotations

import json

import pytest

from guard_core.cli import main
from guard_core.policy.lifecycle.opening import store_of
from guard_core.policy.lifecycle.probe import policy_store
from guard_core.policy.lifecycle.steps import PolicySteps


def looked(home, clock):
    return {probe.name: probe for probe in policy_store(home.settings, clock)}


@pytest.fixture
def staged(staged_home, candidate):
    """A home with a candidate in shadow for one tenant."""
    with (candidate / "data" / "tenants.yaml").open("a") as file:
        file.write("gamma: {title: Gamma, tier: basic, state: active}\n")
    PolicySteps(staged_home).stage("shadow", candidate=candidate, tenants=("acme",), percent=50)
    return staged_home


def test_a_home_without_a_store_is_no_problem_and_looking_makes_no_key(home_dir, home, clock):
    assert looked(home, clock)["state"].status == "info"
    assert not (home_dir / "keys").exists()


def test_what_is_in_force_and_staged_is_told_with_its_signature_checked(staged, clock):
    found = looked(staged, clock)
    assert {name: probe.status for name, probe in found.items()} == {
        "state": "ok",
        "in force": "ok",
        "staged": "ok",
    }
    assert found["state"].message == "generation 1, signed"
    assert found["in force"].message.startswith("bundle 1, sha256:")
    assert "; shadow for acme, 50 %, by local/" in found["staged"].message
    assert found["staged"].message.endswith(", 0 approvals")


def test_a_changed_bundle_is_broken(staged, clock):
    store = store_of(staged)
    path = store.path(store.state().active)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    probe = looked(staged, clock)["in force"]
    assert (probe.status, probe.remedy) == ("broken", "restore policy/ and keys/policy/ from a backup")


@pytest.mark.parametrize("change", ["removed", "edited"])
def test_a_state_removed_or_edited_is_broken(change, staged, clock):
    file = staged.path("policy", "state.json")
    if change == "removed":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-20])
    assert looked(staged, clock)["state"].status == "broken"


def test_a_store_whose_signing_key_is_gone_is_broken_and_looking_makes_no_other(staged, clock):
    key = staged.path("keys", "signing.key")
    key.unlink()
    assert "is missing" in looked(staged, clock)["state"].message
    assert not key.exists()


def test_an_emergency_is_told_while_it_lasts_and_its_review_until_somebody_else_did_it(
    staged, candidate, clock
):
    PolicySteps(staged).break_glass("poisoned set in use", 600, candidate=candidate)
    found = looked(staged, clock)
    assert "decides until 2026-01-01 00:10:00Z: poisoned set in use" in found["emergency"].message
    assert "awaits somebody else's review: poisoned set in use" in found["review"].message
    clock.advance(seconds=600)
    assert "decides nothing" in looked(staged, clock)["emergency"].message


def test_a_store_that_the_settings_pass_over_is_said_to_be(staged, clock, candidate):
    settings = staged.settings.model_copy(
        update={"policy": staged.settings.policy.model_copy(update={"dir": candidate})}
    )
    found = {probe.name: probe for probe in policy_store(settings, clock)}
    assert found["use"].message == f"not asked: the settings name {candidate}"


def test_doctor_shows_the_store(staged, capsys):
    main(["doctor", "--format", "json"])
    areas = {probe["area"] for probe in json.loads(capsys.readouterr().out)["probes"]}
    assert "policy store" in areas
