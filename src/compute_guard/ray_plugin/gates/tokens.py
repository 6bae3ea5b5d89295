"""One token per tenant, for Ray's own protocols. Kept by the head, 0600; rotated without a restart.

A rotated token is accepted for `GRACE_SECONDS` more: processes that are running keep the one they started
with.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from guard_core.files import write_atomic
from guard_core.identity import NAME

GRACE_SECONDS = 7 * 86_400
"""As long as a job credential lives (`admissions.JOB_TOKEN_SECONDS`)."""
TOKENS_FOLDER = "tokens"
_OLD = ".old"


class Tokens:
    """Tokens by tenant, in files of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, str] = {}
        self._stamp = -1
        self._until = 0.0

    def of(self, tenant: str) -> str:
        """The tenant's current token, made at first use."""
        if not NAME.match(tenant):
            raise ValueError(f"{tenant!r} is no tenant's name")
        file = self._folder / tenant
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(file, _new(tenant).encode(), mode=0o600)
        return file.read_text(encoding="ascii").strip()

    def rotate(self, tenant: str) -> None:
        """Make a new token; the present one is accepted for the grace period, and the one before no more."""
        old = self.of(tenant)
        write_atomic(self._folder / (tenant + _OLD), old.encode(), mode=0o600)
        write_atomic(self._folder / tenant, _new(tenant).encode(), mode=0o600)

    def revoke_old(self, tenant: str) -> None:
        """End the grace of a rotated token."""
        (self._folder / (tenant + _OLD)).unlink(missing_ok=True)

    def by_token(self) -> dict[str, str]:
        """Tenant by token, old ones in their grace included; read anew when a file changed."""
        if not self._folder.exists():
            return {}
        stamp = self._folder.stat().st_mtime_ns
        now = time.time()
        if stamp != self._stamp or now >= self._until:
            found = {}
            self._until = now + 60
            for file in self._folder.iterdir():
                tenant = file.name.removesuffix(_OLD)
                if not NAME.match(tenant):
                    continue
                if file.name.endswith(_OLD) and file.stat().st_mtime + GRACE_SECONDS < now:
                    continue
                found[file.read_text(encoding="ascii").strip()] = tenant
            self._known, self._stamp = found, stamp
        return self._known


def _new(tenant: str) -> str:
    return f"ray_{tenant}_{secrets.token_hex(32)}"
