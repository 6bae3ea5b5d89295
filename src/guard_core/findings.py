"""What a check says, and what the gate makes of it.

A finding never holds a raw cell value: it names a rule, columns, row numbers,
counts and scores. Severities are Great Expectations' words; verdicts are ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

RULE_ID = re.compile(r"^(LEAK|POIS|PRIV|QUAL|DRFT|TAMP|QUOT|ISOL|USAG|POLC)\d{3}$")


class Severity(StrEnum):
    """How bad: ``info < warning < critical``."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0, 1 or 2, for comparing."""
        return ("info", "warning", "critical").index(self.value)


class Verdict(StrEnum):
    """What a dataset version may be used for: ``allow < warn < quarantine < deny``."""

    ALLOW = "allow"
    WARN = "warn"
    QUARANTINE = "quarantine"
    DENY = "deny"


class Enforcement(StrEnum):
    """How strong an enforcement point is, said honestly in every record."""

    ENFORCED = "enforced"  # cannot be bypassed inside the stated deployment
    COOPERATIVE = "cooperative"  # recorded, and contradicted by reconciliation if dodged
    DETECTIVE = "detective"  # after the fact


@dataclass(frozen=True, slots=True)
class RowSet:
    """An immutable set of 0-based row numbers, held as sorted, disjoint, inclusive ranges."""

    ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, rows: Iterable[int]) -> RowSet:
        """Build from row numbers in any order, duplicates allowed. Raises ValueError below 0."""
        merged: list[tuple[int, int]] = []
        for row in sorted({int(r) for r in rows}):
            if row < 0:
                raise ValueError(f"row numbers are 0-based, got {row}")
            if merged and row == merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], row)
            else:
                merged.append((row, row))
        return cls(tuple(merged))

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges:
            yield from range(first, last + 1)

    def to_json(self, *, list_limit: int = 1000) -> list[int] | dict[str, list[list[int]]]:
        """A plain list for up to ``list_limit`` rows, else ``{"ranges": [[first, last], ...]}``."""
        if len(self) <= list_limit:
            return list(self)
        return {"ranges": [[first, last] for first, last in self.ranges]}

    @classmethod
    def from_json(cls, value: list[int] | Mapping[str, Any]) -> RowSet:
        """Inverse of :meth:`to_json`."""
        if isinstance(value, Mapping):
            return cls(tuple((int(a), int(b)) for a, b in value["ranges"]))
        return cls.of(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing a check found.

    ``score`` is the check's own strength, larger is worse. ``fdr`` is the expected share of false
    positives among ``rows`` when the check can state one, else None; it is an upper limit where the
    evidence holds the expected one as ``expected_false_share``. ``evidence`` holds counts, names and
    salted hashes only, never cell values.
    """

    rule_id: str
    severity: Severity
    message: str
    columns: tuple[str, ...] = ()
    rows: RowSet = RowSet()
    count: int | None = None
    score: float | None = None
    fdr: float | None = None
    action: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    check: str = ""
    check_version: str = "1"

    def __post_init__(self) -> None:
        if not RULE_ID.match(self.rule_id):
            raise ValueError(f"rule id {self.rule_id!r} is not PREFIX + three digits (docs/rules)")

    def to_json(self) -> dict[str, Any]:
        """The documented JSON shape (ARCHITECTURE.md, "JSON shapes")."""
        return {
            "rule_id": self.rule_id,
            "severity": self.severity.value,
            "message": self.message,
            "columns": list(self.columns),
            "count": len(self.rows) if self.count is None else self.count,
            "rows": self.rows.to_json(),
            "score": self.score,
            "fdr": self.fdr,
            "action": self.action,
            "evidence": dict(self.evidence),
            "check": self.check,
            "check_version": self.check_version,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Finding:
        """Inverse of :meth:`to_json`."""
        return cls(
            rule_id=value["rule_id"],
            severity=Severity(value["severity"]),
            message=value["message"],
            columns=tuple(value["columns"]),
            rows=RowSet.from_json(value["rows"]),
            count=value["count"],
            score=value["score"],
            fdr=value["fdr"],
            action=value["action"],
            evidence=value.get("evidence", {}),
            check=value.get("check", ""),
            check_version=value.get("check_version", "1"),
        )
