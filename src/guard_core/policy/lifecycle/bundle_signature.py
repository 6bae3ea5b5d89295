"""OPA's bundle signature: a JWT over the hash of every file, in ``.signatures.json``.

Format: https://www.openpolicyagent.org/docs/management-bundles/#signing and OPA v1.20.2
``v1/bundle/{hash,sign,verify}.go``. The key made here is RSA (RS256), because that is what
``opa run --verification-key`` takes without a further option; an EC P-256 (ES256) or Ed25519 (EdDSA) key of
your own works too, with ``--signing-alg``. The algorithm follows from the trusted key, never from the token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guard_core.errors import Tampered, UserError
from guard_core.files import locked, write_atomic

SIGNATURES = ".signatures.json"
MANIFEST = ".manifest"
HASH = "SHA-256"
PRIVATE_KEY = "bundle-signing.key"
KEY_BITS = 3072


def file_hash(name: str, content: bytes) -> str:
    """Hash of one file as OPA takes it: of the value for JSON documents, of the bytes for all others.

    Raises ValueError when a JSON document is none, or holds a key twice (readers differ in which one counts).
    """
    if name.rpartition("/")[2] in ("data.json", MANIFEST):
        content = go_json(json.loads(content, object_pairs_hook=_unique)).encode()
    return hashlib.sha256(content).hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def go_json(value: Any) -> str:
    """``value`` as OPA's ``hash.go`` writes it: sorted keys, no spaces, Go's string escapes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    # Go escapes these two even without HTML escaping; in JSON text they can only stand inside strings.
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@dataclass(frozen=True, slots=True)
class BundleKey:
    """A private key that signs bundles; ``key_id`` is the SHA-256 of its public half (DER)."""

    private: Any
    key_id: str

    @classmethod
    def open(cls, folder: Path) -> BundleKey:
        """The key ``bundle-signing.key`` of ``folder``, made (0600) at first use, its public half beside it.

        Raises UserError for a key that cannot be used or that others can read.
        """
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        file = folder / PRIVATE_KEY
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with locked(folder / ".lock"):
                if not file.exists():
                    made = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS).private_bytes(
                        serialization.Encoding.PEM,
                        serialization.PrivateFormat.PKCS8,
                        serialization.NoEncryption(),
                    )
                    write_atomic(file, made, mode=0o600, exclusive=True)
        try:
            # Proving an RSA key's primes anew takes a fifth of a second each time; the file is ours, 0600.
            private = serialization.load_pem_private_key(
                file.read_bytes(), password=None, unsafe_skip_rsa_key_validation=True
            )
            algorithm_of(private.public_key())
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"the bundle signing key {file} cannot be used: {error}") from None
        if file.stat().st_mode & 0o077:
            raise UserError(f"the bundle signing key {file} is readable by others; run: chmod 600 {file}")
        public = private.public_key()
        shown = folder / f"{_key_id(public)[:16]}.pub.pem"
        if not shown.exists():
            pem = public.public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            write_atomic(shown, pem)
        return cls(private, _key_id(public))

    def public_file(self, folder: Path) -> Path:
        """Where :meth:`open` put the public half: what ``opa run --verification-key`` is given."""
        return folder / f"{self.key_id[:16]}.pub.pem"

    def sign(self, files: Mapping[str, bytes]) -> bytes:
        """The content of ``.signatures.json`` for ``files`` (name -> content)."""
        listed = [
            {"name": name, "hash": file_hash(name, files[name]), "algorithm": HASH} for name in sorted(files)
        ]
        header = {"alg": algorithm_of(self.private.public_key()), "typ": "JWT"}
        signed = f"{_b64(go_json(header).encode())}.{_b64(go_json({'files': listed}).encode())}"
        token = f"{signed}.{_b64(_signature(self.private, signed.encode()))}"
        return json.dumps({"signatures": [token]}).encode()


@dataclass(frozen=True, slots=True)
class BundleVerifier:
    """Trusted public keys by id."""

    keys: Mapping[str, Any]

    @classmethod
    def of(cls, *places: Path) -> BundleVerifier:
        """From public key files (PEM), or folders of ``*.pub.pem``. Raises UserError for an unusable file."""
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        keys = {}
        for place in places:
            for file in sorted(place.glob("*.pub.pem")) if place.is_dir() else [place]:
                try:
                    key = load_pem_public_key(file.read_bytes())
                    algorithm_of(key)
                except (OSError, ValueError, TypeError) as error:
                    raise UserError(f"{file} is not a public key for bundles: {error}") from None
                keys[_key_id(key)] = key
        return cls(keys)

    def verify(self, signatures: bytes, files: Mapping[str, bytes]) -> str:
        """Id of the trusted key that signed exactly ``files``. Raises Tampered, one sentence each."""
        token = _token(signatures)
        header, claims, signed, signature = _parts(token)
        key_id = self._signer_of(header, signed, signature)
        listed: dict[str, tuple[str, str]] = {}
        for entry in claims.get("files") or ():
            listed[str(entry.get("name"))] = (str(entry.get("hash")), str(entry.get("algorithm")))
        _refuse_names("was added after signing", sorted(set(files) - set(listed)))
        _refuse_names("was signed but is missing", sorted(set(listed) - set(files)))
        for name, content in files.items():
            stated, algorithm = listed[name]
            if algorithm != HASH:
                raise Tampered(f"{name} is hashed with {algorithm}, which is not accepted here; use {HASH}")
            # Bytes with the stated hash are the canonical form itself: no need to parse megabytes of data,
            # which would hold up every decision of this process.
            if hashlib.sha256(content).hexdigest() == stated:
                continue
            try:
                found = file_hash(name, content)
            except ValueError:
                raise Tampered(f"{name} is not the JSON document that was signed") from None
            if found != stated:
                raise Tampered(f"{name} was changed after signing")
        return key_id

    def _signer_of(self, header: Mapping[str, Any], signed: bytes, signature: bytes) -> str:
        from cryptography.exceptions import InvalidSignature

        if not self.keys:
            raise Tampered("no trusted key for bundles is installed here; add its .pub.pem to keys/policy")
        for key_id, key in self.keys.items():
            if header.get("alg") != algorithm_of(key):
                continue
            try:
                _check(key, signature, signed)
            except InvalidSignature:
                continue
            return key_id
        raise Tampered("the bundle is not signed by a key trusted here; add its .pub.pem to keys/policy")


def algorithm_of(public: Any) -> str:
    """JWS algorithm of a public key. Raises ValueError for a kind or size OPA does not take."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < 2048:
            raise ValueError(f"an RSA key of {public.key_size} bits is too short; use 3072")
        return "RS256"
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
        return "ES256"
    if isinstance(public, ed25519.Ed25519PublicKey):
        return "EdDSA"
    raise ValueError("use an RSA, EC P-256 or Ed25519 key")


def _signature(private: Any, content: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

    algorithm = algorithm_of(private.public_key())
    if algorithm == "RS256":
        made: bytes = private.sign(content, padding.PKCS1v15(), hashes.SHA256())
    elif algorithm == "ES256":
        r, s = utils.decode_dss_signature(private.sign(content, ec.ECDSA(hashes.SHA256())))
        made = r.to_bytes(32, "big") + s.to_bytes(32, "big")  # JWS wants both numbers side by side, not DER
    else:
        made = private.sign(content)
    return made


def _check(public: Any, signature: bytes, content: bytes) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

    algorithm = algorithm_of(public)
    if algorithm == "RS256":
        public.verify(signature, content, padding.PKCS1v15(), hashes.SHA256())
    elif algorithm == "ES256":
        if len(signature) != 64:
            raise InvalidSignature
        both = (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        public.verify(utils.encode_dss_signature(*both), content, ec.ECDSA(hashes.SHA256()))
    else:
        public.verify(signature, content)


def _token(signatures: bytes) -> str:
    try:
        tokens = json.loads(signatures)["signatures"]
        if len(tokens) == 1 and isinstance(tokens[0], str):
            return tokens[0]
    except (ValueError, KeyError, TypeError):
        pass
    raise Tampered(f"{SIGNATURES} does not hold one signature as OPA writes it")


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    try:
        head, body, signature = token.split(".")
        header, claims = json.loads(_unb64(head)), json.loads(_unb64(body))
        if isinstance(header, dict) and isinstance(claims, dict):
            return header, claims, f"{head}.{body}".encode(), _unb64(signature)
    except (ValueError, binascii.Error):
        pass
    raise Tampered(f"{SIGNATURES} does not hold a JSON Web Token")


def _refuse_names(what: str, names: Iterable[str]) -> None:
    for name in names:
        raise Tampered(f"{name} {what}")


def _key_id(public: Any) -> str:
    from cryptography.hazmat.primitives import serialization

    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
