"""Columns that say nothing, labels that are missing, and a schema that is not the trusted one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from dataset_guard.checks.base import CheckContext, Hashes, Need, Reference, counted
from dataset_guard.hashing.canonical import canonical_schema
from dataset_guard.scanning.profile import plain
from guard_core.findings import Finding, RowSet, Severity


@dataclass(frozen=True, slots=True)
class Schema:
    """QUAL010 empty column, QUAL011 missing labels, QUAL012 changed type, QUAL013 column lost or new.

    ``label_nulls_critical``: share of rows without a label from which on an update is critical whose trusted
    version had fewer. Without a trusted version only a set that has no label at all is: one that is labelled
    in part is an ordinary thing (labels that come later, semi-supervised learning), and seen at once.
    """

    label_nulls_critical: float = 0.5

    name: ClassVar[str] = "schema"
    version: ClassVar[str] = "2"
    rule_ids: ClassVar[tuple[str, ...]] = ("QUAL010", "QUAL011", "QUAL012", "QUAL013")
    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies(self, context: CheckContext) -> str | None:
        """Always."""
        return None

    def start(self, context: CheckContext) -> SchemaState:
        """Counts from zero."""
        return SchemaState(self, context)


class SchemaState:
    """Memory: two numbers per column, and the numbers of the rows without a label."""

    def __init__(self, check: Schema, context: CheckContext) -> None:
        self._check = check
        self._context = context
        self._nulls = dict.fromkeys(context.schema.names, 0)
        self._unlabelled: list[Any] = []
        self._rows = 0

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Count nulls."""
        self._rows += batch.num_rows
        for i, name in enumerate(batch.schema.names):
            column = batch.column(i)
            self._nulls[name] += column.null_count
            if name == self._context.label:
                missing = _missing(column)
                if len(missing):
                    self._unlabelled.append(missing + first_row)

    def merge(self, other: SchemaState) -> None:
        """Add the counts."""
        self._rows += other._rows
        self._unlabelled += other._unlabelled
        for name, number in other._nulls.items():
            self._nulls[name] += number

    def finish(self) -> Iterator[Finding]:
        """Findings on empty columns, labels, and the trusted version's schema."""
        empty = [n for n, number in self._nulls.items() if self._rows and number == self._rows]
        if empty:
            yield Finding(
                rule_id="QUAL010",
                severity=Severity.WARNING,
                message=f"{counted(len(empty), 'column holds', 'columns hold')} no value at all.",
                columns=tuple(empty),
                count=len(empty),
                action="Drop the columns, or find out why the export left them empty.",
            )
        if self._unlabelled:
            yield self._labels()
        if self._context.baseline is not None:
            yield from self._against(self._context.baseline)

    def _labels(self) -> Finding:
        rows = np.concatenate(self._unlabelled)
        share, before = len(rows) / self._rows, self._unlabelled_before()
        lost = before is not None and before < self._check.label_nulls_critical <= share
        return Finding(
            rule_id="QUAL011",
            severity=Severity.CRITICAL if lost or share == 1.0 else Severity.WARNING,
            message=f"{counted(len(rows), 'row')} of {self._rows:,} without a label.",
            columns=(str(self._context.label),),
            rows=RowSet.of(rows.tolist()),
            score=share,
            action="Label the rows or leave them out before training.",
            evidence={} if before is None else {"share without a label in the trusted version": before},
        )

    def _unlabelled_before(self) -> float | None:
        """The share of the trusted version's rows without a label, as its profile has it; None if unknown."""
        trusted = self._context.baseline
        known = {} if trusted is None else trusted.profile.get("columns") or {}
        of_label = known.get(str(self._context.label)) or {}
        if not of_label.get("count"):
            return None
        return float((of_label["nulls"] + of_label.get("nans", 0)) / of_label["count"])

    def _against(self, trusted: Reference) -> Iterator[Finding]:
        known = {n: s.get("type") for n, s in (trusted.profile.get("columns") or {}).items()}
        if not known:
            return
        ours = {f.name: f for f in self._context.schema}
        changed = [n for n, f in ours.items() if n in known and not _same_type(f, str(known[n]))]
        if changed:
            yield Finding(
                rule_id="QUAL012",
                severity=Severity.WARNING,
                message=f"{counted(len(changed), 'column')} changed type since the trusted version "
                f"{trusted.ref}.",
                columns=tuple(changed),
                count=len(changed),
                action="Cast them back, or trust the new schema by registering this version as trusted.",
                evidence={f"type of {n}": f"{known[n]} -> {ours[n].type}" for n in changed[:8]},
            )
        lost, new = sorted(set(known) - set(ours)), sorted(set(ours) - set(known))
        if lost or new:
            yield Finding(
                rule_id="QUAL013",
                severity=Severity.WARNING,
                message=f"Compared with the trusted version {trusted.ref}, "
                f"{counted(len(lost), 'column is', 'columns are')} missing and {len(new):,} are new; "
                "changed rows cannot be told from unchanged ones.",
                columns=(*lost, *new),
                count=len(lost) + len(new),
                action="Register the new layout as a version of its own, and trust that one.",
                evidence={"missing": lost[:8], "new": new[:8]},
            )


def _missing(column: Any) -> Any:
    """Rows (of the batch) whose label is null, or NaN."""
    values = plain(column)
    null = np.asarray(values.is_null(nan_is_null=bool(pt.is_floating(values.type))))
    return np.flatnonzero(null).astype(np.int64)


def _same_type(field: Any, known: str) -> bool:
    """Whether ``known``, a type as the profile tells it, is the layout or the logical type of ``field``."""
    if str(field.type) == known:
        return True
    layouts = {"double": "float64", "float": "float32", "large_string": "string", "string_view": "string"}
    logical = canonical_schema(pa.schema([field]))[0].type
    return logical == layouts.get(known, known)


CHECK = Schema()
