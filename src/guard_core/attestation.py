"""Signed statements: in-toto Statement v1 in a DSSE envelope, Ed25519 or ECDSA (P-256, P-384).

The private key lies at ``<home>/keys/signing.key`` (PKCS 8 PEM, mode 0600, made at first use), or where
``TRAINGUARD_SIGNING_KEY`` (a file) or ``TRAINGUARD_SIGNING_KEY_PEM`` (the text) says. Its public half is
written beside it as ``<key_id>.pub.pem``; every public key in that folder verifies, so old statements stay
valid after the key is changed, unless the keyring (:mod:`guard_core.keyring`) says otherwise.

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard_core import keyring
from guard_core.errors import Tampered, UserError
from guard_core.files import locked, write_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from pydantic import SecretStr

    PublicKey = Ed25519PublicKey | EllipticCurvePublicKey
    PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey
    Check = Callable[[bytes, bytes], bool]
    """Whether a signature is over these data."""

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


def key_id_of(public: PublicKey) -> str:
    """SHA-256 (64 hex) of the public key (raw for Ed25519, else DER): says which key, proves nothing."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if isinstance(public, Ed25519PublicKey):
        return hashlib.sha256(public.public_bytes_raw()).hexdigest()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def algorithm_of(key: Any) -> str | None:
    """``ed25519``, ``ecdsa-p256`` or ``ecdsa-p384`` of a key, private or public; None for any other."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    if isinstance(key, ed25519.Ed25519PublicKey | ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        return {"secp256r1": "ecdsa-p256", "secp384r1": "ecdsa-p384"}.get(key.curve.name)
    return None


def _digest_for(key: Any) -> Any:
    """The ECDSA scheme of a curve: SHA-256 for P-256, SHA-384 for P-384."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.ECDSA(hashes.SHA256() if key.curve.key_size == 256 else hashes.SHA384())


def _signature(private: PrivateKey, data: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if isinstance(private, Ed25519PrivateKey):
        return private.sign(data)
    return private.sign(data, _digest_for(private))


def _checker(public: PublicKey) -> Check:
    """What checks signatures by ``public``: Ed25519 by libsodium, ECDSA by OpenSSL.

    libsodium takes half of OpenSSL's time for Ed25519, and refuses what RFC 8032 leaves to the verifier:
    keys and signatures with a point of small order, and keys in another than the one canonical form.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if isinstance(public, Ed25519PublicKey):
        from nacl.bindings import crypto_sign_BYTES, crypto_sign_open
        from nacl.exceptions import BadSignatureError

        raw = public.public_bytes_raw()

        def by_sodium(signature: bytes, data: bytes) -> bool:
            if len(signature) != crypto_sign_BYTES:  # it takes both as one, and would split them elsewhere
                return False
            try:
                crypto_sign_open(signature + data, raw)
            except BadSignatureError:
                return False
            return True

        return by_sodium
    from cryptography.exceptions import InvalidSignature

    scheme = _digest_for(public)

    def by_openssl(signature: bytes, data: bytes) -> bool:
        try:
            public.verify(signature, data, scheme)
        except InvalidSignature:
            return False
        return True

    return by_openssl


@dataclass(frozen=True, slots=True)
class Verified:
    """A payload that a key in use signed, and which key that was."""

    payload: bytes
    key_id: str


class Verifier:
    """Checks envelopes against a folder of public keys (``*.pub.pem``) and its keyring."""

    def __init__(
        self, keys: Mapping[str, PublicKey], statuses: Mapping[str, keyring.KeyStatus] | None = None
    ) -> None:
        self.keys = dict(keys)
        self.statuses = dict(statuses or {})
        self._checks: dict[str, Check] = {}

    @classmethod
    def of(cls, *places: Path) -> Verifier:
        """From public key files, or folders of them. Raises UserError for a file that is no key, Tampered."""
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        keys: dict[str, Any] = {}
        statuses: dict[str, keyring.KeyStatus] = {}
        for place in places:
            if place.is_dir():
                statuses |= keyring.load(place)
            for file in sorted(place.glob("*.pub.pem")) if place.is_dir() else [place]:
                try:
                    key = load_pem_public_key(file.read_bytes())
                except OSError as error:
                    raise UserError(f"the public key {file} cannot be read ({error.strerror})") from None
                except ValueError as error:
                    raise UserError(f"{file} is not a public key in PEM form: {error}") from None
                if algorithm_of(key) is None:
                    raise UserError(f"{file} is not an Ed25519, P-256 or P-384 public key")
                keys[key_id_of(key)] = key  # type: ignore[arg-type]  # algorithm_of knows these only
        return cls(keys, statuses)

    def status(self, key_id: str) -> keyring.KeyStatus:
        """What the keyring says of a key."""
        return self.statuses.get(key_id, keyring.UNKNOWN)

    def _check(self, key_id: str, key: PublicKey) -> Check:
        """The check of a key, made at its first use."""
        if key_id not in self._checks:
            self._checks[key_id] = _checker(key)
        return self._checks[key_id]

    def verify_bytes(self, envelope: Mapping[str, Any], *, payload_type: str) -> bytes:
        """The payload, when at least one signature is by a known key. Raises Tampered otherwise."""
        return self.verified(envelope, payload_type=payload_type).payload

    def verified(self, envelope: Mapping[str, Any], *, payload_type: str = PAYLOAD_TYPE) -> Verified:
        """The payload and the key, when at least one signature is by a known key that is not revoked.

        Of several, the first by a key still in use, else by a retired one. Raises Tampered.
        """
        try:
            kind = envelope["payloadType"]
            payload = binascii.a2b_base64(envelope["payload"], strict_mode=True)
            signatures = [
                (s["keyid"], binascii.a2b_base64(s["sig"], strict_mode=True)) for s in envelope["signatures"]
            ]
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise Tampered(
                "this is not a DSSE envelope: payload, payloadType or signatures is missing"
            ) from None
        if kind != payload_type:
            raise Tampered(f"the envelope holds {kind!r} where {payload_type!r} is expected")
        encoded = pre_authentication_encoding(kind, payload)
        revoked = None
        for key_id, signature in sorted(signatures, key=lambda s: self.status(s[0]).state != "active"):
            key = self.keys.get(key_id)
            if key is None:
                continue
            if self.status(key_id).state == "revoked":
                revoked = key_id
                continue
            if self._check(key_id, key)(signature, encoded):
                return Verified(payload, key_id)
        if revoked is not None:
            status = self.status(revoked)
            raise Tampered(
                f"signed by key {revoked[:16]}, which was revoked on {str(status.revoked_at)[:10]} "
                f"({status.reason}); have it endorsed with a key in use, or make it again"
            )
        if not any(key_id in self.keys for key_id, _ in signatures):
            named = ", ".join(str(key_id)[:12] for key_id, _ in signatures) or "nobody"
            raise Tampered(
                f"signed by a key that is not trusted here ({named}); add its .pub.pem to the keys folder"
            )
        raise Tampered("the signature does not match the content")

    def verify(self, envelope: Mapping[str, Any]) -> dict[str, Any]:
        """The in-toto statement in ``envelope``. Raises Tampered."""
        return self.verify_dated(envelope)[0]

    def verify_dated(
        self, envelope: Mapping[str, Any], field: str | None = None
    ) -> tuple[dict[str, Any], str]:
        """(in-toto statement, key id). ``field`` of its predicate says when it was signed.

        Raises Tampered, also when that was after the key was retired.
        """
        found = self.verified(envelope)
        statement = json.loads(found.payload)
        if not isinstance(statement, dict) or statement.get("_type") != STATEMENT_TYPE:
            raise Tampered(f"the envelope's payload is not a {STATEMENT_TYPE} statement")
        if field is not None:
            try:
                moment = datetime.fromisoformat(statement["predicate"][field])
                keyring.refuse_late(self.status(found.key_id), found.key_id, moment)
            except (KeyError, TypeError, ValueError):
                raise Tampered(f"the statement does not say when it was signed ({field})") from None
        return statement, found.key_id


class Signer:
    """Signs with one private key; verifies with every public key of its folder."""

    def __init__(self, private: PrivateKey, keys_dir: Path) -> None:
        self._private = private
        self._keys_dir = keys_dir
        self.key_id = key_id_of(private.public_key())

    @classmethod
    def open(cls, keys_dir: Path, key: Path | SecretStr | None = None) -> Signer:
        """Load ``key`` (a file, or the PEM text), else the folder's own, made once at first use.

        Raises UserError for a key that cannot be used: unreadable, of another kind, readable by others, or
        retired or revoked by the keyring.
        """
        keys_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = keys_dir / PRIVATE_KEY
        if key is None and not file.exists():
            with locked(keys_dir / ".lock"):
                if not file.exists():
                    write_atomic(file, new_private_key(), mode=0o600, exclusive=True)
        if isinstance(key, Path) or key is None:
            file = key or file
            private = _private(_read(file), f"the signing key {file}")
            if file.stat().st_mode & 0o077:
                raise UserError(f"the signing key {file} is readable by others; run: chmod 600 {file}")
        else:
            private = _private(
                key.get_secret_value().encode(), "the signing key in TRAINGUARD_SIGNING_KEY_PEM"
            )
        signer = cls(private, keys_dir)
        status = keyring.load(keys_dir).get(signer.key_id, keyring.UNKNOWN)
        if status.state != "active":
            raise UserError(
                f"the signing key {signer.key_id[:16]} is {status.state} and signs no more; "
                "run: trainguard keys rotate, or give another with TRAINGUARD_SIGNING_KEY"
            )
        signer._publish()
        return signer

    def _publish(self) -> None:
        file = self._keys_dir / f"{self.key_id[:16]}.pub.pem"
        if not file.exists():
            write_atomic(file, self.public_pem)

    @property
    def verifier(self) -> Verifier:
        """Verifies what any key of this folder signed."""
        return Verifier.of(self._keys_dir)

    def sign_bytes(self, payload: bytes, *, payload_type: str) -> dict[str, Any]:
        """A DSSE envelope around ``payload``."""
        return {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [self._signed(payload, payload_type)],
        }

    def _signed(self, payload: bytes, payload_type: str) -> dict[str, str]:
        signature = _signature(self._private, pre_authentication_encoding(payload_type, payload))
        return {"keyid": self.key_id, "sig": base64.b64encode(signature).decode()}

    def countersign(self, envelope: Mapping[str, Any]) -> dict[str, Any]:
        """``envelope`` with our signature beside those it has. What it says is the caller's to check."""
        payload = base64.b64decode(envelope["payload"], validate=True)
        others = [dict(s) for s in envelope["signatures"] if s["keyid"] != self.key_id]
        return {**envelope, "signatures": [*others, self._signed(payload, envelope["payloadType"])]}

    @property
    def algorithm(self) -> str:
        """``ed25519``, ``ecdsa-p256`` or ``ecdsa-p384``."""
        return str(algorithm_of(self._private))

    @property
    def public_pem(self) -> bytes:
        """The public key, SubjectPublicKeyInfo in PEM."""
        from cryptography.hazmat.primitives import serialization

        return self._private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, statement: Mapping[str, Any]) -> dict[str, Any]:
        """A DSSE envelope around an in-toto Statement v1 (made with :func:`statement`)."""
        if statement.get("_type") != STATEMENT_TYPE:
            raise ValueError(f"not an in-toto statement: _type must be {STATEMENT_TYPE}")
        return self.sign_bytes(canonical_json(dict(statement)), payload_type=PAYLOAD_TYPE)

    def verify(self, envelope: Mapping[str, Any]) -> dict[str, Any]:
        """The statement in ``envelope``. Raises Tampered when it is not signed by a key of this folder."""
        return self.verifier.verify(envelope)

    def verify_dated(self, envelope: Mapping[str, Any], field: str) -> tuple[dict[str, Any], str]:
        """As :meth:`Verifier.verify_dated`, with the keys of this folder."""
        return self.verifier.verify_dated(envelope, field)


def new_private_key(algorithm: str = "ed25519") -> bytes:
    """A fresh private key, PKCS 8 in PEM. ``algorithm``: ed25519, ecdsa-p256 or ecdsa-p384."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    curves = {"ecdsa-p256": ec.SECP256R1, "ecdsa-p384": ec.SECP384R1}
    made: PrivateKey
    if algorithm == "ed25519":
        made = ed25519.Ed25519PrivateKey.generate()
    elif algorithm in curves:
        made = ec.generate_private_key(curves[algorithm]())
    else:
        raise UserError(f"{algorithm!r} is no algorithm for signing; use ed25519, {' or '.join(curves)}")
    return made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"the signing key {file} cannot be used: {error}") from None


def _private(pem: bytes, what: str) -> PrivateKey:
    from cryptography.hazmat.primitives import serialization

    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise UserError(f"{what} cannot be used: {error}") from None
    if algorithm_of(private) is None:
        raise UserError(
            f"{what} is not an Ed25519, P-256 or P-384 key; make one: openssl genpkey -algorithm ed25519"
        )
    return private  # type: ignore[return-value]  # algorithm_of knows these only


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
