"""What a scan finds out; while it runs, how far it is and what it costs."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset_guard.checks.base import Hashes
    from dataset_guard.hashing.fingerprint import Fingerprint
    from dataset_guard.scanning.plan import Scope
    from guard_core.findings import Finding


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a scan is; ``total_rows`` is None when only reading would tell."""

    stage: str
    rows: int
    total_rows: int | None


@dataclass(frozen=True, slots=True)
class RowHashes:
    """What the sidecars store, shape (rows, 2) each.

    Tenant hashes are in row order (``features`` is None without a label), public hashes in ascending order.
    """

    rows: Hashes
    features: Hashes | None
    public: Hashes


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """Everything one pass found out. ``seconds`` are CPU seconds by stage."""

    fingerprint: Fingerprint
    rowhashes: RowHashes
    profile: Mapping[str, Any]
    findings: tuple[Finding, ...]
    checks: tuple[Mapping[str, Any], ...]
    seconds: Mapping[str, float]
    scope: Scope


class Timer:
    """CPU seconds of this process by stage."""

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge the block to ``name``."""
        start = self._clock()
        try:
            yield
        finally:
            self.seconds[name] += self._clock() - start
