"""Suites of expectations as plain records: given as Great Expectations JSON, or derived from a profile.

Nothing here imports Great Expectations; :mod:`dataset_guard.checks.quality.gx_engine` runs them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from guard_core.errors import UserError
from guard_core.findings import Severity

Scope = Literal["rows", "distinct", "whole", "schema", "count", "unsupported"]
"""What an expectation must see: each block of rows, the distinct values, all rows of its columns together,
the column names and types, the number of rows; or a database."""

BLOCKWISE = frozenset(
    "expect_column_" + name
    for name in (
        "value_lengths_to_be_between", "value_lengths_to_equal", "values_to_be_between",
        "values_to_be_dateutil_parseable", "values_to_be_in_set", "values_to_be_json_parseable",
        "values_to_be_null", "values_to_match_json_schema", "values_to_match_regex",
        "values_to_match_regex_list", "values_to_match_strftime_format", "values_to_not_be_in_set",
        "values_to_not_be_null", "values_to_not_match_regex", "values_to_not_match_regex_list",
        "pair_values_a_to_be_greater_than_b", "pair_values_to_be_equal", "pair_values_to_be_in_set",
    )
) | {
    "expect_multicolumn_sum_to_equal", "expect_multicolumn_values_to_be_equal",
    "expect_select_column_values_to_be_unique_within_record",
}  # fmt: skip
"""Expectations on single rows: their counts over blocks add up. Uniqueness, order and z-scores do not."""

TYPES = frozenset(
    {
        "expect_column_values_to_be_of_type",
        "expect_column_values_to_be_in_type_list",
        "expect_column_type_to_be",
    }
)
COLUMNS = frozenset(
    {
        "expect_column_to_exist",
        "expect_table_columns_to_match_set",
        "expect_table_columns_to_match_ordered_list",
        "expect_table_column_count_to_be_between",
        "expect_table_column_count_to_equal",
    }
)
_COUNT = frozenset({"expect_table_row_count_to_be_between", "expect_table_row_count_to_equal"})
_DISTINCT = frozenset(
    {
        "expect_column_unique_value_count_to_be_between",
        "expect_column_distinct_values_to_be_in_set",
        "expect_column_distinct_values_to_contain_set",
        "expect_column_distinct_values_to_equal_set",
        "expect_column_min_to_be_between",
        "expect_column_max_to_be_between",
    }
)
_DATABASE = frozenset(
    {
        "expect_table_row_count_to_equal_other_table",
        "expect_query_results_to_match_comparison",
        "unexpected_rows_expectation",
    }
)
_PYTHON_TYPES = (
    (("int", "uint"), "int"),
    (("double", "float", "halffloat"), "float"),
    (("string", "large_string"), "str"),
    (("bool",), "bool"),
)
MOST_DERIVED = 256
"""Columns that a derived suite looks at, in order of the schema."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One expectation. ``kwargs`` are Great Expectations' own; ``severity`` is what a failure weighs."""

    type: str
    kwargs: Mapping[str, Any]
    severity: Severity = Severity.WARNING

    @property
    def scope(self) -> Scope:
        """What it must see."""
        if self.type in BLOCKWISE:
            return "rows"
        if self.type in TYPES or self.type in COLUMNS:
            return "schema"
        if self.type in _COUNT:
            return "count"
        if self.type in _DATABASE:
            return "unsupported"
        # A row condition looks at the row's other columns, which distinct values have lost.
        return "distinct" if self.type in _DISTINCT and not self.kwargs.get("row_condition") else "whole"

    @property
    def mostly(self) -> float:
        """The share of values that must meet it."""
        share = self.kwargs.get("mostly")
        return 1.0 if share is None else float(share)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it names."""
        named = [self.kwargs[k] for k in ("column", "column_A", "column_B") if k in self.kwargs]
        return (*named, *self.kwargs.get("column_list", ()))

    def config(self) -> dict[str, Any]:
        """Great Expectations' JSON without the constants: those of a derived suite come from data."""
        shown = ("column", "column_A", "column_B", "column_list", "mostly", "strict_min", "strict_max")
        return {
            "type": self.type,
            "kwargs": {k: self.kwargs[k] for k in shown if self.kwargs.get(k) is not None},
            "meta": {},
            "severity": self.severity.value,
        }


@dataclass(frozen=True, slots=True)
class Suite:
    """Expectations and where they come from: ``given``, ``derived`` or ``minimal``. ``note`` says what a
    derived suite leaves out.
    """

    expectations: tuple[Expected, ...]
    origin: Literal["given", "derived", "minimal"]
    note: str = ""
    name: str = ""
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        plain = [[e.type, dict(e.kwargs), e.severity.value] for e in self.expectations]
        text = json.dumps(plain, sort_keys=True, default=repr)
        object.__setattr__(self, "digest", "sha256:" + hashlib.sha256(text.encode()).hexdigest())


def given(suite: Any) -> Suite:
    """A suite from the path of its JSON, from that JSON, or from an ExpectationSuite.

    Raises UserError for anything that is not one. Severity is what the expectation, or its ``meta``, says;
    a warning where neither says anything.
    """
    where = "the suite"
    if isinstance(suite, str | Path):
        where = str(suite)
        try:
            suite = json.loads(Path(suite).read_bytes())
        except OSError as error:
            raise UserError(f"the suite {where} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise UserError(f"the suite {where} is not JSON: {error}") from error
    if hasattr(suite, "expectations") and not isinstance(suite, Mapping):
        entries: Any = [_entry(e) for e in suite.expectations]
    else:
        entries = suite.get("expectations") if isinstance(suite, Mapping) else None
    if not isinstance(entries, Sequence) or not entries:
        raise UserError(f'{where} has no "expectations"; give a Great Expectations suite with at least one')
    name = suite.get("name") if isinstance(suite, Mapping) else suite.name
    found = tuple(_expected(e, i, where) for i, e in enumerate(entries))
    return Suite(found, "given", name=name if isinstance(name, str) else "")


def _entry(expectation: Any) -> dict[str, Any]:
    """An Expectation object as JSON; its severity only if somebody set it (the default is critical)."""
    config = expectation.configuration
    said = "severity" in getattr(expectation, "__fields_set__", ())
    meta = config.meta or {}
    entry = {"type": config.type, "kwargs": dict(config.kwargs), "meta": meta}
    return {**entry, "severity": str(getattr(config.severity, "value", config.severity))} if said else entry


def _expected(entry: Any, number: int, where: str) -> Expected:
    name = entry.get("type", entry.get("expectation_type")) if isinstance(entry, Mapping) else None
    if not isinstance(name, str):
        raise UserError(f'{where}: expectation {number} has no "type"')
    kwargs, meta = entry.get("kwargs") or {}, entry.get("meta") or {}
    said = entry.get("severity") or (meta.get("severity") if isinstance(meta, Mapping) else None)
    try:
        severity = Severity(str(said).lower()) if said else Severity.WARNING
    except ValueError as error:
        raise UserError(
            f"{where}: expectation {number} ({name}) has the severity {said!r}; "
            "it is one of info, warning, critical"
        ) from error
    if not isinstance(kwargs, Mapping):
        raise UserError(f'{where}: the "kwargs" of expectation {number} ({name}) are not an object')
    return Expected(name, {k: v for k, v in kwargs.items() if k != "batch_id"}, severity)


def minimal(columns: Sequence[str], label: str | None) -> Suite:
    """What every set should keep: rows, the columns it says it has, a label with at least two classes."""
    found = [
        Expected("expect_table_row_count_to_be_between", {"min_value": 1}, Severity.CRITICAL),
        Expected("expect_table_columns_to_match_set", {"column_set": list(columns), "exact_match": True}),
    ]
    if label is not None:
        found += [
            Expected("expect_column_values_to_not_be_null", {"column": label}, Severity.INFO),
            Expected("expect_column_unique_value_count_to_be_between", {"column": label, "min_value": 2}),
        ]
    return Suite(tuple(found), "minimal")


def derived(profile: Mapping[str, Any], label: str | None, *, slack: float, mostly: float) -> Suite | None:
    """What a trusted version's profile leads to expect; None when there is no profile.

    Its columns and their types; no nulls where there were none (else at most twice as many, and five in a
    hundred more); numbers within the trusted range, widened on both sides by ``slack`` of its width, for
    ``mostly`` of the rows; of the label no class more. Columns that number the rows have no range.
    """
    columns: Mapping[str, Mapping[str, Any]] = profile.get("columns") or {}
    if not columns:
        return None
    found = [
        Expected("expect_table_row_count_to_be_between", {"min_value": 1}, Severity.CRITICAL),
        Expected("expect_table_columns_to_match_set", {"column_set": list(columns), "exact_match": False}),
    ]
    looked_at = list(columns)[:MOST_DERIVED]
    for name in looked_at:
        found += _of_column(name, columns[name], label, slack, mostly)
    classes = (profile.get("label") or {}).get("classes") or ()
    if label in columns and classes:
        found.append(
            Expected(
                "expect_column_unique_value_count_to_be_between",
                {"column": label, "min_value": 1, "max_value": len(classes)},
            )
        )
    left = len(columns) - len(looked_at)
    return Suite(tuple(found), "derived", f"{left:,} more columns were left out" if left else "")


def _of_column(
    name: str, stats: Mapping[str, Any], label: str | None, slack: float, mostly: float
) -> list[Expected]:
    found = []
    kind = str(stats.get("type", ""))
    named = [python for prefixes, python in _PYTHON_TYPES if kind.startswith(prefixes)]
    if named:
        found.append(Expected("expect_column_values_to_be_of_type", {"column": name, "type_": named[0]}))
    rows, nulls = int(stats.get("count", 0)), int(stats.get("nulls", 0))
    if rows:
        limit = 1.0 if not nulls else 1 - max(2 * nulls / rows, nulls / rows + 0.05)
        if limit > 0 and name != label:
            found.append(Expected("expect_column_values_to_not_be_null", {"column": name, "mostly": limit}))
    if named and named[0] in ("int", "float") and "min" in stats and name != label:
        low, high = float(stats["min"]), float(stats["max"])
        numbers_rows = named[0] == "int" and stats.get("distinct", 0) >= 0.95 * max(1, rows - nulls)
        room = slack * (high - low) or 1.0
        if not numbers_rows and abs(low - room) < float("inf") and abs(high + room) < float("inf"):
            found.append(
                Expected(
                    "expect_column_values_to_be_between",
                    {"column": name, "min_value": low - room, "max_value": high + room, "mostly": mostly},
                )
            )
    return found
