"""What checks for triggers share: they need a label of classes, and only gather samples until the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from dataset_guard.checks.base import CheckContext, ClassIndex, Hashes, Rows, counted
from dataset_guard.checks.poisoning.delta_samples import DeltaSamples
from dataset_guard.scanning.profile import plain

ENOUGH_TRUSTED = 500
LEAST_NEW = 50


def without_classes(context: CheckContext) -> str | None:
    """Why there are no classes that a trigger could stand for; None when there are."""
    if context.label is None:
        return "no label column is named (--label)"
    if pt.is_nested(context.schema.field(context.label).type):
        return f"the label {context.label!r} is nested, so it names no classes"
    return None


class SampledState:
    """Memory: two samples of at most ``budget`` rows, twice while they are gathered."""

    def __init__(
        self, context: CheckContext, columns: Sequence[str], budget: int, *, pictures: str | None = None
    ) -> None:
        assert context.label is not None
        self._context = context
        self._label: str = context.label
        self._samples = DeltaSamples(context, [*columns, context.label], budget, pictures=pictures)
        self.skipped: str | None = None

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Sample the rows that changed, and those that did not."""
        self._samples.update(batch, first_row, hashes)

    def merge(self, other: SampledState) -> None:
        """Take in the samples of other rows."""
        self._samples.merge(other._samples)

    def _enough(self, new: int, known: int, noun: str = "row") -> bool:
        """Whether an update of ``new`` rows can be judged by ``known`` ones; else the state is skipped."""
        if new >= LEAST_NEW and known >= ENOUGH_TRUSTED:
            return True
        self.skipped = (
            f"{counted(new, f'new {noun}')} and {counted(known, 'trusted one')} are too few "
            f"({LEAST_NEW} and {ENOUGH_TRUSTED} are needed)"
        )
        return False

    def _classes(self, *tables: pa.Table, most: int) -> tuple[int, list[Rows]] | None:
        """How many classes there are, and each table's; None, and skipped, unless 2 to ``most``."""
        labels = [plain(table[self._label]) for table in tables]
        index = ClassIndex(v for column in labels for v in column.unique().to_pylist())
        if 2 <= len(index) <= most:
            return len(index), [np.asarray(index.codes(column)) for column in labels]
        self.skipped = f"the label {self._label!r} has {counted(len(index), 'class', 'classes')}"
        return None
