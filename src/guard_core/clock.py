"""Time and identifiers as injected values, so that decisions can be replayed and tests do not sleep."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Clock = Callable[[], datetime]
"""A callable that returns the current time as an aware UTC datetime."""


def system_clock() -> datetime:
    """The machine's clock, aware, in UTC."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """``moment`` as RFC 3339 in UTC with microseconds, e.g. ``2026-11-23T04:05:06.000007Z``."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def to_ns(moment: datetime) -> int:
    """Nanoseconds since the Unix epoch, as an integer (policy input's ``now_ns``)."""
    delta = moment - _EPOCH
    return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1_000


def new_id(prefix: str) -> str:
    """A sortable, unguessable identifier: ``prefix-<ms since epoch, hex>-<64 random bits, hex>``."""
    return f"{prefix}-{int(time.time() * 1000):012x}-{secrets.token_hex(8)}"
