import base64
import copy

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from guard_core.attestation import (
    Signer,
    Verifier,
    canonical_json,
    pre_authentication_encoding,
    statement,
)
from guard_core.errors import Tampered, UserError

SAID = statement(
    subjects={"acme/x@1": {"dg1": "ab" * 32}},
    predicate_type="https://trainguard.dev/x",
    predicate={"rows": 3, "é": "中"},
)


@pytest.fixture
def signer(tmp_path):
    return Signer.open(tmp_path / "keys")


def test_what_was_signed_is_what_is_verified(signer):
    assert signer.verify(signer.sign(SAID)) == SAID


def test_the_key_is_private_and_made_once(signer, tmp_path):
    assert (tmp_path / "keys" / "signing.key").stat().st_mode & 0o777 == 0o600
    assert Signer.open(tmp_path / "keys").key_id == signer.key_id


def test_several_processes_making_the_key_at_once_agree(tmp_path, start_python):
    script = f"""
        from pathlib import Path
        from guard_core.attestation import Signer
        print(Signer.open(Path({str(tmp_path / "new")!r})).key_id)
    """
    assert len({p.communicate()[0] for p in [start_python(script) for _ in range(4)]}) == 1


def test_securesystemslib_verifies_our_envelopes_and_we_verify_its(signer, tmp_path):
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner, SSlibKey

    private = serialization.load_pem_private_key((tmp_path / "keys" / "signing.key").read_bytes(), None)
    key = SSlibKey.from_crypto(private.public_key(), keyid=signer.key_id)
    ours = Envelope.from_dict(copy.deepcopy(signer.sign(SAID)))
    assert list(ours.verify([key], threshold=1)) == [signer.key_id]

    theirs = Envelope(canonical_json(SAID), "application/vnd.in-toto+json", {})
    theirs.sign(CryptoSigner(private, key))
    assert signer.verify(theirs.to_dict()) == SAID


def test_the_encoding_is_that_of_the_dsse_specification():
    # protocol.md, test vectors
    assert pre_authentication_encoding("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@pytest.mark.parametrize("field", ["payload", "payloadType", "sig", "keyid"])
def test_any_change_to_an_envelope_is_noticed(signer, field):
    envelope = copy.deepcopy(signer.sign(SAID))
    if field == "payload":
        changed = base64.b64decode(envelope["payload"]).replace(b'"rows":3', b'"rows":4')
        envelope["payload"] = base64.b64encode(changed).decode()
    elif field == "payloadType":
        envelope["payloadType"] = "application/json"
    elif field == "sig":
        signature = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
        signature[0] ^= 1
        envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    else:
        envelope["signatures"][0]["keyid"] = "0" * 64
    with pytest.raises(Tampered):
        signer.verify(envelope)


@pytest.mark.parametrize(
    "envelope", [{}, {"payload": "!", "payloadType": "x", "signatures": []}, {"payload": 3}]
)
def test_something_that_is_no_envelope_is_called_that(signer, envelope):
    with pytest.raises(Tampered, match="not a DSSE envelope"):
        signer.verify(envelope)


def test_a_signature_of_a_stranger_is_not_trusted(signer, tmp_path):
    with pytest.raises(Tampered, match="not trusted here"):
        signer.verify(Signer.open(tmp_path / "elsewhere").sign(SAID))


def test_after_the_key_is_changed_old_statements_still_verify(signer, tmp_path):
    old = signer.sign(SAID)
    (tmp_path / "keys" / "signing.key").unlink()
    new = Signer.open(tmp_path / "keys")
    assert new.key_id != signer.key_id
    assert new.verify(old) == SAID
    assert new.verify(new.sign(SAID)) == SAID


def test_a_reader_needs_only_the_public_key(signer, tmp_path):
    public = next((tmp_path / "keys").glob("*.pub.pem"))
    assert Verifier.of(public).verify(signer.sign(SAID)) == SAID


def test_an_offline_key_can_be_used(tmp_path):
    made = Signer.open(tmp_path / "safe")
    signer = Signer.open(tmp_path / "keys", tmp_path / "safe" / "signing.key")
    assert signer.key_id == made.key_id
    assert not (tmp_path / "keys" / "signing.key").exists()
    assert Verifier.of(tmp_path / "keys").verify(signer.sign(SAID)) == SAID


def test_a_key_that_others_can_read_is_not_used(signer, tmp_path):
    (tmp_path / "keys" / "signing.key").chmod(0o640)
    with pytest.raises(UserError, match="readable by others; run: chmod 600"):
        Signer.open(tmp_path / "keys")


def test_a_key_of_another_kind_is_not_used(tmp_path):
    key = rsa.generate_private_key(65537, 2048)
    file = tmp_path / "rsa.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(UserError, match=r"not .*Ed25519"):
        Signer.open(tmp_path / "keys", file)


def test_a_key_file_that_is_not_there_is_one_clear_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be used"):
        Signer.open(tmp_path / "keys", tmp_path / "nowhere.pem")


ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of Ed25519's base point (RFC 8032, section 5.1)."""
NEUTRAL = (1).to_bytes(32, "little")
"""The point that changes nothing: of order one, the smallest."""


def by_openssl(public, signature, data):
    try:
        public.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def by_us(public, signature, data):
    payload = {"payload": base64.b64encode(data).decode(), "payloadType": "x"}
    envelope = {**payload, "signatures": [{"keyid": "k", "sig": base64.b64encode(signature).decode()}]}
    try:
        return Verifier({"k": public}).verify_bytes(envelope, payload_type="x") == data
    except Tampered:
        return False


@given(data=st.binary(max_size=200), seed=st.binary(min_size=32, max_size=32), at=st.integers(0, 511))
def test_libsodium_and_openssl_agree_on_signatures_and_on_any_flipped_bit(data, seed, at):
    private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    public, signed = private.public_key(), pre_authentication_encoding("x", data)
    signature = private.sign(signed)
    flipped = bytearray(signature)
    flipped[at // 8] ^= 1 << at % 8
    assert by_us(public, signature, data) is by_openssl(public, signature, signed) is True
    assert by_us(public, bytes(flipped), data) is by_openssl(public, bytes(flipped), signed) is False


def test_a_signature_with_a_second_form_of_its_number_is_refused_by_both():
    private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    signed = pre_authentication_encoding("x", b"rows")
    signature = private.sign(signed)
    number = int.from_bytes(signature[32:], "little") + ORDER
    second = signature[:32] + number.to_bytes(32, "little")
    assert not by_us(private.public_key(), second, b"rows")
    assert not by_openssl(private.public_key(), second, signed)


@pytest.mark.parametrize("size", [0, 1, 32, 63, 65, 128])
def test_a_signature_of_another_length_is_refused(size):
    private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    signature = private.sign(pre_authentication_encoding("x", b"rows"))
    assert not by_us(private.public_key(), (signature * 2)[:size], b"rows")


def test_what_anybody_can_sign_for_a_key_of_small_order_is_refused_though_openssl_takes_it():
    public = ed25519.Ed25519PublicKey.from_public_bytes(NEUTRAL)
    forged = NEUTRAL + bytes(32)  # zero times the base point, for any message
    assert by_openssl(public, forged, pre_authentication_encoding("x", b"rows"))
    assert not by_us(public, forged, b"rows")


def test_canonical_json_is_rfc_8785():
    # RFC 8785, section 3.2.2 and 3.2.3
    assert canonical_json(
        {"numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 1e-27], "b": None, "a": True}
    ) == (b'{"a":true,"b":null,"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27]}')


@given(st.dictionaries(st.text(), st.integers(-(2**53) + 1, 2**53 - 1) | st.text()))
def test_the_order_of_insertion_changes_no_canonical_byte(value):
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))


@pytest.mark.parametrize("value", [2**60, float("nan"), float("inf"), object(), b"x"])
def test_what_canonical_json_cannot_carry_exactly_is_refused(value):
    with pytest.raises(UserError, match="no canonical JSON form"):
        canonical_json({"value": value})
