"""Puts refused credentials on record, so that guessing shows (USAG013), without letting it fill the log.

At most ``per_minute`` events a minute are written; what came beyond is counted in the next one. The token is
never looked at: the reason says which credential it was, when it is one of ours.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from guard_core.errors import GuardError
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from guard_core.home import Home

KIND: Final = "identity.refused"
MINUTE: Final = timedelta(minutes=1)


@dataclass(slots=True)
class RefusalLog:
    """The refusals of one process. Safe in threads."""

    home: Home
    per_minute: int = 30
    _since: datetime | None = None
    _written: int = 0
    _held_back: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, reason: str) -> None:
        """A credential was refused for ``reason``. Never raises: the refusal itself must reach its client."""
        now = self.home.clock()
        with self._lock:
            if self._since is None or now - self._since >= MINUTE:
                self._since, self._written = now, 0
            if self._written >= self.per_minute:
                self._held_back += 1
                return
            self._written += 1
            count, self._held_back = 1 + self._held_back, 0
        try:
            self.home.audit.event(
                KIND,
                subject="credential",
                data={"reason": reason, "count": count},
                enforcement=Enforcement.ENFORCED,
            )
        except (GuardError, OSError):
            with self._lock:  # the log is in trouble, which its own users say; the count is not lost
                self._held_back += count
