"""What happened besides computing: submissions, dataset reads, refusals, shells, bytes that left a node.

Plain values for the detectors. Who gathers them, and from where, is the business of
:mod:`compute_guard.monitoring.activity_feed`. Nothing here holds a command, an argument or a token: a command
is its program's name and a digest.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

MINUTE_NS: Final = 60 * 1_000_000_000
HOUR_NS: Final = 60 * MINUTE_NS
DAY_NS: Final = 24 * HOUR_NS
_WORD = re.compile(r"[^\s'\"=;|&()<>]+")
_INTERPRETERS = frozenset(
    {"bash", "sh", "env", "exec", "nohup", "python", "python3", "torchrun", "uv", "run"}
)


@dataclass(frozen=True, slots=True)
class Submission:
    """One job as asked for. ``program`` is :func:`program_of` its command; ``off_hours`` by the calendar."""

    id: str
    tenant: str
    user: str
    at_ns: int
    program: str = ""
    off_hours: bool = False


@dataclass(frozen=True, slots=True)
class DatasetRead:
    """A finished verified read: ``bytes`` of the version ``ref``, for ``purpose``, by ``job`` (or empty)."""

    ref: str
    tenant: str
    job: str
    purpose: str
    bytes: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Somebody was refused, ``count`` times. ``what``: ``authentication``, ``unadmitted`` or the policy."""

    who: str
    tenant: str
    what: str
    at_ns: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class Shell:
    """A shell or downloader below a job's worker, not part of the command it was admitted with."""

    node: str
    tenant: str
    job: str
    executable: str
    pid: int


@dataclass(frozen=True, slots=True)
class Activity:
    """Everything known at a moment. Each tuple is in order of time.

    ``reserved``: node -> tenants that may be placed there, for nodes of a pool that is not everybody's.
    ``libraries``: node -> SHA-256 of the driver library that readings came through.
    """

    submissions: tuple[Submission, ...] = ()
    reads: tuple[DatasetRead, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    shells: tuple[Shell, ...] = ()
    reserved: Mapping[str, frozenset[str]] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)


NOTHING: Final = Activity()


def program_of(command: str) -> str:
    """What a command runs, without its arguments: ``name#digest`` of the first word that is no interpreter.

    Numbers in it count alike (``train_v2.py`` and ``train_v3.py`` are one program); directories do not count.

    >>> program_of("python -u /data/a/train_v2.py --lr 3") == program_of("python train_v7.py")
    True
    """
    for word in _WORD.findall(command):
        name = word.rsplit("/", 1)[-1]
        if name.lower() in _INTERPRETERS or word.startswith("-"):
            continue
        shape = re.sub(r"\d+", "0", name)
        return f"{shape[:40]}#{hashlib.sha256(shape.encode()).hexdigest()[:8]}"
    return ""


@dataclass(slots=True)
class Flows:
    """Bytes that left each node, integrated from rates. Keeps ``keep_ns`` of history per node.

    A gap longer than ``forgive_ns`` counts nothing: what was not seen is not made up.
    """

    keep_ns: int = 2 * HOUR_NS
    forgive_ns: int = 2 * MINUTE_NS
    _at: dict[str, list[int]] = field(default_factory=dict)
    _total: dict[str, list[float]] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    def call(self, groups: Iterable[Iterable[str]]) -> None:
        """Say which names are one node's: exporters call a node by address, others by host name."""
        for group in groups:
            names = sorted(group)
            self._names.update(dict.fromkeys(names, names[0] if names else ""))

    def follow_back(self) -> None:
        """The clock had been ahead: what was seen by it is forgotten."""
        self._at.clear()
        self._total.clear()

    def take(self, rates: Mapping[str, float], now_ns: int) -> None:
        """Bytes per second leaving each node now. Late and unreadable readings change nothing."""
        for node, rate in rates.items():
            name = self._names.get(node, node)
            at, total = self._at.setdefault(name, []), self._total.setdefault(name, [])
            if not rate >= 0 or rate == float("inf") or (at and now_ns <= at[-1]):
                continue
            step = now_ns - at[-1] if at else 0
            gone = rate * step / 1e9 if step <= self.forgive_ns else 0.0
            total.append((total[-1] if total else 0.0) + gone)
            at.append(now_ns)
            drop = bisect_left(at, now_ns - self.keep_ns)
            if drop:
                del at[:drop], total[:drop]

    def since(self, node: str, start_ns: int) -> float:
        """Bytes that left ``node`` from ``start_ns`` on, as far as it was watched."""
        name = self._names.get(node, node)
        at, total = self._at.get(name, []), self._total.get(name, [])
        if not at:
            return 0.0
        first = min(bisect_left(at, start_ns), len(at) - 1)
        return total[-1] - total[first]
