"""Shared with another tenant, or taken out of the cluster: with a second person, on record, until it ends."""

import json
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataset_guard
from dataset_guard.registry import record as records
from dataset_guard.registry.approvals import EXPORT, SHARE, give
from dataset_guard.registry.exporting import destination, export_data
from dataset_guard.registry.facts import dataset_facts
from dataset_guard.registry.sharing import FOLDER, share, shares_of, unshare
from dataset_guard.registry.store import Registry
from guard_core.cli import main
from guard_core.errors import Denied, Tampered, UserError
from guard_core.findings import Enforcement
from guard_core.home import Home

TABLE = pa.table({"n": range(300), "label": [i % 2 for i in range(300)]})
ADMISSION = "guard/compute/admission/decision"


@pytest.fixture
def kept(home):
    dataset_guard.register(TABLE, name="set", tenant="acme", home=home, checks=["schema"])
    return Registry(home).get("set@1", tenant="acme")


def approved(people, operation, target, user="bob", ref="acme/set@1"):
    steward = people(user, "acme", "data-steward")
    give(steward, ref, operation, principal=steward.principal(), target=target)


def rules_against(home, principal, ref="acme/set@1"):
    """What admission has against a job of ``principal`` that declares ``ref``."""
    facts = dataset_facts(home, [ref], principal=principal)
    decision = home.decide(
        ADMISSION,
        {"workload": {"datasets": facts, "declared": [ref]}},
        principal=principal,
        enforcement=Enforcement.COOPERATIVE,
    )
    return {reason.rule for reason in decision.reasons if reason.rule.startswith("dataset-")}


def test_a_version_is_shared_when_a_second_person_of_the_owner_agreed(home, people, kept):
    alice, bo = people("alice"), people("bo", "beta")
    with pytest.raises(Denied, match=r"0 of 1 approvals given .*approve acme/set@1 --share beta"):
        share(alice, "set@1", "beta")
    with pytest.raises(Denied, match="not shared with beta"):
        dataset_guard.read("acme/set@1", home=bo)
    assert rules_against(bo, bo.principal()) == {"dataset-foreign"}

    approved(people, SHARE, "beta")
    done = share(alice, "set@1", "beta")
    assert (done.by, done.approved_by) == ("alice", ("acme/bob",))
    assert dataset_guard.read("acme/set@1", home=bo).to_pandas().shape == (300, 2)
    assert rules_against(bo, bo.principal()) == set()
    [event] = home.audit.records(kind="dataset.shared")
    assert event["enforcement"] == event["data"]["enforcement"] == "cooperative"
    assert home.decision_record(event["decision_id"])["path"] == "guard/dataset/share/decision"

    unshare(alice, "set@1", "beta")
    with pytest.raises(Denied, match="not shared with beta"):
        dataset_guard.read("acme/set@1", home=bo)
    assert rules_against(bo, bo.principal()) == {"dataset-foreign"}


def test_an_approval_is_for_one_tenant_and_never_ones_own(people, kept):
    approved(people, SHARE, "gamma")
    approved(people, SHARE, "beta", user="alice")
    with pytest.raises(Denied, match="0 of 1 approvals"):
        share(people("alice"), "set@1", "beta")


def test_only_the_owner_shares_and_never_a_job(people, kept):
    approved(people, SHARE, "beta")
    with pytest.raises(Denied):
        share(people("bo", "beta"), "acme/set@1", "beta")
    with pytest.raises(Denied, match="a job's credential"):
        share(people("al", kind="job", workload="w-1"), "set@1", "beta")


def test_a_share_ends_on_its_day_and_one_with_nobody_is_refused(home, people, kept):
    approved(people, SHARE, "beta")
    alice = people("alice")
    with pytest.raises(UserError, match="has passed"):
        share(alice, "set@1", "beta", expires_at=home.clock())
    with pytest.raises(Denied, match="another, active tenant"):
        share(alice, "set@1", "nobody")
    share(alice, "set@1", "beta", expires_at=home.clock() + timedelta(hours=2))
    assert [one.to for one in shares_of(home, kept)] == ["beta"]
    with Home.open(home.settings, clock=lambda: home.clock() + timedelta(hours=2)) as later:
        assert shares_of(later, kept) == []


def test_a_share_that_was_changed_or_carried_to_another_version_counts_for_nothing(home, people, kept):
    approved(people, SHARE, "beta")
    share(people("alice"), "set@1", "beta")
    file = kept.folder / FOLDER / "beta.dsse.json"
    signed = file.read_bytes()
    file.rename(file.with_name("gamma.dsse.json"))
    assert shares_of(home, kept) == []
    dataset_guard.register(TABLE.slice(1), name="set", tenant="acme", home=home, checks=["schema"])
    newer = Registry(home).get("set@2", tenant="acme")
    (newer.folder / FOLDER).mkdir()
    (newer.folder / FOLDER / "beta.dsse.json").write_bytes(signed)
    assert shares_of(home, newer) == []
    file.write_bytes(signed.replace(b"a", b"b", 1))
    assert shares_of(home, kept) == []


def test_data_leaves_as_a_verified_copy_when_a_second_person_agreed_to_the_place(
    home, people, kept, tmp_path
):
    alice, out = people("alice"), tmp_path / "out"
    with pytest.raises(Denied, match=r"0 of 1 approvals given .*--export"):
        export_data(alice, "set@1", out)
    approved(people, EXPORT, destination(tmp_path / "elsewhere"))
    with pytest.raises(Denied, match="0 of 1 approvals"):
        export_data(alice, "set@1", out)
    approved(people, EXPORT, destination(out), user="carol")
    done = export_data(alice, "set@1", out)
    assert pq.read_table(out / records.DATA / "part-0.parquet").equals(TABLE)
    assert (out / records.ENVELOPE).read_bytes() == (kept.folder / records.ENVELOPE).read_bytes()
    [event] = home.audit.records(kind="dataset.exported")
    assert (event["data"]["to"], event["enforcement"]) == (str(out), "cooperative")
    assert done.approved_by == ("acme/carol",)
    with pytest.raises(UserError, match="exists already"):
        export_data(alice, "set@1", out)


def test_changed_data_is_not_exported_and_leaves_nothing_behind(people, kept, tmp_path):
    out = tmp_path / "out"
    approved(people, EXPORT, destination(out))
    data = kept.folder / records.DATA / "part-0.parquet"
    data.chmod(0o600)
    data.write_bytes(data.read_bytes()[:-1] + b"!")
    with pytest.raises(Tampered, match="nothing was exported"):
        export_data(people("alice"), "set@1", out)
    assert not list(tmp_path.glob("*out*")) + list(tmp_path.glob(".out.*"))


def test_the_commands_say_what_to_do_next(home, people, kept, tmp_path, monkeypatch, capsys):
    def run(user, *arguments, roles=()):
        token = home.credentials.issue(tenant="acme", user=user, roles=roles, kind="tenant")
        monkeypatch.setenv("TRAINGUARD_TOKEN", token)
        status = main(["--home", str(home.settings.home), "dataset", *arguments])
        return status, capsys.readouterr()

    status, said = run("alice", "share", "set@1", "--to", "beta")
    assert status == 1
    assert "approve acme/set@1 --share beta" in said.err
    assert run("bob", "approve", "set@1", "--share", "beta", roles=("data-steward",))[0] == 0
    assert run("alice", "share", "set@1", "--to", "beta", "--until", "2999-01-01")[0] == 0
    status, said = run("alice", "share", "set@1", "--format", "json")
    assert [one["to"] for one in json.loads(said.out)] == ["beta"]
    assert run("alice", "share", "set@1", "--to", "beta", "--end")[0] == 0
    assert "is not shared with" in run("alice", "share", "set@1", "--to", "beta", "--end")[1].err
    out = tmp_path / "copy"
    assert run("bob", "approve", "set@1", "--export", str(out), roles=("data-steward",))[0] == 0
    assert run("alice", "export", "set@1", "--to", str(out))[0] == 0
    assert run("alice", "export", "set@1")[0] == 2
