"""What a rule over a whole column is: a mergeable state that ends in one outcome."""

from __future__ import annotations

from typing import Protocol, TypeVar

from dataset_guard.checks.quality.compiled.block import Block
from dataset_guard.checks.quality.gx_engine import Outcome

R = TypeVar("R", bound="ColumnRule")


class ColumnRule(Protocol):
    """One expectation over all rows of its columns; blocks may come in any order, states merge."""

    def update(self, block: Block) -> None:
        """Take one block."""

    def merge(self: R, other: R) -> None:
        """Absorb the state of other rows."""

    def finish(self) -> Outcome:
        """What it comes to."""

    @property
    def nbytes(self) -> int:
        """Memory that grows with the rows."""


class Counted:
    """Rows and missing values, which most rules need."""

    def __init__(self) -> None:
        self.rows = 0
        self.missing = 0

    def count(self, rows: int, missing: int) -> None:
        """Add a block's."""
        self.rows += rows
        self.missing += missing

    def absorb(self, other: Counted) -> None:
        """Add another state's."""
        self.count(other.rows, other.missing)

    @property
    def present(self) -> int:
        """Values that are not missing."""
        return self.rows - self.missing

    @property
    def nbytes(self) -> int:
        """Nothing that grows."""
        return 0
