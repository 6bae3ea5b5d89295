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


@runtime_checkable
class Source(Protocol):
    """A stream of frames, each about one scrape of many devices, in the order they were taken."""

    @property
    def name(self) -> str:
        """``nvml``, ``prometheus``, ``replay`` or ``synthetic``."""

    def frames(self) -> Iterator[Frame]:
        """The frames, oldest first. Raises UserError when the source cannot be read."""
