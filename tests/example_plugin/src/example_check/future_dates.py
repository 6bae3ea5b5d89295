"""Dates after a given year: rows that could not have been known when the model will be used."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow.compute as pc
import pyarrow.types as pt

from guard_core.findings import Finding, RowSet, Severity


@dataclass(frozen=True)
class FutureDates:
    """QUAL900: dates after ``last_year``."""

    last_year: int = 2026

    name: ClassVar[str] = "future_dates"
    version: ClassVar[str] = "1"
    rule_ids: ClassVar[tuple[str, ...]] = ("QUAL900",)
    needs: ClassVar[frozenset[str]] = frozenset()

    def applies(self, context):
        """Needs a column of dates."""
        if not any(pt.is_timestamp(f.type) or pt.is_date(f.type) for f in context.schema):
            return "there is no date column"
        return None

    def start(self, context):
        """Nothing seen."""
        return _State(self, context.schema)


class _State:
    """Memory: the numbers of the rows found."""

    def __init__(self, check, schema):
        self._check = check
        self._columns = [f.name for f in schema if pt.is_timestamp(f.type) or pt.is_date(f.type)]
        self._rows = {name: [] for name in self._columns}

    def update(self, batch, first_row, hashes, feature_hashes):
        """Compare years."""
        for name in self._columns:
            late = pc.greater(pc.year(batch.column(name)), self._check.last_year)
            self._rows[name] += (np.flatnonzero(np.asarray(late.fill_null(False))) + first_row).tolist()

    def merge(self, other):
        """Take in other rows."""
        for name, rows in other._rows.items():
            self._rows[name] += rows

    def finish(self):
        """One finding for each column."""
        for name, rows in self._rows.items():
            if rows:
                yield Finding(
                    rule_id="QUAL900",
                    severity=Severity.WARNING,
                    message=f"{len(rows):,} rows have a date after {self._check.last_year}.",
                    columns=(name,),
                    rows=RowSet.of(rows),
                    action="Check the clock or the parser that made the dates.",
                )


CHECK = FutureDates()
