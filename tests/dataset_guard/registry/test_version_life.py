"""Waived by two, hidden and brought back, destroyed as policy allows: each on record, each in its tenant."""

import json
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataset_guard
from dataset_guard.registry import record as records
from dataset_guard.registry.aliases import move_alias, remove_alias
from dataset_guard.registry.approvals import DESTROY, collected, give
from dataset_guard.registry.destroy import RECORD, delete, destroy, load_destruction, restore
from dataset_guard.registry.facts import dataset_facts
from dataset_guard.registry.store import Registry
from dataset_guard.registry.waivers import FOLDER, approve_waiver, waive
from guard_core.cli import main
from guard_core.errors import Denied, Tampered, UserError
from guard_core.home import Home

TABLE = pa.table({"n": range(300), "label": [i % 2 for i in range(300)]})


@pytest.fixture
def kept(home):
    """acme/set@1, registered from memory, so that its data is kept in the home."""
    dataset_guard.register(TABLE, name="set", tenant="acme", home=home, checks=["schema"])
    return Registry(home).get("set@1", tenant="acme")


def events(home, kind):
    return list(home.audit.records(kind=kind))


def fact_of(home, ref="acme/set@1"):
    [fact] = dataset_facts(home, [ref], principal=home.principal(tenant="acme"))
    return fact


# --- deleted -------------------------------------------------------------------------------------


def test_a_deleted_version_is_found_by_nobody_until_it_is_restored(home, kept):
    delete(home, "set@1", tenant="acme")
    assert Registry(home).versions("set", tenant="acme") == []
    assert fact_of(home)["exists"] is False
    with pytest.raises(UserError, match=r"acme/set@1 was deleted; bring it back"):
        dataset_guard.read("acme/set@1", home=home)
    restore(home, "set@1", tenant="acme")
    assert fact_of(home)["verdict"] == "allow"
    assert dataset_guard.verify("acme/set@1", home=home).ok
    assert [e["data"]["by"] for e in events(home, "dataset.deleted")] == [home.principal().user]


def test_a_deleted_versions_number_is_never_given_again(home, kept):
    delete(home, "set@1", tenant="acme")
    report = dataset_guard.register(TABLE, name="set", tenant="acme", home=home, checks=["schema"])
    assert report.version == 2
    assert kept.folder.is_dir()


def test_the_latest_version_is_the_latest_that_is_not_deleted(home, kept):
    dataset_guard.register(TABLE.slice(0, 9), name="set", tenant="acme", home=home, checks=["schema"])
    delete(home, "set@2", tenant="acme")
    assert Registry(home).get("set", tenant="acme").version == 1


def test_deleting_says_what_still_names_the_version(home, kept):
    move_alias(home, "set@1", "production", tenant="acme")
    _, used_by = delete(home, "set@1", tenant="acme")
    assert used_by.sentence() == "alias production"


def test_an_alias_is_removed_also_from_a_deleted_version_and_on_record(home, people, kept):
    move_alias(home, "set@1", "production", tenant="acme")
    with pytest.raises(UserError, match="no alias 'trusted'; its aliases: production"):
        remove_alias(home, "set@1", "trusted", tenant="acme")
    with pytest.raises(Denied, match="person's credential"):
        remove_alias(people("al", kind="job", workload="w-1"), "set@1", "production")
    delete(home, "set@1", tenant="acme")
    command = ["--home", str(home.settings.home), "dataset", "alias", "acme/set@1", "production", "--remove"]
    assert main(command) == 0
    assert Registry(home).aliases("set", tenant="acme") == {}
    *_, event = home.audit.records(kind="dataset.alias")
    assert (event["data"]["from"], event["data"]["to"]) == (1, None)
    assert main(command) == 2


def test_only_the_owner_moves_an_alias_and_never_a_job(home, people, kept):
    with pytest.raises(Denied):
        move_alias(people("bo", "beta"), "acme/set@1", "trusted")
    with pytest.raises(Denied, match="a job's credential"):
        move_alias(people("al", kind="job", workload="w-1"), "set@1", "trusted")
    assert Registry(home).aliases("set", tenant="acme") == {}
    move_alias(people("al"), "set@1", "trusted")


def test_only_the_owner_deletes_and_never_a_job(people, kept):
    with pytest.raises(Denied):
        delete(people("bo", "beta"), "acme/set@1")
    with pytest.raises(Denied, match="a job's credential"):
        delete(people("al", kind="job", workload="w-1"), "set@1")
    delete(people("al"), "set@1")


# --- destroyed -----------------------------------------------------------------------------------


def approved(people, ref="acme/set@1", user="bob"):
    steward = people(user, "acme", "data-steward")
    give(steward, ref, DESTROY, principal=steward.principal())


def test_a_destroyed_version_leaves_its_record_and_a_signed_destruction_record(home, people, kept):
    approved(people)
    done = destroy(people("alice"), "set@1", confirm="acme/set@1")
    left = sorted(file.name for file in kept.folder.iterdir())
    assert left == sorted([records.ENVELOPE, records.RECORD, RECORD])
    assert load_destruction(kept.folder, home.signer, ref="acme/set@1") == done
    assert {f["path"] for f in done["removed"]} >= {records.ROWS, records.LEAVES, "data/part-0.parquet"}
    assert (done["destroyed_by"], done["approved_by"]) == ("alice", ["acme/bob"])
    assert done["fingerprint"] == kept.fingerprint
    assert fact_of(home)["exists"] is False
    with pytest.raises(UserError, match="was destroyed on"):
        dataset_guard.read("acme/set@1", home=home)
    with pytest.raises(UserError, match="cannot be brought back"):
        restore(home, "set@1", tenant="acme")
    with pytest.raises(UserError, match="already"):
        destroy(home, "set@1", confirm="acme/set@1", tenant="acme")


def test_the_decision_and_the_event_are_on_record_before_anything_is_removed(home, people, kept, monkeypatch):
    approved(people)

    def cut_off(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("dataset_guard.registry.destroy._remove", cut_off)
    with pytest.raises(KeyboardInterrupt):
        destroy(people("alice"), "set@1", confirm="acme/set@1")
    [event] = events(home, "dataset.destroyed")
    assert home.decision_record(event["decision_id"])["path"] == "guard/dataset/destroy/decision"
    assert (kept.folder / records.ROWS).exists()
    assert fact_of(home)["exists"] is False  # hidden first
    monkeypatch.undo()
    destroy(people("alice"), "set@1", confirm="acme/set@1")  # finishes what was cut off
    assert not (kept.folder / records.ROWS).exists()


REFUSALS = {
    "nobody approved": ({}, "0 of 1 approvals given"),
    "only its author approved": ({"approver": "alice"}, "0 of 1 approvals given"),
    "it was not named again": ({"approver": "bob", "confirm": "set@1"}, "not the dataset's reference"),
    "an alias names it": ({"approver": "bob", "alias": "production"}, r"alias production"),
}


@pytest.mark.parametrize("case", sorted(REFUSALS))
def test_policy_keeps_a_version_from_being_destroyed(home, people, kept, case):
    given, said = REFUSALS[case]
    if "approver" in given:
        approved(people, user=given["approver"])
    if "alias" in given:
        move_alias(home, "set@1", given["alias"], tenant="acme")
    with pytest.raises(Denied, match=said):
        destroy(people("alice"), "set@1", confirm=given.get("confirm", "acme/set@1"))
    assert dataset_guard.verify("acme/set@1", home=home).ok
    assert events(home, "dataset.destroyed") == []


def test_a_child_version_keeps_its_parent(home, people, kept):
    dataset_guard.register(TABLE, name="child", tenant="acme", trusted="set@1", home=home, checks=["schema"])
    approved(people)
    with pytest.raises(Denied, match="version acme/child@1"):
        destroy(people("alice"), "set@1", confirm="acme/set@1")


def test_a_hold_keeps_a_version_whoever_approves(home, people, kept, tmp_path):
    import shutil

    from guard_core.policy.bundle import shipped_policies

    policies = shutil.copytree(shipped_policies(), tmp_path / "policies")
    held = "holds:\n- {tenant: acme, dataset: set, by: legal, reason: case 1}\n"
    (policies / "data" / "holds.yaml").write_text(held)
    approved(people)
    alice = people("alice")
    policy = alice.settings.policy.model_copy(update={"dir": policies})
    with (
        Home.open(alice.settings.model_copy(update={"policy": policy})) as under_hold,
        pytest.raises(Denied, match="a hold forbids"),
    ):
        destroy(under_hold, "set@1", confirm="acme/set@1")


def test_data_outside_the_home_is_named_and_not_touched(home, people, tmp_path):
    pq.write_table(TABLE, tmp_path / "t.parquet")
    dataset_guard.register(tmp_path / "t.parquet", name="set", tenant="acme", home=home, checks=["schema"])
    approved(people)
    done = destroy(people("alice"), "set@1", confirm="acme/set@1")
    assert done["not_removed"] == [str(tmp_path / "t.parquet")]
    assert (tmp_path / "t.parquet").exists()


def test_another_tenants_steward_has_no_say(home, people, kept):
    with pytest.raises(Denied):
        steward = people("bo", "beta", "data-steward")
        from dataset_guard.registry.caller import caller_of

        give(steward, "acme/set@1", DESTROY, principal=caller_of(steward, "acme/set@1"))
    with pytest.raises(Denied):
        destroy(people("bo", "beta"), "acme/set@1", confirm="acme/set@1")
    assert collected(home, "acme/set@1", DESTROY) == []


def test_approving_takes_the_role(people, kept):
    with pytest.raises(Denied, match="takes one of the roles tenant-admin, data-steward"):
        approved_by = people("carl")
        give(approved_by, "acme/set@1", DESTROY, principal=approved_by.principal())


def test_a_forged_destruction_record_is_not_believed(home, people, kept):
    approved(people)
    destroy(people("alice"), "set@1", confirm="acme/set@1")
    envelope = json.loads((kept.folder / RECORD).read_text())
    (kept.folder / RECORD).write_text(json.dumps({**envelope, "payload": "e30="}))
    with pytest.raises(Tampered):
        load_destruction(kept.folder, home.signer, ref="acme/set@1")


def test_who_has_the_public_key_alone_checks_a_destruction_record(home, people, kept, tmp_path, capsys):
    approved(people)
    destroy(people("alice"), "set@1", confirm="acme/set@1")
    [key] = home.path("keys").glob("*.pub.pem")
    asked = ["--home", str(tmp_path / "none"), "dataset", "check-destruction", str(kept.folder / RECORD)]
    assert main([*asked, "--key", str(key)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("acme/set@1 (")
    assert "by alice, approved by acme/bob" in said
    other = kept.folder / records.ENVELOPE
    assert main([*asked[:-1], str(other), "--key", str(key)]) == 1
    assert "no destruction record" in capsys.readouterr().err


# --- waived --------------------------------------------------------------------------------------


@pytest.fixture
def quarantined(home):
    """acme/bad@1: half of its rows are in acme/set@1 too, which is critical (LEAK001)."""
    dataset_guard.register(TABLE, name="set", tenant="acme", home=home, split="train", checks=["schema"])
    report = dataset_guard.register(
        TABLE.slice(150), name="bad", tenant="acme", home=home, split="test", against=["set@1"],
        checks=["exact_overlap"],
    )  # fmt: skip
    assert report.verdict.value == "quarantine"
    return next(f.rule_id for f in report.findings if f.severity.value == "critical")


def in_a_week(home):
    return home.clock() + timedelta(days=7)


def may_read(home):
    try:
        dataset_guard.read("acme/bad@1", home=home)
    except Denied:
        return False
    return True


def test_a_waiver_of_two_people_lets_a_quarantined_version_be_trained_on(home, people, quarantined):
    alice, bob = people("alice"), people("bob", "acme", "data-steward")
    assert not may_read(alice)
    waive(alice, "bad@1", quarantined, reason="overlap is wanted", expires_at=in_a_week(home))
    assert not may_read(alice)  # asked for, not approved
    approve_waiver(bob, "bad@1", quarantined)
    assert may_read(alice)
    assert fact_of(home, "acme/bad@1")["verdict"] == "quarantine"  # the signed verdict stays
    [asked], [agreed] = events(home, "dataset.waiver.asked"), events(home, "dataset.waiver.approved")
    assert (asked["data"]["by"], asked["data"]["reason"]) == ("alice", "overlap is wanted")
    assert (agreed["data"]["author"], agreed["data"]["approver"]) == ("alice", "bob")


def test_show_and_list_say_what_is_waived_and_what_waits_for_approval(home, people, quarantined, capsys):
    def said(*command):
        assert main(["--home", str(home.path()), "dataset", *command, "--tenant", "acme"]) == 0
        return " ".join(capsys.readouterr().out.split())

    waive(people("alice"), "bad@1", quarantined, reason="overlap is wanted", expires_at=in_a_week(home))
    assert f"waived {quarantined} until" in said("show", "bad@1")
    assert "asked by alice, not approved yet: overlap is wanted" in said("show", "bad@1")
    assert "waived" not in said("list")
    approve_waiver(people("bob", "acme", "data-steward"), "bad@1", quarantined)
    assert "asked by alice, approved by bob: overlap is wanted" in said("show", "bad@1")
    assert f"waived {quarantined}" in said("list")
    assert [v["waived"] for v in json.loads(said("list", "--format", "json"))] == [[quarantined], []]


def test_a_waiver_ends(home, people, quarantined):
    from guard_core.testing import FrozenClock

    clock = FrozenClock(home.clock())
    with Home.open(home.settings, clock=clock) as later:
        alice, bob = people("alice"), people("bob", "acme", "data-steward")
        waive(alice, "bad@1", quarantined, reason="for a week", expires_at=in_a_week(home))
        approve_waiver(bob, "bad@1", quarantined)
        assert may_read(later)
        clock.advance(seconds=8 * 86_400)
        assert not may_read(later)


def test_nobody_approves_their_own_waiver(home, people, quarantined):
    alice = people("alice", "acme", "data-steward")
    waive(alice, "bad@1", quarantined, reason="please", expires_at=in_a_week(home))
    with pytest.raises(Denied, match="another person has to approve"):
        approve_waiver(alice, "bad@1", quarantined)


def test_an_edited_waiver_is_none(home, people, quarantined):
    waive(people("alice"), "bad@1", quarantined, reason="please", expires_at=in_a_week(home))
    approve_waiver(people("bob", "acme", "data-steward"), "bad@1", quarantined)
    folder = Registry(home).get("bad@1", tenant="acme").folder / FOLDER
    [file] = folder.iterdir()
    file.write_text(file.read_text().replace('"sig": "', '"sig": "AAAA'))
    assert not may_read(home)


def test_a_waiver_is_for_its_own_version(home, people, quarantined):
    waive(people("alice"), "bad@1", quarantined, reason="please", expires_at=in_a_week(home))
    approve_waiver(people("bob", "acme", "data-steward"), "bad@1", quarantined)
    dataset_guard.register(
        TABLE.slice(100), name="bad", tenant="acme", home=home, split="test", against=["set@1"],
        checks=["exact_overlap"],
    )  # fmt: skip
    registry = Registry(home)
    first, second = (registry.get(f"bad@{v}", tenant="acme").folder for v in (1, 2))
    (second / FOLDER).mkdir()
    for file in (first / FOLDER).iterdir():
        (second / FOLDER / file.name).write_bytes(file.read_bytes())
    assert "waived" not in fact_of(home, "acme/bad@2")


def test_what_cannot_be_waived_is_said(home, people, quarantined):
    alice = people("alice")
    with pytest.raises(UserError, match="no finding of rule 'QUAL999'"):
        waive(alice, "bad@1", "QUAL999", reason="x", expires_at=in_a_week(home))
    with pytest.raises(UserError, match="needs a reason"):
        waive(alice, "bad@1", quarantined, reason=" ", expires_at=in_a_week(home))
    with pytest.raises(UserError, match="has passed"):
        waive(alice, "bad@1", quarantined, reason="x", expires_at=home.clock())
    with pytest.raises(Denied):
        waive(people("bo", "beta"), "acme/bad@1", quarantined, reason="x", expires_at=in_a_week(home))


# --- from the command line -----------------------------------------------------------------------


def test_the_whole_life_from_the_command_line(home, kept, monkeypatch, capsys):
    steward = home.credentials.issue(tenant="acme", user="bob", roles=["tenant-admin"])

    def run(*words):
        capsys.readouterr()
        status = main(["dataset", *words])
        return status, *capsys.readouterr()

    assert run("delete", "acme/set@1")[0] == 0
    assert "acme/set@1" not in run("list", "--tenant", "acme")[1]
    assert run("show", "acme/set@1")[0] == 2
    assert run("delete", "acme/set@1", "--restore")[0] == 0
    assert "acme/set@1" in run("list", "--tenant", "acme")[1]
    status, _, err = run("destroy", "acme/set@1", "--confirm", "acme/set@1")
    assert (status, "approvals" in err) == (1, True)
    monkeypatch.setenv("TRAINGUARD_TOKEN", steward)
    assert run("approve", "set@1", "--destroy")[0] == 0
    assert run("approve", "set@1")[0] == 2
    monkeypatch.delenv("TRAINGUARD_TOKEN")
    status, out, _ = run("destroy", "acme/set@1", "--confirm", "acme/set@1", "--format", "json")
    assert status == 0
    assert json.loads(out)["approved_by"] == ["acme/bob"]
    assert run("list", "--tenant", "acme")[1] == ""
