"""Random tables and random expectations on them, for comparing compiled rules with Great Expectations."""

# ruff: noqa: E501 - one line per kind of expectation, to be read as a table

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa

from dataset_guard.checks.quality.gx_suite import Expected

INTS, FLOATS, TEXTS, TIMES = ("i", "j", "small"), ("x", "y"), ("t", "u", "wild"), ("when",)
NUMBERS = (*INTS, *FLOATS)
ROW_KINDS = 19
"""Of the kinds of expectations below, the first so many judge single rows (two of them whole columns)."""
_WORDS = ["a", "ab", "abc", "b", "b1", "item-7", "ITEM-9", "2024-01-31", "", " ", "x y"]
_WILD = [*_WORDS, "é", "数据", "line\n", "tab\tbed", "ſ", "٣", "naïve\n", "\x0b", "emoji 🙂"]
_PATTERNS = [
    "^a", "b$", "^[a-z]+$", r"\d", r"^\w+$", r"\s", r"\bb", "(?i)item", "^item-[0-9]{1,2}$", "a|b", "^$", ".",
    r"^\d{4}-\d{2}-\d{2}$", "[^a]", "(ab|c)+", r"a\.b", "x{2,}", "^(?!a)", r"\S", "数", "(?s)a.*", "[[:alpha:]]",
    "a{,2}$", r"\Ab", r"b\Z", "a*?b", "(?m)^b",
]  # fmt: skip


def table(random: np.random.Generator) -> pa.Table:
    """0 to 400 rows: numbers with nulls, NaN, zeros of both signs; ASCII and other text; times; duplicates."""
    rows = int(random.choice([0, 1, 2, 3, 50, 200, 400]))

    def holes(share: float) -> Any:
        if random.random() < 0.1:
            return np.ones(rows, bool)
        return random.random(rows) < (share if random.random() < 0.7 else 0)

    spread = int(random.choice([2, 10, 1000]))
    x = random.normal(size=rows).round(int(random.integers(0, 3)))
    if rows and random.random() < 0.5:
        x[random.random(rows) < 0.1] = random.choice([np.nan, -0.0, 0.0, np.inf, -np.inf])
    y = np.where(random.random(rows) < 0.5, x, random.normal(size=rows).round(1))

    def texts(words: list[str]) -> pa.Array:
        values = [words[i] for i in random.integers(0, len(words), rows)]
        return pa.array(values, pa.large_string() if random.random() < 0.3 else pa.string(), mask=holes(0.1))

    t = texts(_WORDS)
    same = random.random(rows) < 0.5
    u = pa.array(
        [a if s else b for a, b, s in zip(t.to_pylist(), texts(_WORDS).to_pylist(), same, strict=True)],
        pa.string(),
    )
    moments = np.datetime64("2024-01-01", "ns") + random.integers(0, 9, rows).astype("m8[D]")
    order = np.sort(random.integers(0, spread, rows)) if random.random() < 0.3 else None
    return pa.table(
        {
            "i": pa.array(
                random.integers(-spread, spread, rows) if order is None else order, mask=holes(0.1)
            ),
            "j": pa.array(random.integers(-spread, spread, rows)),
            "small": pa.array(random.integers(0, 5, rows).astype(random.choice(["u1", "i2", "i4", "u8"]))),
            "x": pa.array(x, mask=holes(0.1)),
            "y": pa.array(y),
            "t": t.dictionary_encode() if random.random() < 0.2 else t,
            "u": u,
            "wild": texts(_WILD),
            "when": pa.array(moments, pa.timestamp("ns"), mask=holes(0.1)),
            "flag": pa.array(random.random(rows) < 0.5, mask=holes(0.1)),
        }
    )


class Draw:
    """Random expectations with arguments that matter for the table at hand."""

    def __init__(self, random: np.random.Generator, data: pa.Table) -> None:
        self._random, self._data = random, data

    def _one(self, options: Any) -> Any:
        return options[int(self._random.integers(0, len(options)))]

    def _constant(self, column: str) -> Any:
        values = self._data[column].drop_null().to_pylist() if self._data.num_rows else []
        values = [v for v in values if v == v and not (isinstance(v, float) and np.isinf(v))]
        if values and self._random.random() < 0.7:
            value = self._one(values)
            if isinstance(value, dt.datetime):
                return value.isoformat()
            return value
        if column in TEXTS:
            return self._one(_WORDS)
        if column in TIMES:
            return "2024-01-04T00:00:00"
        return self._one([0, 1, -1, 0.5, 3, -2.25])

    def _bounds(self, column: str | None = None, made: Any = None) -> dict[str, Any]:
        ends = sorted((made or (lambda: self._constant(str(column))))() for _ in range(2))
        kept = int(self._random.integers(0, 3))
        found: dict[str, Any] = {}
        if kept != 0:
            found["min_value"] = ends[0]
        if kept != 1:
            found["max_value"] = ends[1]
        for name in ("strict_min", "strict_max"):
            if self._random.random() < 0.3:
                found[name] = True
        return found

    def _set(self, column: str) -> list[Any]:
        return [self._constant(column) for _ in range(int(self._random.integers(1, 6)))]

    def _mostly(self) -> dict[str, Any]:
        return {} if self._random.random() < 0.4 else {"mostly": self._one([0, 0.5, 0.9, 1.0, 0.25])}

    def _pair(self) -> dict[str, Any]:
        a, b = self._one([("i", "j"), ("x", "y"), ("t", "u"), ("i", "x"), ("small", "j"), ("u", "t")])
        rule = self._one(["both_values_are_missing", "either_value_is_missing", "neither"])
        return {"column_A": a, "column_B": b, **self._mostly(), **({"ignore_row_if": rule} if rule else {})}

    def _list(self, *lists: list[str]) -> dict[str, Any]:
        rule = self._one(["all_values_are_missing", "any_value_is_missing", "never"])
        return {"column_list": self._one(lists), "ignore_row_if": rule, **self._mostly()}

    def every(self) -> list[Expected]:
        """One expectation of every kind."""
        return [Expected(f"expect_{kind}", kwargs) for kind, kwargs in self._all()]

    def conditioned(self) -> list[Expected]:
        """Those on single rows, each for the rows that a random condition picks."""
        return [Expected(e.type, {**e.kwargs, **self._condition()}) for e in self.every()[:ROW_KINDS]]

    def _condition(self) -> dict[str, Any]:
        if self._random.random() < 0.5:
            return {"row_condition": self._object(2), "condition_parser": "pandas"}
        return {"row_condition": self._text(2), "condition_parser": "pandas"}

    def _comparison(self) -> tuple[str, str, Any]:
        column = self._one([*INTS, "x", "y", *TEXTS, "flag"])
        if column == "flag":
            return column, self._one(["==", "!="]), self._one([True, False])
        if self._random.random() < 0.3:
            return column, self._one(["in", "not in"]), self._set(column)
        ordered = ["<", "<=", ">", ">="] if column in NUMBERS else []
        return column, self._one(["==", "!=", *ordered]), self._constant(column)

    def _text(self, depth: int) -> str:
        kind = self._random.random()
        if depth and kind < 0.5:
            word = self._one([" and ", " or ", " & ", " | "])
            return f"({self._text(depth - 1)}){word}({self._text(depth - 1)})"
        if depth and kind < 0.6:
            return f"{self._one(['not ', '~'])}({self._text(depth - 1)})"
        if kind < 0.7:
            return f"{self._one([*NUMBERS, *TEXTS, 'flag'])}.{self._one(['isnull', 'notnull', 'isna', 'notna'])}()"
        if kind < 0.8:
            return f"{self._constant('x')!r} {self._one(['<', '<='])} {self._one(['x', 'i'])} {self._one(['<', '>', '!='])} 1"
        column, sign, value = self._comparison()
        return f"{column} {sign} {value!r}"

    def _object(self, depth: int) -> dict[str, Any]:
        kind = self._random.random()
        if depth and kind < 0.5:  # Great Expectations takes no or within and
            word, inner = ("or", 1) if depth == 2 and self._random.random() < 0.5 else ("and", 0)
            return {"type": word, "conditions": [self._object(inner) for _ in range(2)]}
        if kind < 0.7:
            return {
                "type": "nullity",
                "column": {"name": self._one([*NUMBERS, *TEXTS])},
                "is_null": bool(kind < 0.6),
            }
        column, sign, value = self._comparison()
        operator = {"in": "IN", "not in": "NOT_IN"}.get(sign, sign)
        return {"type": "comparison", "column": {"name": column}, "operator": operator, "parameter": value}

    def _all(self) -> list[tuple[str, dict[str, Any]]]:
        one, number, text = self._one, self._one(NUMBERS), self._one(TEXTS)
        anything = one([*NUMBERS, *TEXTS, *TIMES, "flag"])
        ranged = one([*NUMBERS, *TIMES])
        counted = one([*NUMBERS, *TEXTS])
        small = lambda: int(self._random.integers(0, 5))  # noqa: E731
        share = lambda: float(one([0, 0.1, 0.5, 0.9, 1]))  # noqa: E731
        rows = lambda: int(one([0, 1, 3, 50, 200, 401]))  # noqa: E731
        pairs = [[self._constant("small"), self._constant("t")] for _ in range(3)]
        quantiles = sorted({float(one([0, 0.1, 0.25, 0.5, 0.9, 1])) for _ in range(3)})
        ranges = [sorted([self._constant("x"), self._constant("x")]) for _ in quantiles]
        patterns = [one(_PATTERNS) for _ in range(2)]
        return [
            ("column_values_to_not_be_null", {"column": anything, **self._mostly()}),
            ("column_values_to_be_null", {"column": anything, **self._mostly()}),
            ("column_values_to_be_between", {"column": ranged, **self._bounds(ranged), **self._mostly()}),
            ("column_values_to_be_in_set", {"column": counted, "value_set": self._set(counted), **self._mostly()}),
            ("column_values_to_not_be_in_set", {"column": counted, "value_set": self._set(counted), **self._mostly()}),
            ("column_value_lengths_to_be_between", {"column": text, **self._bounds(made=small), **self._mostly()}),
            ("column_value_lengths_to_equal", {"column": text, "value": small(), **self._mostly()}),
            ("column_values_to_match_regex", {"column": text, "regex": one(_PATTERNS), **self._mostly()}),
            ("column_values_to_not_match_regex", {"column": text, "regex": one(_PATTERNS), **self._mostly()}),
            ("column_values_to_match_regex_list", {"column": text, "regex_list": patterns, "match_on": one(["any", "all"])}),
            ("column_values_to_not_match_regex_list", {"column": text, "regex_list": patterns, **self._mostly()}),
            ("column_values_to_be_unique", {"column": anything, **self._mostly()}),
            ("compound_columns_to_be_unique", self._list(["i", "j"], ["t", "small"], ["x", "y", "flag"], ["when", "wild"])),
            ("column_pair_values_a_to_be_greater_than_b", {**self._pair(), "or_equal": one([True, False])}),
            ("column_pair_values_to_be_equal", self._pair()),
            ("column_pair_values_to_be_in_set", {"column_A": "small", "column_B": "t", "value_pairs_set": pairs}),
            ("multicolumn_sum_to_equal", {**self._list(["i", "j"], ["small", "x"]), "sum_total": one([0, 1, 2])}),
            ("multicolumn_values_to_be_equal", self._list(["i", "j"], ["x", "y"], ["t", "u", "wild"])),
            ("select_column_values_to_be_unique_within_record", self._list(["i", "j"], ["x", "y"], ["t", "u"])),
            ("column_min_to_be_between", {"column": ranged, **self._bounds(ranged)}),
            ("column_max_to_be_between", {"column": ranged, **self._bounds(ranged)}),
            ("column_sum_to_be_between", {"column": number, **self._bounds("x")}),
            ("column_mean_to_be_between", {"column": number, **self._bounds("x")}),
            ("column_stdev_to_be_between", {"column": number, **self._bounds("x")}),
            ("column_median_to_be_between", {"column": number, **self._bounds("x")}),
            ("column_quantile_values_to_be_between", {"column": number, "quantile_ranges": {"quantiles": quantiles, "value_ranges": ranges}, "allow_relative_error": one([False, "linear", "lower", "higher", "midpoint"])}),
            ("column_proportion_of_non_null_values_to_be_between", {"column": anything, **self._bounds(made=share)}),
            ("column_proportion_of_unique_values_to_be_between", {"column": anything, **self._bounds(made=share)}),
            ("column_unique_value_count_to_be_between", {"column": anything, **self._bounds(made=small)}),
            ("column_distinct_values_to_be_in_set", {"column": counted, "value_set": self._set(counted)}),
            ("column_distinct_values_to_contain_set", {"column": counted, "value_set": self._set(counted)}),
            ("column_distinct_values_to_equal_set", {"column": counted, "value_set": self._set(counted)}),
            ("column_most_common_value_to_be_in_set", {"column": counted, "value_set": self._set(counted), "ties_okay": one([True, False])}),
            ("column_values_to_be_increasing", {"column": one([*NUMBERS, *TIMES]), "strictly": one([True, False])}),
            ("column_values_to_be_decreasing", {"column": one([*NUMBERS, *TIMES]), "strictly": one([True, False])}),
            ("table_row_count_to_be_between", self._bounds(made=rows)),
            ("table_row_count_to_equal", {"value": rows()}),
            ("table_column_count_to_be_between", {"min_value": one([9, 10, 11])}),
            ("table_column_count_to_equal", {"value": one([9, 10])}),
            ("column_to_exist", {"column": one(["i", "nope"]), **one([{}, {"column_index": one([0, 1, 20, -10])}])}),
            ("table_columns_to_match_set", {"column_set": one([["i"], self._data.schema.names]), "exact_match": one([True, False])}),
            ("table_columns_to_match_ordered_list", {"column_list": one([["i"], self._data.schema.names])}),
            ("column_values_to_be_of_type", {"column": one(["j", "x", "u"]), "type_": one(["int", "float", "str", "bool"])}),
        ]  # fmt: skip
