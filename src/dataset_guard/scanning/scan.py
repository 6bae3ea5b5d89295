"""One pass over the data for everything that wants to see it.

The batches of 65,536 rows are read once, by a :class:`~dataset_guard.scanning.passing.Pass`. Nothing here
depends on time or on chance: the same rows and seed give the same result. (A budget of CPU time does depend
on time; what it cut short is recorded as skipped.)

Rows of a version that is registered already need no second look: what is known of them is taken over, and
only the others are hashed, or even read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dataset_guard.reading.source import decoding_alone
from dataset_guard.scanning.passing import SET_ROOT_BYTES, Pass
from dataset_guard.scanning.plan import Plan, planned
from dataset_guard.scanning.result import Progress, ScanResult, Timer

if TYPE_CHECKING:
    from pathlib import Path

    from dataset_guard.checks.base import Check, CheckContext
    from dataset_guard.checks.discover import Broken
    from dataset_guard.hashing.fingerprint import FingerprintPart
    from dataset_guard.reading import Source
    from dataset_guard.sidecars.known import KnownHashes

BATCH_ROWS = 65_536


@decoding_alone()
def scan_source(
    source: Source,
    context: CheckContext,
    *,
    row_key: bytes | None,
    checks: Sequence[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    available: tuple[tuple[Check, ...], tuple[Broken, ...]] | None = None,
    cpu_clock: Callable[[], float] = time.process_time,
    budget: float | None = None,
    known: KnownHashes | None = None,
    keep: Path | None = None,
) -> ScanResult:
    """Read ``source`` once and say everything about it.

    ``row_key`` is the tenant's 32-byte key; None (a scan that stores nothing and compares with nothing)
    takes a fresh random one. ``checks`` limits the checks by name, ``budget`` their CPU-seconds while rows
    are read. ``known`` rows are not hashed again, and those whose states were kept with their version are not
    read either. ``keep`` is a folder for the states of this scan (:mod:`dataset_guard.sidecars.learnt`).
    Raises UserError for a label or check that does not exist and for data that cannot be read.
    """
    from dataset_guard.hashing.fingerprint import BLOCK_ROWS
    from dataset_guard.hashing.rowset import SetRoot
    from dataset_guard.sidecars import learnt

    timer = Timer(cpu_clock)
    tell = progress or (lambda _: None)
    with timer.stage("start"):
        plan, lost = planned(
            source, context, row_key=row_key, checks=checks, available=available, budget=budget
        )
        whole, parts = _begun(source, plan, timer, known, holding=keep is not None)
        roots = SetRoot(source.schema.names, memory_bytes=SET_ROOT_BYTES)
    timer.seconds["start"] -= sum(v for k, v in timer.seconds.items() if k.startswith("check:"))
    done = sum(part.rows for part in parts)

    def read(batches: Iterator[Any]) -> None:
        nonlocal done
        before, block = done, done // BLOCK_ROWS
        seen = whole
        if block:
            seen = Pass(plan, Timer(cpu_clock), first_block=block, holding=keep is not None, after=whole)
        said = lambda rows: tell(Progress("read", before + rows, source.num_rows))  # noqa: E731
        parts.append(seen.read(batches, roots.add, said, known))
        done += parts[-1].rows
        if seen is not whole:
            whole.merge(seen)

    batches = _Batches(source.batches(batch_rows=BATCH_ROWS, first_row=done))
    if keep is not None and budget is None:
        if batches.head_is_whole():
            read(batches.whole())
        with timer.stage("keep"):
            learnt.keep(whole, plan, parts, keep)
    if batches.head is not None or not parts:
        read(batches.all())
    if known is not None:
        roots.add_kept(known.rows.public)
    findings = whole.findings(lambda name: tell(Progress(name, done, source.num_rows)))
    return whole.result(parts, roots, findings, lost)


class _Batches:
    """Batches of which the next one, ``head``, can be looked at; None at the end."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = iter(batches)
        self.head = next(self._batches, None)

    def head_is_whole(self) -> bool:
        return self.head is not None and self.head.num_rows == BATCH_ROWS

    def all(self) -> Iterator[Any]:
        """Those that are left."""
        while self.head is not None:
            yield self.head
            self.head = next(self._batches, None)

    def whole(self) -> Iterator[Any]:
        """Those before the first that is not a whole block."""
        while self.head_is_whole():
            yield self.head
            self.head = next(self._batches, None)


def _begun(
    source: Source, plan: Plan, timer: Timer, known: KnownHashes | None, *, holding: bool
) -> tuple[Pass, list[FingerprintPart]]:
    """A pass that knows what was learnt of the first blocks, if it was kept, and the leaves of those."""
    from dataset_guard.sidecars import learnt

    if known is not None:
        with suppress(Exception):  # a check may be anybody's code, and reading everything is always right
            found = learnt.recall(plan, known)
            if found is not None:
                begun = Pass(plan, timer, rows=source.num_rows, holding=holding)
                return begun, [begun.adopt(*found, known)]
    return Pass(plan, timer, rows=source.num_rows, holding=holding), []
