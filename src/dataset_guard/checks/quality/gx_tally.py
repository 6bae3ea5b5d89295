"""What one expectation came to, over blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dataset_guard.checks.base import Rows
from dataset_guard.checks.quality.gx_engine import Outcome
from dataset_guard.checks.quality.gx_suite import Expected

_MOST_ROWS_NAMED = 1_000_000


@dataclass(slots=True)
class Tally:
    """Counts of one expectation. ``problem`` says why it could not be evaluated, ``lacking`` names columns
    that are not there, ``observed_count`` is what an aggregate saw where that is a number of things,
    ``engine`` who evaluates it.
    """

    expected: Expected
    evaluated: bool = False
    success: bool = True
    elements: int = 0
    missing: int = 0
    unexpected: int = 0
    rows: list[Rows] = field(default_factory=list)
    held: int = 0
    problem: str = ""
    lacking: tuple[str, ...] = ()
    observed_count: int | None = None
    engine: str = "trainguard"

    def add(self, outcome: Outcome) -> None:
        """Add one block's counts, and the rows, up to a million."""
        self.evaluated = True
        self.elements += outcome.elements
        self.missing += outcome.missing
        self.unexpected += outcome.unexpected
        self.success = self.success and outcome.success
        kept = outcome.rows[: _MOST_ROWS_NAMED - self.held]
        if len(kept):
            self.rows.append(np.asarray(kept, np.int64))
            self.held += len(kept)
        if outcome.raised:
            self.problem = "Great Expectations raised an error"

    def conclude(self, outcome: Outcome) -> None:
        """Take the outcome over all rows; ``mostly`` decides where it counted values."""
        self.add(outcome)
        if outcome.elements:
            self.settle()
        # Only how many there are may be told; an extreme or a mean is a value.
        counts = "_count_" in self.expected.type and isinstance(outcome.observed, int | float)
        self.observed_count = int(outcome.observed) if counts else None

    def merge(self, other: Tally) -> None:
        """Add another state's counts."""
        self.evaluated = self.evaluated or other.evaluated
        self.elements += other.elements
        self.missing += other.missing
        self.unexpected += other.unexpected
        self.success = self.success and other.success
        self.rows += other.rows
        self.held += other.held
        self.problem = self.problem or other.problem

    @property
    def met(self) -> bool:
        """Whether it was evaluated and holds."""
        return self.success and not self.problem and not self.lacking

    def settle(self) -> None:
        """Decide a merged count as Great Expectations does: the share of values that are not missing."""
        judged = self.elements - self.missing
        share = 1.0 if judged <= 0 else (judged - self.unexpected) / judged
        self.success = not self.problem and share >= self.expected.mostly
