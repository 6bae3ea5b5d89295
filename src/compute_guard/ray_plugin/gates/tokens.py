"""One token per tenant, for Ray's own protocols. Kept by the head, 0600; rotated without a restart.

A rotated token is accepted for `GRACE_SECONDS` more: processes that are running keep the one they started
with.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

from guard_core.files import write_atomic
from guard_core.identity import NAME

GRACE_SECONDS = 7 * 86_400
"""As long as a job credential lives (`admissions.JOB_TOKEN_SECONDS`)."""
TOKENS_FOLDER = "tokens"
LOOK_SECONDS = 0.25
"""How long what was read of the files is taken for what is in them."""
_OLD = ".old"


def secret_in(file: Path) -> Callable[[], str]:
    """Reads a small secret file, anew within `LOOK_SECONDS` when it changed."""
    stamp, text, look_again = 0, "", 0.0

    def read() -> str:
        nonlocal stamp, text, look_again
        now = time.monotonic()
        if now >= look_again:
            changed = file.stat().st_mtime_ns
            if changed != stamp:
                stamp, text = changed, file.read_text(encoding="ascii").strip()
            look_again = now + LOOK_SECONDS
        return text

    return read


class Tokens:
    """Tokens by tenant, in files of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, str] = {}
        self._stamp = -1
        self._until = 0.0
        self._look_again = 0.0
        self._current: dict[str, tuple[float, str]] = {}

    def of(self, tenant: str) -> str:
        """The tenant's current token, made at first use."""
        if not NAME.match(tenant):
            raise ValueError(f"{tenant!r} is no tenant's name")
        until, token = self._current.get(tenant, (0.0, ""))
        if time.monotonic() < until:
            return token
        file = self._folder / tenant
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(file, _new(tenant).encode(), mode=0o600)
            self._look_again = 0.0
        token = file.read_text(encoding="ascii").strip()
        self._current[tenant] = (time.monotonic() + LOOK_SECONDS, token)
        return token

    def rotate(self, tenant: str) -> None:
        """Make a new token; the present one is accepted for the grace period, and the one before no more."""
        old = self.of(tenant)
        write_atomic(self._folder / (tenant + _OLD), old.encode(), mode=0o600)
        write_atomic(self._folder / tenant, _new(tenant).encode(), mode=0o600)
        self._forget(tenant)

    def _forget(self, tenant: str) -> None:
        self._current.pop(tenant, None)
        self._look_again = 0.0

    def revoke_old(self, tenant: str) -> None:
        """End the grace of a rotated token."""
        (self._folder / (tenant + _OLD)).unlink(missing_ok=True)
        self._forget(tenant)

    def by_token(self) -> dict[str, str]:
        """Tenant by token, old ones in their grace included; read anew when a file changed."""
        if time.monotonic() < self._look_again:
            return self._known
        self._look_again = time.monotonic() + LOOK_SECONDS
        if not self._folder.exists():
            return self._known
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
