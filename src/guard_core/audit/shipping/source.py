"""Reading the log from where a sink stands, no further than the signed head.

Records behind the head are acknowledged and stay; one that is just being written may still be taken back.
Each record's hash and its link to the one before are checked, so that what is delivered is what was logged.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from guard_core.audit import record
from guard_core.audit.head import Head, segment_name
from guard_core.audit.record import GENESIS
from guard_core.audit.segments import lines, segments
from guard_core.errors import Tampered, UserError
from guard_core.files import write_atomic

FORMAT = "trainguard.audit-sink/v1"
SCAN_RECORDS = 20_000
"""Records looked at for one batch, however few of them are wanted: the cursor moves on meanwhile."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a sink has come: ``records`` of the log whose record 0 has the hash ``genesis``.

    ``last`` is the hash of the newest of them; ``segment`` and ``offset`` where the next stands;
    ``delivered`` counts the events sent; ``size`` is the target file's size (None for a collector).
    """

    target: str
    kind: str
    genesis: str = GENESIS
    last: str = GENESIS
    segment: str = segment_name(0)
    offset: int = 0
    records: int = 0
    delivered: int = 0
    size: int | None = None
    updated: str = ""


def load_cursor(path: Path, *, target: str, kind: str) -> Cursor | None:
    """The cursor in ``path``; None when there is none. Raises UserError for one that cannot be used."""
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
        if value.pop("format") != FORMAT:
            raise ValueError("unknown format")
        found = Cursor(**value)
        if (found.target, found.kind) != (target, kind):
            raise ValueError("it belongs to another sink")
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"the sink's position {path} cannot be used ({error}); restore it, or send everything again with "
            "--from-start"
        ) from None


def save_cursor(path: Path, cursor: Cursor) -> None:
    """Replace the cursor, whole and for good. Raises OSError."""
    content = json.dumps({"format": FORMAT, **asdict(cursor)}, indent=2).encode() + b"\n"
    write_atomic(path, content, mode=0o600)


@dataclass(frozen=True, slots=True)
class Batch:
    """Records to deliver, and where the sink stands once they are delivered."""

    after: Cursor
    records: list[dict[str, Any]] = field(default_factory=list)


def next_batch(directory: Path, head: Head, cursor: Cursor, *, events: int, size: int) -> Batch:
    """The next wanted records after ``cursor``: at most ``events``, and ``size`` bytes unless one is larger.

    Raises UserError when the log is another one than the sink read before, Tampered when it was changed.
    """
    if cursor.records and (head.genesis != cursor.genesis or head.size < cursor.records):
        raise UserError(
            f"the audit log {directory} is not the one this sink read before (it was restarted, or an older "
            "one put back); old logs lie beside it; begin with this one by --from-start"
        )
    files = [p for p in segments(directory) if cursor.segment <= p.name <= head.segment]
    if head.size > cursor.records and (not files or (cursor.offset and files[0].name != cursor.segment)):
        raise Tampered(f"the audit segment {directory / cursor.segment} is missing; its records were deleted")
    chosen: list[dict[str, Any]] = []
    filled, first = 0, cursor.records
    for path in files:
        offset = cursor.offset if path.name == cursor.segment else 0
        for line in lines(path, offset):
            if cursor.records >= head.size:
                return Batch(cursor, chosen)
            value = _checked(line, cursor, path)
            wanted = record.chosen(value, earliest="", kind=None if cursor.kind == "all" else cursor.kind)
            if wanted and chosen and filled + len(line) > size:
                return Batch(cursor, chosen)
            last = str(value["_hash"])
            offset += len(line)
            cursor = replace(
                cursor,
                genesis=last if cursor.records == 0 else cursor.genesis,
                last=last,
                segment=path.name,
                offset=offset,
                records=cursor.records + 1,
            )
            if wanted:
                chosen.append(value)
                filled += len(line)
            if len(chosen) >= events or cursor.records - first >= SCAN_RECORDS:
                return Batch(cursor, chosen)
    if cursor.records < head.size:
        raise Tampered(f"the audit log {directory} was cut: {head.size} records were signed")
    return Batch(cursor, chosen)


def _checked(line: bytes, cursor: Cursor, path: Path) -> dict[str, Any]:
    try:
        stated, prev, number = record.frame(line)
        if (prev, number) == (cursor.last, cursor.records) and record.content_hash(line) == stated:
            return record.decode(line)
    except record.BadRecord:
        pass
    raise Tampered(
        f"record {cursor.records} in {path} was changed, so it is not delivered; run: trainguard audit verify"
    )
