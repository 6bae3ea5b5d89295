"""A cleaned copy: the rows of a registered version less those that findings name, as its child version.

Every block is checked against the parent's signed record before a row of it is kept. The child is a
registration like any other (checks run again, policy decides anew, whole or not at all); its signed record
names the parent and the transform: which findings were dropped, how many rows, and digests that tie them to
the parent's record, so that anybody who has both can repeat it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dataset_guard.reading.source import Source, checked_columns, windowed
from dataset_guard.reads.verified_read import VerifiedReader, read
from dataset_guard.registration.register import register
from dataset_guard.registration.request import Derivation
from dataset_guard.registry.caller import opened_home
from guard_core.errors import UserError
from guard_core.findings import RowSet

if TYPE_CHECKING:
    from dataset_guard.registration.report import Report
    from dataset_guard.scanning.result import Progress
    from guard_core.findings import Finding
    from guard_core.home import Home

OPERATION = "drop-rows"


def clean(
    ref: str,
    *,
    drop: Sequence[str],
    name: str | None = None,
    tenant: str | None = None,
    home: Home | None = None,
    checks: Sequence[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Register the version ``ref`` without the rows of the findings in ``drop``; returns the child's report.

    ``drop`` names rules (``POIS011``: all its findings) or single findings (``POIS011#2``: its second one, in
    the order of the report). The child is the next version of the same dataset, or of ``name``, with the
    parent's label, split, trusted version and sets to compare with. Its data is kept in the home.

    Raises UserError for a finding that the version does not have or that names no rows, and when no row would
    be left; Denied, Undecidable, Tampered as :func:`dataset_guard.read` and
    :func:`dataset_guard.register` do. In each case nothing is stored.
    """
    from dataset_guard.registry.store import Registry

    reader = read(ref, purpose="inspect", tenant=tenant, home=home)
    report = reader.report
    chosen = _chosen(report, drop)
    rows = RowSet.of(row for _, finding in chosen for row in finding.rows)
    if len(rows) >= report.rows:
        raise UserError(f"dropping {', '.join(drop)} would leave no row of {report.ref}; drop fewer findings")
    source = Cleaned(reader, rows)
    with opened_home(home) as opened:
        parent = Registry(opened).get(report.ref, tenant=report.tenant)
        return register(
            source,
            name=name or report.name,
            tenant=report.tenant,
            label=report.label,
            split=report.split,
            against=report.against,
            trusted=report.trusted,
            home=opened,
            checks=checks,
            progress=progress,
            derived=Derivation((report.ref,), _transform(report, parent.record_digest, chosen, rows)),
        )


class Cleaned(Source):
    """A verified reader's rows without ``dropped``; every reading is checked and recorded anew."""

    kind = "cleaned"

    def __init__(self, reader: VerifiedReader, dropped: RowSet) -> None:
        self.uri = "memory:cleaned"
        self.schema = reader.schema
        self.num_rows = reader.num_rows - len(dropped)
        self._reader = reader
        self._dropped = np.fromiter(dropped, np.int64, len(dropped))

    def stream(
        self, *, columns: Sequence[str] | None = None, first_row: int = 0, rows: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Batches of the rows that stay. Raises Tampered."""
        return windowed(self._all(checked_columns(self.schema, columns)), first_row, rows)

    def _all(self, names: list[str] | None) -> Iterator[pa.RecordBatch]:
        first = 0
        for batch in self._reader.batches():
            low, high = np.searchsorted(self._dropped, (first, first + batch.num_rows))
            kept = np.ones(batch.num_rows, bool)
            kept[self._dropped[low:high] - first] = False
            first += batch.num_rows
            part = batch if names is None else batch.select(names)
            yield part if kept.all() else part.filter(pa.array(kept))


def _chosen(report: Report, drop: Sequence[str]) -> list[tuple[str, Finding]]:
    """``(RULE#n, finding)`` for everything in ``drop``, each once."""
    numbered: dict[str, Finding] = {}
    counts: dict[str, int] = {}
    for finding in report.findings:
        counts[finding.rule_id] = counts.get(finding.rule_id, 0) + 1
        numbered[f"{finding.rule_id}#{counts[finding.rule_id]}"] = finding
    if not drop:
        raise UserError(
            f"say which findings of {report.ref} to drop: {', '.join(sorted(counts)) or 'it has none'}"
        )
    chosen: dict[str, Finding] = {}
    for wanted in drop:
        found = {k: f for k, f in numbered.items() if wanted in (k, f.rule_id)}
        if not found:
            known = ", ".join(numbered) or "no findings"
            raise UserError(f"{report.ref} has no finding {wanted!r}; it has {known}")
        with_rows = {k: f for k, f in found.items() if len(f.rows)}
        if not with_rows:
            raise UserError(
                f"the finding {wanted} of {report.ref} is about the set and names no rows to drop"
            )
        chosen.update(with_rows)
    return list(chosen.items())


def _transform(
    report: Report, record_digest: str, chosen: Sequence[tuple[str, Finding]], rows: RowSet
) -> dict[str, Any]:
    from blake3 import blake3
    from rfc8785 import dumps

    said: dict[str, Any] = {
        "operation": OPERATION,
        "parent": report.ref,
        "parent_fingerprint": report.fingerprint,
        "parent_record_digest": record_digest,
        "findings": [{"finding": key, "check": f.check, "rows": len(f.rows)} for key, f in chosen],
        "rows_dropped": len(rows),
        "row_ranges_digest": blake3(dumps([list(r) for r in rows.ranges])).hexdigest(),
    }
    return {**said, "digest": blake3(dumps(said)).hexdigest()}
