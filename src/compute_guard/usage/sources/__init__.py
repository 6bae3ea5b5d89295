"""Where telemetry comes from. A source yields frames; one file per kind of source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from compute_guard.usage.samples import Frame


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Why a source cannot be read here, and what would make it readable."""

    source: str
    reason: str
    remedy: str


def until_next(interval_s: float, now_ns: int) -> float:
    """Seconds to wait for the next scrape: to the middle of the next interval since the epoch.

    However long a scrape and its answer took, scrapes stay one interval apart; and as detectors see time in
    cells of one interval, a scrape in the middle of its cell may come early or late without leaving it.

    >>> until_next(2.0, 5_900_000_000)  # 1.1 s until 7 s, the middle of the cell from 6 to 8 s
    1.1
    """
    if interval_s <= 0:
        return 0.0
    step = int(interval_s * 1e9)
    return (step - (now_ns - step // 2) % step) / 1e9


@runtime_checkable
class Source(Protocol):
    """A stream of frames, each about one scrape of many devices, in the order they were taken."""

    @property
    def name(self) -> str:
        """``nvml``, ``prometheus``, ``replay`` or ``synthetic``."""

    def frames(self) -> Iterator[Frame]:
        """The frames, oldest first. Raises UserError when the source cannot be read."""
