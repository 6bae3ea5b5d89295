"""After a key was revoked: what is refused, what brings a version back, and what does not."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataset_guard
from dataset_guard.registry import record as records
from dataset_guard.registry.endorse import endorse
from dataset_guard.registry.store import Registry
from guard_core import keys
from guard_core.cli import main
from guard_core.errors import Denied, Tampered, UserError


@pytest.fixture
def version(home, tmp_path):
    """acme/x@1, signed by a key that was revoked afterwards."""
    pq.write_table(pa.table({"x": range(50)}), tmp_path / "x.parquet")
    dataset_guard.register(tmp_path / "x.parquet", name="x", tenant="acme", home=home, checks=["schema"])
    old, _ = keys.rotate(home, by=home.principal())
    assert dataset_guard.verify("acme/x@1", home=home).ok  # retired is not revoked
    keys.revoke(home, old, reason="laptop lost", by=home.principal())
    return Registry(home).get("acme/x@1", tenant="acme")


def test_versions_of_a_revoked_key_are_refused_everywhere(home, version):
    for use in (dataset_guard.verify, dataset_guard.read):
        with pytest.raises((Tampered, Denied), match=r"revoked on 20.* \(laptop lost\); have it endorsed"):
            use("acme/x@1", tenant="acme", home=home)
    for tenant, told in (("acme", True), ("beta", False)):  # other tenants are told that, not why
        [fact] = home.dataset_facts(["acme/x@1"], principal=home.principal(tenant=tenant))
        assert (fact["tampered"], fact["signed"], "problem" in fact) == (True, False, told)


def test_the_list_says_that_use_is_refused_and_why_until_it_is_endorsed(version, capsys):
    assert main(["dataset", "list"]) == 0
    row, reason = capsys.readouterr().out.splitlines()
    assert row.split()[:2] == ["acme/x@1", "refused"]
    assert "(laptop lost); have it endorsed" in reason
    assert main(["dataset", "list", "--format", "json"]) == 0
    [listed] = json.loads(capsys.readouterr().out)
    assert (listed["verdict"], listed["problem"]) == ("allow", reason)
    assert main(["dataset", "endorse", "acme/x@1"]) == 0
    assert main(["dataset", "list"]) == 0
    assert capsys.readouterr().out.split()[1] == "allow"


def test_endorsed_it_is_back_with_the_same_record(home, version, capsys):
    before = (version.folder / records.RECORD).read_bytes()
    assert main(["dataset", "endorse", "acme/x@1"]) == 0
    assert "acme/x@1 is endorsed" in capsys.readouterr().err
    assert (version.folder / records.RECORD).read_bytes() == before
    assert dataset_guard.verify("acme/x@1", home=home).ok
    [fact] = home.dataset_facts(["acme/x@1"], principal=home.principal())
    assert fact["signer"] == home.signer.key_id
    [event] = home.audit.records(kind="dataset.endorsed")
    assert event["data"]["key"] == home.signer.key_id
    with pytest.raises(UserError, match="already"):
        endorse(home, "acme/x@1")


def test_changed_data_is_not_endorsed(home, version, tmp_path):
    pq.write_table(pa.table({"x": range(51)}), tmp_path / "x.parquet")
    with pytest.raises(Tampered, match="is not as registered"):
        endorse(home, "acme/x@1")


def test_a_record_that_was_never_registered_is_not_endorsed(home, version, tmp_path):
    """Whoever has the revoked key writes a record; the audit log does not know it."""
    from guard_core.attestation import Signer, new_private_key

    stolen = tmp_path / "stolen.pem"
    stolen.write_bytes(new_private_key())
    stolen.chmod(0o600)
    thief = Signer.open(tmp_path / "thief", stolen)
    keys.trust(home, next((tmp_path / "thief").glob("*.pub.pem")), by=home.principal())
    record = json.loads((version.folder / records.RECORD).read_bytes())
    record["verdict"] = "allow" if record["verdict"] != "allow" else "warn"
    (version.folder / records.RECORD).write_text(json.dumps(record))
    (version.folder / records.ENVELOPE).write_text(json.dumps(records.sign(record, thief)))
    keys.revoke(home, thief.key_id, reason="stolen", by=home.principal())
    with pytest.raises(Tampered, match="the audit log does not say"):
        endorse(home, "acme/x@1")


def test_only_a_platform_admin_endorses(home, version, monkeypatch, capsys):
    monkeypatch.setenv("TRAINGUARD_TOKEN", home.credentials.issue(tenant="acme", user="ann", roles=()))
    assert main(["dataset", "endorse", "acme/x@1"]) == 1
    assert "takes a platform admin" in capsys.readouterr().err


def test_a_key_that_may_not_sign_for_the_tenant_is_refused_by_policy(home, tmp_path):
    """Who may sign for whom is policy data (signers.yaml), decided where data is used."""
    import shutil

    from guard_core.config import load_settings
    from guard_core.home import Home
    from guard_core.policy.bundle import shipped_policies

    pq.write_table(pa.table({"x": range(50)}), tmp_path / "x.parquet")
    dataset_guard.register(tmp_path / "x.parquet", name="x", tenant="acme", home=home, checks=["schema"])
    own = home.signer.key_id
    for entry, allowed in (
        (f"{{key: {own[:16]}, tenants: [acme]}}", True),
        (f"{{key: {own[:16]}, tenants: [beta]}}", False),
        ("{key: 0123456789abcdef, tenants: ['*']}", False),
    ):
        policies = tmp_path / f"policies-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(shipped_policies(), policies)
        (policies / "data" / "signers.yaml").write_text(f"signers: [{entry}]\n")
        settings = load_settings(home=home.settings.home, policy={"dir": policies})
        with Home.open(settings) as strict:
            if allowed:
                assert dataset_guard.read("acme/x@1", home=strict).to_table().num_rows == 50
            else:
                with pytest.raises(Denied, match="signed by a key that may not sign for its tenant"):
                    dataset_guard.read("acme/x@1", home=strict)
