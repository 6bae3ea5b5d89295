"""The loop: read a batch, mask it, deliver it, remember how far we came. At least once, in order.

The position is saved after the delivery: whatever ends this process, the batch that was on its way is sent
again, and nothing else. Deciding never waits for any of this, because the log is only read.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from guard_core.audit.head import Head
from guard_core.audit.masked import Masks
from guard_core.audit.shipping.event import collector_event
from guard_core.audit.shipping.sinks import NotTaken, Sink, TooLarge
from guard_core.audit.shipping.source import Cursor, load_cursor, next_batch, save_cursor
from guard_core.clock import Clock, rfc3339
from guard_core.errors import Undecidable, UserError

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """At most ``events`` and ``size`` bytes (before compression) a batch."""

    events: int = 500
    size: int = 1 << 20


def sink_file(home: Path, target: str, kind: str) -> Path:
    """Where the position of the sink for ``target`` and ``kind`` is kept."""
    digest = hashlib.sha256(f"{target}\0{kind}".encode()).hexdigest()[:16]
    return home / "audit-sinks" / f"{digest}.json"


@contextmanager
def sole(path: Path) -> Iterator[None]:
    """Hold the sink at ``path``: two shippers would send everything twice. Raises UserError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("another process already ships to this target; stop it first") from None
        yield
    finally:
        os.close(handle)


class Shipper:
    """Delivers one log to one sink. The caller holds the sink (:func:`sole`)."""

    def __init__(
        self,
        directory: Path,
        head: Callable[[], Head],
        sink: Sink,
        masks: Masks,
        *,
        position: Path,
        kind: str,
        instance: str,
        clock: Clock,
        sleep: Callable[[float], object],
        draw: Callable[[], float],
        tell: Callable[[str], object],
        limits: Limits = Limits(),
        from_start: bool = False,
    ) -> None:
        self._directory, self._head, self._sink, self._masks = directory, head, sink, masks
        self._position, self._instance, self._clock = position, instance, clock
        self._sleep, self._draw, self._tell, self._limits = sleep, draw, tell, limits
        known = None if from_start else load_cursor(position, target=sink.target, kind=kind)
        self.cursor = known or Cursor(sink.target, kind)
        self._save(replace(self.cursor, size=sink.begin(self.cursor.size)))

    def step(self) -> bool:
        """Deliver one batch; False when there is nothing new.

        Raises NotTaken or Undecidable when it stays due, Tampered and UserError for the log itself.
        """
        before = self.cursor
        batch = next_batch(
            self._directory, self._head(), before, events=self._limits.events, size=self._limits.size
        )
        if batch.after == before:
            return False
        size = before.size
        if batch.records:
            leaving = self._masks.leaving(batch.records)
            size = self._sink.deliver([collector_event(record, self._instance) for record in leaving])
        self._save(replace(batch.after, size=size, delivered=before.delivered + len(batch.records)))
        return True

    def _save(self, cursor: Cursor) -> None:
        cursor = replace(cursor, updated=rfc3339(self._clock()))
        try:
            save_cursor(self._position, cursor)
        except OSError as error:
            raise NotTaken(f"{self._position} cannot be written: {error.strerror or error}") from None
        self.cursor = cursor

    def run(self, *, follow: bool, attempts: int, poll_s: float) -> None:
        """Deliver what there is, and with ``follow`` what comes, until interrupted.

        Without ``follow``, raises Undecidable after ``attempts`` failures in a row; with it, goes on trying.
        """
        failures = 0
        while True:
            try:
                moved = self.step()
            except TooLarge as error:
                if self._limits.events > 1:
                    self._limits = replace(self._limits, events=self._limits.events // 2)
                    continue
                failures = self._failed(error, failures, None if follow else attempts)
                continue
            except Undecidable as error:
                failures = self._failed(error, failures, None if follow else attempts)
                continue
            if failures:
                self._tell(f"{self._sink.target} takes records again")
            failures = 0
            if moved:
                continue
            if not follow:
                return
            self._sleep(poll_s)

    def _failed(self, error: Undecidable, failures: int, attempts: int | None) -> int:
        failures += 1
        if attempts is not None and failures >= attempts:
            raise Undecidable(f"{error}; nothing is lost: run the same command again") from error
        if failures == 1:
            self._tell(f"{error}; it is tried again")
        delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 16))
        self._sleep(delay * (0.5 + self._draw() / 2))
        return failures
