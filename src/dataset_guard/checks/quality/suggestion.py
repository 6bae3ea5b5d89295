"""What to expect of the next version of a set, learned from one that is trusted.

Beside what :func:`dataset_guard.checks.quality.gx_suite.derived` takes from the profile (columns, types,
nulls, ranges): text lengths, columns whose values are all different, and, when asked for, the values of
columns that have few.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from dataset_guard.checks.quality.compiled import Block, ColumnRule
from dataset_guard.checks.quality.compiled.block import Family, family
from dataset_guard.checks.quality.compiled.statistics import verdict
from dataset_guard.checks.quality.compiled.uniqueness import Unique
from dataset_guard.checks.quality.compiled.values import Found, ValueCounts
from dataset_guard.checks.quality.gx_suite import Expected, derived
from guard_core.findings import Severity

FEW = 32
"""Columns with at most so many values may have them listed."""
_SLACK, _MOSTLY = 0.25, 0.99
_NEARLY_ALL = 0.9
_LISTED: tuple[Family, ...] = ("text", "int")


class Suggester:
    """Reads a version once. Memory: 8 or 16 bytes per value of columns that may be keys."""

    def __init__(
        self, schema: pa.Schema, profile: Mapping[str, Any], label: str | None, *, values: bool
    ) -> None:
        self._profile, self._label = profile, label
        self._columns: Mapping[str, Mapping[str, Any]] = profile.get("columns") or {}
        self._keys = {n: Unique([n], 1) for n in schema.names if self._may_be_key(schema, n)}
        self._few: dict[str, list[Any]] = {}
        listed = [n for n in schema.names if values and self._may_be_listed(schema, n)]
        self._counts = {n: ValueCounts(n, self._keeper(n)) for n in listed}

    def _may_be_key(self, schema: pa.Schema, name: str) -> bool:
        stats = self._columns.get(name) or {}
        rows = int(stats.get("count", 0)) - int(stats.get("nulls", 0))
        return family(schema.field(name).type) in ("int", "text") and (
            rows > 1 and int(stats.get("distinct", 0)) >= _NEARLY_ALL * rows
        )

    def _may_be_listed(self, schema: pa.Schema, name: str) -> bool:
        stats = self._columns.get(name) or {}
        exact = stats.get("distinct_exact", False)
        return (
            family(schema.field(name).type) in _LISTED and exact and 0 < int(stats.get("distinct", 0)) <= FEW
        )

    def _keeper(self, name: str) -> Any:
        def keep(found: Found) -> Any:
            self._few[name] = sorted(found.values.to_pylist())
            return verdict(True)

        return keep

    def update(self, batch: pa.RecordBatch, first_row: int) -> None:
        """Take the rows ``first_row ...``."""
        block = Block(batch, first_row)
        rules: list[ColumnRule] = [*self._keys.values(), *self._counts.values()]
        for rule in rules:
            rule.update(block)

    def finish(self) -> list[Expected]:
        """The suggested expectations, the table's first, then column by column."""
        suite = derived(self._profile, self._label, slack=_SLACK, mostly=_MOSTLY)
        found = [] if suite is None else list(suite.expectations)
        unique = [n for n, rule in self._keys.items() if rule.finish().success]
        for counts in self._counts.values():
            counts.finish()
        for name, stats in self._columns.items():
            if name in unique:
                found.append(
                    Expected("expect_column_values_to_be_unique", {"column": name}, Severity.CRITICAL)
                )
            elif name in self._few:
                found.append(
                    Expected(
                        "expect_column_values_to_be_in_set", {"column": name, "value_set": self._few[name]}
                    )
                )
            found += self._lengths(name, stats)
        return found

    def _lengths(self, name: str, stats: Mapping[str, Any]) -> list[Expected]:
        lengths = stats.get("lengths") or {}
        if not str(stats.get("type", "")).startswith(("string", "large_string")) or "max" not in lengths:
            return []
        # The profile counts bytes; a code point has at most four.
        longest = int(lengths["max"] * (1 + _SLACK)) + 1
        kwargs = {
            "column": name,
            "min_value": min(1, int(lengths["min"])),
            "max_value": longest,
            "mostly": _MOSTLY,
        }
        return [Expected("expect_column_value_lengths_to_be_between", kwargs)]
