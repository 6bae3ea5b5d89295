"""Tenants from an identity provider: OpenID Connect tokens (JWT) beside the credentials issued here.

A token counts when its signature fits a key of the provider's JSON Web Key Set (RFC 7517), its issuer and
audience are ours, and its time has not run out (RFC 7519, RFC 8725). The tenant is read from a claim that
the provider controls. The key set is a file or a URL and is read again when it changes, so that keys rotate
without a restart. Needs ``trainguard[oidc]``.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from guard_core.clock import Clock
from guard_core.config import OidcSettings
from guard_core.errors import Denied, Undecidable, UserError
from guard_core.identity import NAME, PLATFORM_ADMIN, Principal

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a private key only: a shared secret would let every verifier make tokens."""
LEEWAY_SECONDS = 30
KEYS_SECONDS = 300.0
"""How long keys from a URL are used before they are asked for again."""
RETRY_SECONDS = 10.0
"""A token with an unknown key makes us ask again, but no more often than this."""
STALE_SECONDS = 3600.0
"""How long the last keys count while the provider cannot be reached."""
_FETCH_SECONDS = 5.0
_MOST_BYTES = 1 << 20
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class KeySet:
    """The provider's public keys by id, from a file or an ``https`` URL."""

    def __init__(self, where: str, clock: Callable[[], float] = time.monotonic) -> None:
        parts = urlsplit(where)
        plain = parts.scheme == "http" and parts.hostname in _LOOPBACK
        if parts.scheme not in ("https", "http", ""):
            raise UserError(f"oidc.jwks must be a file or an https URL, got {where!r}")
        if parts.scheme == "http" and not plain:
            raise UserError(f"oidc.jwks must use https: whoever can change {where} can be anybody")
        self._where = where
        self._is_url = bool(parts.scheme)
        self._clock = clock
        self._keys: dict[str, Any] = {}
        self._read_at = -KEYS_SECONDS
        self._tried_at = -RETRY_SECONDS
        self._stamp = 0
        self._lock = threading.Lock()

    def key(self, name: str) -> Any:
        """The key with this id. Raises Denied when there is none, Undecidable without usable keys."""
        with self._lock:
            now = self._clock()
            if self._is_due(now) or (
                name not in self._keys and self._is_url and now - self._tried_at >= RETRY_SECONDS
            ):
                self._read(now)
            found = self._keys.get(name)
        if found is None:
            raise Denied(f"the token is signed with key {name!r}, which the identity provider does not list")
        return found

    def names(self) -> tuple[str, ...]:
        """The ids of all keys, read now. Raises Undecidable when they cannot be had."""
        with self._lock:
            self._read(self._clock())
            return tuple(sorted(self._keys))

    def _is_due(self, now: float) -> bool:
        if self._is_url:
            return now - self._read_at >= KEYS_SECONDS and now - self._tried_at >= RETRY_SECONDS
        try:
            return Path(self._where).stat().st_mtime_ns != self._stamp
        except OSError as error:
            raise Undecidable(f"the key set {self._where} cannot be read: {error.strerror}") from error

    def _read(self, now: float) -> None:
        from jwt import PyJWKSet
        from jwt.exceptions import PyJWTError

        self._tried_at = now
        try:
            stamp = 0 if self._is_url else Path(self._where).stat().st_mtime_ns
            keys = PyJWKSet.from_dict(json.loads(self._text())).keys
        except (OSError, ValueError, PyJWTError) as error:
            if self._keys and now - self._read_at < STALE_SECONDS:
                return
            raise Undecidable(f"the key set {self._where} cannot be used: {error}") from error
        self._keys = {key.key_id: key for key in keys if key.key_id}
        self._read_at, self._stamp = now, stamp

    def _text(self) -> bytes:
        if not self._is_url:
            return Path(self._where).read_bytes()
        with urllib.request.urlopen(self._where, timeout=_FETCH_SECONDS) as answer:  # noqa: S310 - see __init__
            text: bytes = answer.read(_MOST_BYTES)
        return text


class OidcTokens:
    """Verifies tokens of one provider."""

    def __init__(self, settings: OidcSettings, clock: Clock) -> None:
        if not (settings.issuer and settings.audience and settings.jwks):
            raise UserError("oidc needs issuer, audience and jwks together; see docs/admin/compute.md")
        if find_spec("jwt") is None:
            raise UserError('oidc needs PyJWT; run: pip install "trainguard[oidc]"')
        self._settings = settings
        self._clock = clock
        self._keys = KeySet(settings.jwks)

    def key_names(self) -> tuple[str, ...]:
        """The ids of the provider's keys, read now. Raises Undecidable when they cannot be had."""
        return self._keys.names()

    def verify(self, token: str) -> Principal:
        """Who ``token`` proves. Raises Denied, or Undecidable when the provider's keys cannot be had."""
        import jwt

        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise Denied(f"the token's algorithm {header.get('alg')!r} is not accepted")
            claims: dict[str, Any] = jwt.decode(
                token,
                key=self._keys.key(str(header.get("kid") or "")),
                algorithms=list(ALGORITHMS),
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                # Times are compared with our own clock below.
                options={
                    "require": ["exp", "iss", "aud"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.PyJWTError as error:
            raise Denied(f"the token does not count: {error}") from error
        self._in_time(claims)
        return self._principal(claims, token)

    def _in_time(self, claims: Mapping[str, Any]) -> None:
        now = self._clock().timestamp()
        try:
            ends, begins = float(claims["exp"]), float(claims.get("nbf", 0))
        except (TypeError, ValueError):
            raise Denied("the token's times are no numbers") from None
        if now >= ends + LEEWAY_SECONDS:
            raise Denied("the token has expired; get a new one from the identity provider")
        if now < begins - LEEWAY_SECONDS:
            raise Denied("the token is not valid yet; compare the clocks")

    def _principal(self, claims: Mapping[str, Any], token: str) -> Principal:
        settings = self._settings
        said = claims.get(settings.tenant_claim)
        tenant = settings.tenant_map.get(said, said) if isinstance(said, str) else None
        if tenant is None or not NAME.match(tenant):
            raise Denied(f"the token's claim {settings.tenant_claim!r} names no tenant")
        user = claims.get(settings.user_claim)
        if not isinstance(user, str) or not user.strip() or len(user) > 128:
            raise Denied(f"the token's claim {settings.user_claim!r} names no user")
        said_roles = claims.get(settings.roles_claim) if settings.roles_claim else ()
        roles = {str(role) for role in said_roles} if isinstance(said_roles, list | tuple) else set()
        admin = settings.admin_role is not None and settings.admin_role in roles
        name = str(claims.get("jti") or token)
        return Principal(
            tenant=tenant,
            user=user,
            # No role of a provider's counts as ours by its name alone.
            roles=(*sorted(roles - {PLATFORM_ADMIN}), *((PLATFORM_ADMIN,) if admin else ())),
            credential_id="jwt-" + hashlib.sha256(name.encode()).hexdigest()[:16],
            kind="tenant",
        )
