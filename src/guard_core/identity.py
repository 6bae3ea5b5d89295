"""Who is asking: principals and the credentials that prove them.

A tenant's name is believed only when a credential says it. A token is ``tg_<id>_<secret>``; the database
keeps the SHA-256 of the whole token (the secret has 256 random bits, so a slow hash would add nothing).

Local mode: whoever can read ``<home>/credentials/local.token`` (0600) owns the home directory and everything
in it, so that token carries the role ``platform-admin`` and may act for any tenant. That is `cooperative`
enforcement, and every record made with it says so.
"""

from __future__ import annotations

import getpass
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from guard_core.clock import Clock, system_clock
from guard_core.errors import Denied, UserError
from guard_core.files import locked, write_atomic

if TYPE_CHECKING:
    from guard_core.config import OidcSettings
    from guard_core.oidc import OidcTokens
    from guard_core.storage import Storage
    from guard_core.storage.tables import CredentialRow

Kind = Literal["local", "tenant", "job", "system"]
KINDS: tuple[Kind, ...] = ("local", "tenant", "job", "system")
PLATFORM_ADMIN = "platform-admin"
LOCAL_TENANT = "local"
LOCAL_TOKEN = "local.token"  # noqa: S105 - the name of a file
NAME = re.compile(r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")
"""Tenant names: they become folder names and policy keys."""
TOKEN = re.compile(r"tg_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Principal:
    """Someone, proved by a credential.

    ``tenant`` is the tenant acted for. When a platform admin acts for a tenant that is not the
    credential's own, ``on_behalf_of`` repeats that tenant's name (else it is None); ``credential_id`` and
    ``user`` always say who really acted.
    """

    tenant: str
    user: str
    roles: tuple[str, ...]
    credential_id: str
    kind: Kind
    workload: str | None = None
    datasets: tuple[str, ...] = ()
    on_behalf_of: str | None = None

    @property
    def is_platform_admin(self) -> bool:
        """Whether this principal runs the platform rather than one tenant."""
        return PLATFORM_ADMIN in self.roles

    def to_input(self) -> dict[str, Any]:
        """What policy sees as ``input.principal``."""
        return {
            "tenant": self.tenant,
            "user": self.user,
            "roles": list(self.roles),
            "credential_id": self.credential_id,
            "kind": self.kind,
            "workload": self.workload,
            "datasets": list(self.datasets),
            "on_behalf_of": self.on_behalf_of,
        }

    def acting_for(self, tenant: str) -> Principal:
        """This principal acting for ``tenant``. Raises Denied for another's, unless a platform admin asks."""
        if tenant == self.tenant:
            return self
        if not self.is_platform_admin:
            raise Denied(
                f"{self.user} of tenant {self.tenant} may not act for tenant {tenant}; "
                f"use a credential of {tenant}, or one with the role {PLATFORM_ADMIN}"
            )
        return replace(self, tenant=tenant, on_behalf_of=tenant)


@dataclass(frozen=True, slots=True)
class Credential:
    """What is stored about a credential (never its token)."""

    id: str
    kind: Kind
    tenant: str
    user: str
    roles: tuple[str, ...]
    workload: str | None
    datasets: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def state(self, now: datetime) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "active"


class Credentials:
    """Issues, verifies and revokes credentials in a storage."""

    def __init__(
        self, storage: Storage, clock: Clock = system_clock, oidc: OidcSettings | None = None
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._oidc_settings = oidc if oidc is not None and oidc.issuer else None

    @cached_property
    def _oidc(self) -> OidcTokens | None:
        if self._oidc_settings is None:
            return None
        from guard_core.oidc import OidcTokens

        return OidcTokens(self._oidc_settings, self._clock)

    def issue(
        self,
        *,
        tenant: str,
        user: str,
        roles: Iterable[str] = (),
        kind: Kind = "tenant",
        workload: str | None = None,
        datasets: Iterable[str] = (),
        ttl_seconds: int | None = None,
        store: Callable[[dict[str, Any]], None] | None = None,
    ) -> str:
        """Make a credential; returns its token, shown this once. Raises UserError for bad names.

        ``store`` is given its row instead, for a caller who writes it in a transaction of its own.
        """
        if not NAME.match(tenant):
            raise UserError(f"tenant {tenant!r} is not a name: lower-case letters, digits, '.', '_' or '-'")
        if not user.strip() or len(user) > 128:
            raise UserError("a credential needs a user name of 1 to 128 characters")
        if kind not in KINDS:
            raise UserError(f"credential kind {kind!r} is none of {', '.join(KINDS)}")
        if kind == "job" and not workload:
            raise UserError("a job credential must be bound to a workload")
        if ttl_seconds is not None and ttl_seconds <= 0:
            raise UserError(f"a credential's lifetime must be positive, got {ttl_seconds} s")
        token = f"tg_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"
        now = self._clock()
        expires = None if ttl_seconds is None else now + timedelta(seconds=ttl_seconds)
        self._store(token, tenant, user, tuple(roles), kind, workload, tuple(datasets), now, expires, store)
        return token

    def _store(
        self,
        token: str,
        tenant: str,
        user: str,
        roles: tuple[str, ...],
        kind: Kind,
        workload: str | None,
        datasets: tuple[str, ...],
        now: datetime,
        expires: datetime | None,
        store: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        row: dict[str, Any] = {
            "id": _id_of(token),
            "kind": kind,
            "tenant": tenant,
            "user": user,
            "roles": list(roles),
            "workload": workload,
            "datasets": list(datasets),
            "token_sha256": _digest(token),
            "created_at": now,
            "expires_at": expires,
        }
        if store is not None:
            store(row)
            return
        from guard_core.storage.tables import CredentialRow

        with self._storage.session() as session:
            session.add(CredentialRow(**row))

    def verify(self, token: str) -> Principal:
        """Who ``token`` proves: a credential of ours, or a token of the identity provider in the settings.

        Raises Denied when it is unknown, expired or revoked, Undecidable without the provider's keys.
        """
        if self._oidc is not None and is_jwt(token):
            return self._oidc.verify(token)
        row = self._row(_id_of(token))
        # A comparison is made even for an unknown id, so that timing does not tell which ids exist.
        stored = row.token_sha256 if row is not None else "0" * 64
        if not hmac.compare_digest(stored, _digest(token)) or row is None:
            raise Denied("the credential is not known here; ask the platform's admin for a new one")
        credential = _credential(row)
        state = credential.state(self._clock())
        if state != "active":
            raise Denied(f"the credential {credential.id} is {state}; ask the platform's admin for a new one")
        return Principal(
            tenant=credential.tenant,
            user=credential.user,
            roles=credential.roles,
            credential_id=credential.id,
            kind=credential.kind,
            workload=credential.workload,
            datasets=credential.datasets,
        )

    def _row(self, credential_id: str) -> CredentialRow | None:
        from guard_core.storage.tables import CredentialRow

        with self._storage.reading() as session:
            return session.get(CredentialRow, credential_id)

    def revoke(self, credential_id: str) -> None:
        """End a credential now; revoking it again changes nothing. Raises UserError when there is none."""
        from guard_core.storage.tables import CredentialRow

        with self._storage.session() as session:
            row = session.get(CredentialRow, credential_id)
            if row is None:
                raise UserError(f"there is no credential {credential_id!r}; see: trainguard tenant list")
            if row.revoked_at is None:
                row.revoked_at = self._clock()

    def list(self) -> list[Credential]:
        """All credentials, oldest first."""
        from sqlalchemy import select

        from guard_core.storage.tables import CredentialRow

        with self._storage.reading() as session:
            rows = session.scalars(select(CredentialRow).order_by(CredentialRow.created_at, CredentialRow.id))
            return [_credential(row) for row in rows]

    def local_token(self, folder: Path) -> str:
        """The home owner's token at ``folder/local.token``, made at first use.

        Several first uses at once agree on one token. Raises UserError when others can read the file.
        """
        file = folder / LOCAL_TOKEN
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with locked(folder / ".lock"):
                if not file.exists():
                    token = self.issue(
                        tenant=LOCAL_TENANT, user=_login(), roles=(PLATFORM_ADMIN,), kind="local"
                    )
                    write_atomic(file, token.encode() + b"\n", mode=0o600, exclusive=True)
        if file.stat().st_mode & 0o077:
            raise UserError(f"{file} is readable by others, so it proves nothing; run: chmod 600 {file}")
        token = file.read_text(encoding="ascii", errors="replace").strip()
        if not TOKEN.fullmatch(token):
            raise UserError(f"{file} does not hold a token; delete it and a new one is made")
        if self._row(_id_of(token)) is None:
            # A new or restored database beside an existing home: whoever reads this file owns the home.
            with locked(folder / ".lock"):
                if self._row(_id_of(token)) is None:
                    roles = (PLATFORM_ADMIN,)
                    self._store(token, LOCAL_TENANT, _login(), roles, "local", None, (), self._clock(), None)
        return token


def is_jwt(token: str) -> bool:
    """Whether ``token`` has the form of a signed JSON Web Token (RFC 7519)."""
    return token.startswith("ey") and token.count(".") == 2


def masked_tokens(text: str) -> str:
    """``text`` with the secret part of every TrainGuard token removed."""
    return TOKEN.sub(lambda match: f"tg_{match.group(1)}_***", text)


def _id_of(token: str) -> str:
    """The id a token names; empty for what is no token, which then is in no database."""
    match = TOKEN.fullmatch(token)
    return match[1] if match else ""


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return "owner"


def _credential(row: CredentialRow) -> Credential:
    kind: Any = row.kind
    return Credential(
        id=row.id,
        kind=kind,
        tenant=row.tenant,
        user=row.user,
        roles=tuple(row.roles),
        workload=row.workload,
        datasets=tuple(row.datasets),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
