"""Signed statements: in-toto Statement v1 in a DSSE envelope, Ed25519.

The private key lies at ``<home>/keys/signing.key`` (PKCS 8 PEM, mode 0600, made at first use), or where
``TRAINGUARD_SIGNING_KEY`` says. Its public half is written beside it as ``<key_id>.pub.pem``; every public
key in that folder verifies, so old statements stay valid after the key is changed.

Formats: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and
https://github.com/secure-systems-lab/dsse/blob/master/protocol.md. The pre-authentication encoding is one
line, so it is written here (loading securesystemslib costs 50 ms in every process); the tests verify our
envelopes with securesystemslib and its envelopes with ours.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard_core.errors import Tampered, UserError
from guard_core.files import locked, write_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PRIVATE_KEY = "signing.key"


def canonical_json(value: Any) -> bytes:
    """RFC 8785 canonical JSON, UTF-8.

    Raises UserError for what it cannot carry exactly: integers beyond 2**53, NaN, infinities, other types.
    """
    import rfc8785

    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise UserError(f"this value has no canonical JSON form: {error}") from None


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """What DSSE signs: ``DSSEv1 len(type) type len(payload) payload``."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_id_of(public: Ed25519PublicKey) -> str:
    """SHA-256 (64 hex) of the raw public key: says which key, proves nothing."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()


class Verifier:
    """Checks envelopes against a folder of public keys (``*.pub.pem``)."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self.keys = dict(keys)

    @classmethod
    def of(cls, *places: Path) -> Verifier:
        """From public key files, or folders of them. Raises UserError for a file that is no Ed25519 key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        keys = {}
        for place in places:
            for file in sorted(place.glob("*.pub.pem")) if place.is_dir() else [place]:
                try:
                    key = load_pem_public_key(file.read_bytes())
                except (OSError, ValueError) as error:
                    raise UserError(f"{file} is not a readable public key in PEM form: {error}") from None
                if not isinstance(key, Ed25519PublicKey):
                    raise UserError(f"{file} is not an Ed25519 public key")
                keys[key_id_of(key)] = key
        return cls(keys)

    def verify_bytes(self, envelope: Mapping[str, Any], *, payload_type: str) -> bytes:
        """The payload, when at least one signature is by a known key. Raises Tampered otherwise."""
        from cryptography.exceptions import InvalidSignature

        try:
            kind = envelope["payloadType"]
            payload = base64.b64decode(envelope["payload"], validate=True)
            signatures = [
                (s["keyid"], base64.b64decode(s["sig"], validate=True)) for s in envelope["signatures"]
            ]
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise Tampered(
                "this is not a DSSE envelope: payload, payloadType or signatures is missing"
            ) from None
        if kind != payload_type:
            raise Tampered(f"the envelope holds {kind!r} where {payload_type!r} is expected")
        encoded = pre_authentication_encoding(kind, payload)
        for key_id, signature in signatures:
            key = self.keys.get(key_id)
            if key is None:
                continue
            try:
                key.verify(signature, encoded)
            except InvalidSignature:
                continue
            return payload
        if not any(key_id in self.keys for key_id, _ in signatures):
            named = ", ".join(str(key_id)[:12] for key_id, _ in signatures) or "nobody"
            raise Tampered(
                f"signed by a key that is not trusted here ({named}); add its .pub.pem to the keys folder"
            )
        raise Tampered("the signature does not match the content")

    def verify(self, envelope: Mapping[str, Any]) -> dict[str, Any]:
        """The in-toto statement in ``envelope``. Raises Tampered."""
        statement = json.loads(self.verify_bytes(envelope, payload_type=PAYLOAD_TYPE))
        if not isinstance(statement, dict) or statement.get("_type") != STATEMENT_TYPE:
            raise Tampered(f"the envelope's payload is not a {STATEMENT_TYPE} statement")
        return statement


class Signer:
    """Signs with one private key; verifies with every public key of its folder."""

    def __init__(self, private: Ed25519PrivateKey, keys_dir: Path) -> None:
        self._private = private
        self._keys_dir = keys_dir
        self.key_id = key_id_of(private.public_key())

    @classmethod
    def open(cls, keys_dir: Path, key_file: Path | None = None) -> Signer:
        """Load ``key_file``, else the folder's own key (made on first use, once even in a race)."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        keys_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = key_file or keys_dir / PRIVATE_KEY
        if key_file is None and not file.exists():
            with locked(keys_dir / ".lock"):
                if not file.exists():
                    made = Ed25519PrivateKey.generate().private_bytes(
                        serialization.Encoding.PEM,
                        serialization.PrivateFormat.PKCS8,
                        serialization.NoEncryption(),
                    )
                    write_atomic(file, made, mode=0o600, exclusive=True)
        try:
            private = serialization.load_pem_private_key(file.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"the signing key {file} cannot be used: {error}") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise UserError(
                f"the signing key {file} is not an Ed25519 key; make one: openssl genpkey -algorithm ed25519"
            )
        if file.stat().st_mode & 0o077:
            raise UserError(f"the signing key {file} is readable by others; run: chmod 600 {file}")
        signer = cls(private, keys_dir)
        signer._publish()
        return signer

    def _publish(self) -> None:
        from cryptography.hazmat.primitives import serialization

        file = self._keys_dir / f"{self.key_id[:16]}.pub.pem"
        if not file.exists():
            public = self._private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            write_atomic(file, public)

    @property
    def verifier(self) -> Verifier:
        """Verifies what any key of this folder signed."""
        return Verifier.of(self._keys_dir)

    def sign_bytes(self, payload: bytes, *, payload_type: str) -> dict[str, Any]:
        """A DSSE envelope around ``payload``."""
        signature = self._private.sign(pre_authentication_encoding(payload_type, payload))
        return {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [{"keyid": self.key_id, "sig": base64.b64encode(signature).decode()}],
        }

    def sign(self, statement: Mapping[str, Any]) -> dict[str, Any]:
        """A DSSE envelope around an in-toto Statement v1 (made with :func:`statement`)."""
        if statement.get("_type") != STATEMENT_TYPE:
            raise ValueError(f"not an in-toto statement: _type must be {STATEMENT_TYPE}")
        return self.sign_bytes(canonical_json(dict(statement)), payload_type=PAYLOAD_TYPE)

    def verify(self, envelope: Mapping[str, Any]) -> dict[str, Any]:
        """The statement in ``envelope``. Raises Tampered when it is not signed by a key of this folder."""
        return self.verifier.verify(envelope)


def statement(
    *, subjects: Mapping[str, Mapping[str, str]], predicate_type: str, predicate: Mapping[str, Any]
) -> dict[str, Any]:
    """An in-toto Statement v1; ``subjects`` maps names to digests: ``{"acme/x@1": {"dg1": "..."}}``."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": dict(digest)} for name, digest in subjects.items()],
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }
