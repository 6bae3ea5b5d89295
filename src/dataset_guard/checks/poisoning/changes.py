"""What is new against the trusted version: poison arrives with a change, so that is where to look."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.base import CheckContext, Hashes, Reference
from dataset_guard.checks.hash_index import HashIndex
from dataset_guard.scanning.profile import plain

Mask = npt.NDArray[np.bool_]

MAX_CLASSES = 10_000


def incomparable(context: CheckContext, trusted: Reference) -> str | None:
    """Why rows of this set cannot be matched with those of ``trusted``, or None when they can.

    Row hashes cover column names, so one column more makes every row a new one.
    """
    known = set(trusted.profile.get("columns") or ())
    if known and known != set(context.schema.names):
        return f"its columns are not those of the trusted version {trusted.ref}, so rows cannot be matched"
    return None


def changed_rows(context: CheckContext, hashes: Hashes) -> Mask:
    """Which rows the trusted version does not hold, label included. Needs ``context.baseline``."""
    assert context.baseline is not None
    return ~context.rows_of(context.baseline).contains(hashes)


def relabelled_rows(context: CheckContext, changed: Mask, features: Hashes) -> Mask:
    """Which of the changed rows have features that the trusted version holds, but never with this label."""
    assert context.baseline is not None
    found = np.zeros(len(changed), bool)
    at = np.flatnonzero(changed)
    if len(at):
        found[at] = context.features_of(context.baseline).contains(features[at])
    return found


def natural_conflicts(trusted: Reference) -> tuple[int, int]:
    """(rows of ``trusted`` that share their features with another row, those whose label no twin has).

    The second over the first is how often equal features carry a label of their own without anybody's doing:
    next to nothing for images and texts, much for coarse tables.
    """
    features = trusted.feature_hashes()
    if features is None:
        return 0, 0
    with_label, alone = HashIndex(trusted.row_hashes()), HashIndex(features)
    twins = alone.count(features) > 1
    own = with_label.count(trusted.row_hashes()) == 1
    return int(twins.sum()), int((twins & own).sum())


class ClassCounts:
    """Rows per class, kept for at most ``MAX_CLASSES`` of them; the classes themselves never leave."""

    def __init__(self) -> None:
        self.counts: dict[Any, int] = {}

    @property
    def overflowed(self) -> bool:
        """Whether there were more classes than are kept."""
        return len(self.counts) > MAX_CLASSES

    def update(self, labels: Any) -> None:
        """Count an Arrow array of labels; nulls and NaN are no class."""
        if self.overflowed:
            return
        for entry in plain(labels).value_counts().to_pylist():
            value = entry["values"]
            if value is not None and value == value:
                self.counts[value] = self.counts.get(value, 0) + entry["counts"]

    def merge(self, other: ClassCounts) -> None:
        """Add the counts of other rows."""
        for value, number in other.counts.items():
            self.counts[value] = self.counts.get(value, 0) + number
