"""The same 12 expectations on the same rows: TrainGuard's compiled pass beside Great Expectations on pandas.

The file is generated: 2 M rows x 13 columns, zstd Parquet. Each contestant runs in a process of its own and
is charged CPU-seconds for validating only: reading and importing are not charged (the imports are printed).
Great Expectations gets the frame that ``Table.to_pandas()`` makes and is asked for BASIC results without
values (BOOLEAN_ONLY costs it the same). Verdicts and unexpected counts must be equal, or the run fails.

Usage: python benchmarks/validate.py [--rows N] [--repeat N] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from measure import Measure, in_child, machine, median, report
from tables import WORDS, parquet

OUT = Path(__file__).parent / "out"
TARGET = 15.0
COUNTRIES = [str(word) for word in WORDS[:20]]
SUITE: list[tuple[str, dict[str, Any]]] = [
    ("expect_table_row_count_to_be_between", {"min_value": 1}),
    ("expect_column_values_to_not_be_null", {"column": "user"}),
    ("expect_column_values_to_not_be_null", {"column": "maybe", "mostly": 0.85}),
    ("expect_column_values_to_be_unique", {"column": "id"}),
    (
        "expect_column_values_to_be_between",
        {"column": "age", "min_value": 18, "max_value": 85, "mostly": 0.9},
    ),
    ("expect_column_values_to_be_between", {"column": "height", "min_value": 120, "max_value": 220}),
    ("expect_column_values_to_be_in_set", {"column": "country", "value_set": COUNTRIES[:19], "mostly": 0.9}),
    ("expect_column_values_to_match_regex", {"column": "token", "regex": "^[0-9a-f]{16}$"}),
    ("expect_column_value_lengths_to_be_between", {"column": "text", "min_value": 20, "max_value": 90}),
    ("expect_column_mean_to_be_between", {"column": "income", "min_value": 1e4, "max_value": 1e5}),
    ("expect_column_distinct_values_to_be_in_set", {"column": "label", "value_set": list(range(10))}),
    (
        "expect_column_pair_values_a_to_be_greater_than_b",
        {"column_A": "height", "column_B": "age", "mostly": 0.99},
    ),
]


def ours(path: Path, _rows: int) -> dict[str, Any]:
    """The check itself, over blocks of 65,536 rows as a scan hands them to it."""
    import pyarrow.parquet as pq

    before = time.process_time()
    from dataset_guard.checks.base import CheckContext
    from dataset_guard.checks.quality.expectations import Expectations

    imported = time.process_time() - before
    file = pq.ParquetFile(path)
    # All read beforehand, as Great Expectations' frame is: a reader's threads would count as ours.
    batches = list(file.iter_batches(batch_size=65_536))
    entries = [{"type": kind, "kwargs": kwargs} for kind, kwargs in SUITE]
    before = time.process_time()
    state = Expectations(suite={"name": "bench", "expectations": entries}).start(
        CheckContext(schema=file.schema_arrow)
    )
    first_row = 0
    for batch in batches:
        state.update(batch, first_row, None, None)
        first_row += batch.num_rows
    list(state.finish())
    spent = time.process_time() - before
    assert state.details is not None
    by_place = {_key(r["expectation_config"]): r for r in state.details["results"]}
    return {
        "validate": spent,
        "import": imported,
        "results": [
            [
                by_place[_key({"type": k, "kwargs": w})]["success"],
                _count(by_place[_key({"type": k, "kwargs": w})]),
            ]
            for k, w in SUITE
        ],
    }


def great_expectations(path: Path, _rows: int) -> dict[str, Any]:
    """Great Expectations on a pandas frame, as its documentation does it."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    before = time.process_time()
    import great_expectations as gx
    from great_expectations.expectations.registry import get_expectation_impl

    imported = time.process_time() - before
    import pyarrow.parquet as pq

    frame = pq.read_table(path).to_pandas()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    asset = context.data_sources.add_pandas("p").add_dataframe_asset("t")
    definition = asset.add_batch_definition_whole_dataframe("b")
    suite = gx.ExpectationSuite(
        name="bench", expectations=[get_expectation_impl(kind)(**kwargs) for kind, kwargs in SUITE]
    )
    batch = definition.get_batch({"dataframe": frame})
    before = time.process_time()
    result = batch.validate(suite, result_format={"result_format": "BASIC", "partial_unexpected_count": 0})
    spent = time.process_time() - before
    by_place = {
        _key({"type": r.expectation_config.type, "kwargs": r.expectation_config.kwargs}): r
        for r in result.results
    }
    found = [by_place[_key({"type": k, "kwargs": w})] for k, w in SUITE]
    return {
        "validate": spent,
        "import": imported,
        "results": [[bool(r.success), _count({"result": r.result})] for r in found],
    }


def _key(config: Any) -> str:
    kwargs = config["kwargs"]
    return f"{config['type']} {kwargs.get('column', kwargs.get('column_A', ''))}"


def _count(result: Any) -> int | None:
    counted = "element_count" in (result["result"] or {})
    return int(result["result"]["unexpected_count"]) if counted else None


def main() -> None:
    """Run, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    rows = options.rows
    path = parquet(OUT / f"table-{rows}-zstd.parquet", rows)
    print(f"{rows:,} rows x 13, {len(SUITE)} expectations, {machine()}")
    runs = [
        (in_child(lambda: great_expectations(path, rows)), in_child(lambda: ours(path, rows)))
        for _ in range(options.repeat)
    ]
    for theirs, mine in runs:
        if theirs.answer["results"] != mine.answer["results"]:
            raise SystemExit(f"verdicts differ: {theirs.answer['results']} / {mine.answer['results']}")
    theirs_s = median([t.answer["validate"] for t, _ in runs])
    mine_s = median([m.answer["validate"] for _, m in runs])
    ratio = theirs_s / mine_s
    report(
        [
            Measure(
                "12 expectations, equal verdicts and counts",
                rows / mine_s / 1e6,
                "Mrows/CPU-s",
                "Great Expectations, pandas",
                rows / theirs_s / 1e6,
                ratio,
                f">= {TARGET:g}x",
                ratio >= TARGET,
            ),
            Measure(
                "import",
                median([m.answer["import"] for _, m in runs]),
                "CPU-s",
                "import great_expectations",
                median([t.answer["import"] for t, _ in runs]),
            ),
            Measure(
                "peak memory of the whole process",
                median([m.peak_bytes for _, m in runs]) / 2**20,
                "MiB",
                "Great Expectations, pandas",
                median([t.peak_bytes for t, _ in runs]) / 2**20,
            ),
        ],
        options.json,
    )


if __name__ == "__main__":
    main()
