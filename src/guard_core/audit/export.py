"""The log's own lines, chosen but not changed; or as records that may leave the home."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path

from guard_core.audit import record
from guard_core.audit.masked import Masks
from guard_core.audit.segments import lines, segments
from guard_core.clock import rfc3339
from guard_core.errors import Tampered, UserError

BATCH = 1000
"""Records that ask the mask policy together."""


def exported(directory: Path, *, since: datetime | None = None, kind: str | None = None) -> Iterator[bytes]:
    """The whole lines of the log in ``directory``; ``since`` and ``kind`` as in ``AuditLog.records``.

    Raises UserError when there is no log, Tampered for a line that is no record.
    """
    files = segments(directory)
    if not files:
        raise UserError(f"there is no audit log at {directory}; set TRAINGUARD_HOME or give --home")
    for path in files:
        for number, line in enumerate(lines(path), start=1):
            if not line.endswith(b"\n"):
                return  # being written, or torn by a crash
            if since is None and kind is None:
                yield line
                continue
            try:
                value = record.decode(line)
            except record.BadRecord as error:
                raise Tampered(f"{path} line {number}: {error}; run: trainguard audit verify") from None
            if record.chosen(value, earliest=rfc3339(since) if since else "", kind=kind):
                yield line


def exported_masked(
    directory: Path, masks: Masks, *, since: datetime | None = None, kind: str | None = None
) -> Iterator[bytes]:
    """The records as JSON lines, masked and without their frame.

    Raises as :func:`exported`, and Undecidable when the policy does not say what to mask.
    """
    found = exported(directory, since=since, kind=kind)
    while batch := [_decoded(line) for line in islice(found, BATCH)]:
        for value in masks.leaving(batch):
            # ASCII: half a surrogate pair (a strange file name) has no UTF-8 form
            yield json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _decoded(line: bytes) -> dict[str, object]:
    try:
        return record.decode(line)
    except record.BadRecord as error:
        raise Tampered(f"an audit record cannot be read: {error}; run: trainguard audit verify") from None
