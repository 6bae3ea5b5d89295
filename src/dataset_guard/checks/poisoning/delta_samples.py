"""Two samples for a check with a trusted version: rows that are new since then, and rows to judge them by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from dataset_guard.checks.base import CheckContext, Hashes, Rows
from dataset_guard.checks.encoded_pictures import opening
from dataset_guard.checks.poisoning.changes import changed_rows
from dataset_guard.checks.sampling import RowSample
from dataset_guard.reading import Source

Sampled = tuple[Rows, pa.Table]
"""Row numbers, ascending, and those rows."""


class DeltaSamples:
    """At most ``budget`` rows of each kind, twice while they are gathered.

    Without a trusted version every row is new. ``pictures`` is a column of encoded ones, held as pixels.
    """

    def __init__(
        self, context: CheckContext, columns: Sequence[str], budget: int, *, pictures: str | None = None
    ) -> None:
        self._context = context
        self._columns = list(columns)
        self._budget = budget
        self._kept_as = opening(pictures)
        self._changed, self._known = self._empty(), self._empty()

    def _empty(self) -> RowSample:
        return RowSample(self._budget, self._context.seed, self._kept_as)

    @property
    def offered(self) -> int:
        """How many rows are new."""
        return self._changed.seen

    def update(self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None) -> None:
        """Offer the rows ``first_row ...`` to their samples."""
        rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
        wanted = batch.select(self._columns)
        if self._context.baseline is None:
            self._changed.update(wanted, rows)
            return
        assert hashes is not None
        changed = changed_rows(self._context, hashes)
        for sample, chosen in ((self._changed, changed), (self._known, ~changed)):
            at = np.flatnonzero(chosen)
            if len(at):
                sample.update(wanted if len(at) == len(rows) else wanted.take(pa.array(at)), rows[at])

    def merge(self, other: DeltaSamples) -> None:
        """Take in the samples of other rows."""
        self._changed.merge(other._changed)
        self._known.merge(other._known)

    def new(self) -> Sampled:
        """The sample of new rows."""
        return self._changed.finish(self._fields(self._context.schema))

    def unchanged(self) -> Sampled:
        """The sample of rows that the trusted version has too."""
        return self._known.finish(self._fields(self._context.schema))

    def trusted(self, enough: int) -> pa.Table:
        """Rows of this set that did not change; when these are fewer than ``enough``, the trusted version's
        own, if its data is there and has the columns."""
        _, known = self.unchanged()
        baseline = self._context.baseline
        if baseline is None or known.num_rows >= enough:
            return known
        source = baseline.open()
        wanted = self._fields(self._context.schema)
        if source is None or any(
            n not in source.schema.names or source.schema.field(n).type != wanted.field(n).type
            for n in self._columns
        ):
            return known
        return self.of(source)[1]

    def of(self, source: Source) -> Sampled:
        """A sample of another source's rows, of the same columns and budget."""
        sample, first_row = self._empty(), 0
        for batch in source.batches(columns=self._columns):
            rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
            sample.update(batch.select(self._columns), rows)
            first_row += batch.num_rows
        return sample.finish(self._fields(source.schema))

    def _fields(self, schema: pa.Schema) -> pa.Schema:
        return pa.schema([schema.field(n) for n in self._columns])
