"""Keys that come, go and are believed no more: ``trainguard keys``."""

import json

import pytest
from cryptography.hazmat.primitives import serialization

from guard_core import keys as home_keys
from guard_core.attestation import Signer, Verifier, algorithm_of, new_private_key, statement
from guard_core.cli import main
from guard_core.config import load_settings
from guard_core.errors import Tampered, UserError
from guard_core.findings import Enforcement
from guard_core.home import Home


def said(at="2026-11-01T00:00:00Z"):
    return statement(
        subjects={"x": {"dg1": "ab"}}, predicate_type="https://trainguard.dev/x", predicate={"at": at}
    )


def pem_file(path, algorithm="ecdsa-p256"):
    path.write_bytes(new_private_key(algorithm))
    path.chmod(0o600)
    return path


@pytest.fixture
def admin(home):
    return home.principal()


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256", "ecdsa-p384"])
def test_every_kind_of_key_signs_and_a_changed_byte_is_found(tmp_path, algorithm):
    signer = Signer.open(tmp_path / "keys", pem_file(tmp_path / "own.pem", algorithm))
    assert signer.algorithm == algorithm
    signed = signer.sign(said())
    assert signer.verify(signed) == said()
    with pytest.raises(Tampered, match="does not match"):
        signer.verify({**signed, "payload": signer.sign(said("2020-01-01T00:00:00Z"))["payload"]})


def test_securesystemslib_reads_our_ecdsa_envelopes(tmp_path):
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    signer = Signer.open(tmp_path / "keys", pem_file(tmp_path / "own.pem"))
    public = serialization.load_pem_public_key(signer.public_pem)
    key = SSlibKey.from_crypto(public, keyid=signer.key_id)
    assert list(Envelope.from_dict(signer.sign(said())).verify([key], threshold=1)) == [signer.key_id]


def test_the_key_may_come_from_the_environment_and_is_never_shown(home_dir, monkeypatch, capsys):
    pem = new_private_key("ecdsa-p256").decode()
    monkeypatch.setenv("TRAINGUARD_SIGNING_KEY_PEM", pem)
    with Home.open(load_settings()) as home:
        assert home.signer.algorithm == "ecdsa-p256"
        assert home.signer.verify(home.signer.sign(said())) == said()
        with pytest.raises(UserError, match="keys retire OLD"):
            home_keys.rotate(home, by=home.principal())
    assert not (home_dir / "keys" / "signing.key").exists()
    assert main(["config", "show"]) == 0
    assert pem.splitlines()[1] not in capsys.readouterr().out


def test_after_a_rotation_old_signatures_hold_and_new_ones_are_by_the_new_key(home, admin):
    before = home.signer.sign(said())
    private = home.path("keys", "signing.key").read_bytes()
    old, new = home_keys.rotate(home, by=admin, algorithm="ecdsa-p384")
    assert home.signer.key_id == new != old
    assert home.signer.verify_dated(before, "at") == (said(), old)
    assert home.signer.sign(said())["signatures"][0]["keyid"] == new
    assert home.path("keys", "signing.key").read_bytes() != private
    states = {k["key_id"]: (k["state"], k["signing"]) for k in home_keys.listed(home)}
    assert states == {old: ("retired", False), new: ("active", True)}
    [event] = home.audit.records(kind="key.rotated")
    assert (event["data"]["old"], event["data"]["new"]) == (old, new)


def test_a_process_that_was_running_before_signs_with_the_new_key(home, home_dir, admin):
    with Home.open(load_settings(home=home_dir)) as running:
        old = running.signer.key_id
        home_keys.rotate(home, by=admin)
        assert running.signer.key_id == home.signer.key_id != old


def test_what_a_retired_key_signs_after_its_time_is_refused(home, admin, tmp_path):
    assert home.signer
    stolen = pem_file(tmp_path / "stolen.pem", "ed25519")
    stolen.write_bytes(home.path("keys", "signing.key").read_bytes())
    home_keys.rotate(home, by=admin)
    thief = Signer(serialization.load_pem_private_key(stolen.read_bytes(), None), tmp_path)
    assert home.signer.verify_dated(thief.sign(said("2020-01-01T00:00:00Z")), "at")
    with pytest.raises(Tampered, match="after it was retired"):
        home.signer.verify_dated(thief.sign(said("2999-01-01T00:00:00Z")), "at")
    with pytest.raises(Tampered, match="does not say when"):
        home.signer.verify_dated(thief.sign(said(None)), "at")
    with pytest.raises(UserError, match="is retired and signs no more"):
        Signer.open(home.path("keys"), stolen)


def test_a_revoked_key_is_believed_about_nothing_and_the_audit_log_stays_whole(home, admin):
    before = home.signer.sign(said())
    home.audit.event("first", subject="x", data={}, enforcement=Enforcement.DETECTIVE)
    with pytest.raises(UserError, match="signs now; run trainguard keys rotate first"):
        home_keys.revoke(home, home.signer.key_id, reason="lost", by=admin)
    old, _ = home_keys.rotate(home, by=admin)
    home_keys.revoke(home, old[:16], reason="laptop lost", by=admin)
    with pytest.raises(Tampered, match=r"which was revoked on .* \(laptop lost\)"):
        home.signer.verify(before)
    assert main(["audit", "verify"]) == 0
    home.audit.event("last", subject="x", data={}, enforcement=Enforcement.DETECTIVE)
    assert home.signer.verify(home.signer.countersign(before)) == said()


def test_the_policy_store_survives_the_revocation_of_the_key_that_signed_it(home, admin, tmp_path):
    from guard_core.policy.lifecycle.opening import base_of, store_of

    store = store_of(home)
    with store.changing(lambda: base_of(home)) as draft:
        draft.put_in_force(draft.state)
    old, _ = home_keys.rotate(home, by=admin)
    home_keys.revoke(home, old, reason="test", by=admin)
    assert store.state() is not None


def test_a_foreign_key_is_trusted_once_named_and_a_revoked_one_never_again(home, admin, tmp_path):
    other = Signer.open(tmp_path / "other", pem_file(tmp_path / "other.pem"))
    public = tmp_path / "other.pub.pem"
    public.write_bytes(other.public_pem)
    with pytest.raises(Tampered, match="not trusted here"):
        home.signer.verify(other.sign(said()))
    key_id = home_keys.trust(home, public, by=admin)
    assert home.signer.verify(other.sign(said())) == said()
    home_keys.revoke(home, key_id, reason="left", by=admin)
    with pytest.raises(UserError, match="a revoked key stays so"):
        home_keys.trust(home, public, by=admin)


def test_the_command_lists_rotates_and_revokes(home, capsys):
    old = home.signer.key_id
    assert main(["keys", "rotate", "--algorithm", "ecdsa-p256"]) == 0
    assert main(["keys", "revoke", old[:12], "--reason", "test"]) == 0
    capsys.readouterr()
    assert main(["keys", "list", "--format", "json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["signing"], first["algorithm"]) == (True, "ecdsa-p256")
    assert (second["key_id"], second["state"], second["reason"]) == (old, "revoked", "test")
    assert main(["keys", "list"]) == 0
    assert f"{old[:16]}  ed25519     revoked since" in capsys.readouterr().out


def test_only_a_platform_admin_changes_keys(home, monkeypatch, capsys):
    monkeypatch.setenv("TRAINGUARD_TOKEN", home.credentials.issue(tenant="acme", user="ann", roles=()))
    assert main(["keys", "rotate"]) == 1
    assert "takes a platform admin" in capsys.readouterr().err


def test_a_key_that_is_no_signing_key_is_refused(tmp_path):
    from cryptography.hazmat.primitives.asymmetric import ec

    odd = ec.generate_private_key(ec.SECP256K1())
    assert algorithm_of(odd) is None
    (tmp_path / "odd.pub.pem").write_bytes(
        odd.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    with pytest.raises(UserError, match="is not an Ed25519, P-256 or P-384 public key"):
        Verifier.of(tmp_path)


def test_a_damaged_keyring_verifies_nothing(home):
    home.signer.sign(said())
    home.path("keys", "keyring.json").write_text("{}")
    with pytest.raises(Tampered, match=r"keyring\.json cannot be read"):
        home.signer.verify(home.signer.sign(said()))
