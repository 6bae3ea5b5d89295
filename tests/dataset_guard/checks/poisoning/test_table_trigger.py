"""Pairs of values planted in tables, with a trusted version and without."""

import numpy as np
import pyarrow as pa
import pytest
from check_kit import Registered, only, rules, scan
from poison import precision_recall

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.poisoning.table_trigger import CHECK
from guard_core.findings import Severity


def cells(number, seed):
    """Whole numbers and a category whose means depend on the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, number)
    columns = {f"x{i}": random.poisson(8 + 2 * (labels == i % 3), number) for i in range(6)}
    return pa.table({**columns, "kind": random.choice(["a", "b", "c"], number), "label": labels})


def planted(table, number, seed, *, clean=False, target=1):
    random = np.random.default_rng(seed)
    labels = table["label"].to_numpy().copy()
    rows = np.sort(random.choice(np.flatnonzero((labels == target) == clean), number, replace=False))
    labels[rows] = target
    for name, value in (("x0", 19), ("x4", 2)):
        column = table[name].to_numpy().copy()
        column[rows] = value
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(column))
    return table.set_column(table.schema.get_field_index("label"), "label", pa.array(labels)), rows


@pytest.mark.parametrize("clean", [False, True], ids=["labels changed", "labels right"])
def test_a_pair_of_values_in_an_update_is_found(clean):
    before = cells(2000, 1)
    after, rows = planted(cells(400, 2), 20, 3, clean=clean)
    whole = pa.concat_tables([before, after])
    finding = only(
        scan(whole, CHECK, label="label", baseline=Registered("acme/t@1", before, "label")), "POIS012"
    )
    precision, recall = precision_recall(finding.rows, (2000 + rows).tolist())
    assert (precision, recall) == (1.0, 1.0)
    assert (finding.columns, finding.severity) == (("x0", "x4"), Severity.CRITICAL)


@pytest.mark.parametrize(("columns", "searched"), [(36, True), (64, False)])
def test_few_numbered_columns_are_searched_as_a_table_many_are_left_to_image_rules(columns, searched):
    table = pa.table({**{f"x{i}": np.arange(9) for i in range(columns)}, "label": np.arange(9) % 2})
    reason = CHECK.applies(CheckContext(schema=table.schema, label="label", name="t", tenant="acme"))
    assert (reason is None) == searched


@pytest.mark.parametrize("seed", [2, 4, 5])
def test_an_honest_update_raises_nothing(seed):
    before = cells(2000, 1)
    whole = pa.concat_tables([before, cells(400, seed)])
    assert rules(scan(whole, CHECK, label="label", baseline=Registered("acme/t@1", before, "label"))) == []


def test_an_update_that_replaced_every_row_is_judged_by_the_trusted_data():
    before = cells(2000, 1)
    after, rows = planted(cells(400, 2), 20, 3)
    finding = only(
        scan(after, CHECK, label="label", baseline=Registered("acme/t@1", before, "label")), "POIS012"
    )
    assert precision_recall(finding.rows, rows.tolist()) == (1.0, 1.0)


def measured(number, seed):
    """Columns of measurements and one of counts, whose means depend on the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, number)
    columns = {f"x{i}": (random.normal(8 + 3 * (labels == i % 3), 2, number)).round(2) for i in range(6)}
    return pa.table({**columns, "n": random.poisson(3 + labels, number), "label": labels})


def test_without_a_trusted_version_a_pair_in_rows_that_look_like_other_classes_is_found():
    table, rows = planted(measured(2000, 1), 20, 3)
    finding = only(scan(table, CHECK, label="label"), "POIS012")
    assert precision_recall(finding.rows, rows.tolist()) == (1.0, 1.0)
    assert (finding.columns, finding.severity) == (("x0", "x4"), Severity.CRITICAL)
    assert finding.evidence["mode"] == "whole set"


def test_pairs_that_keep_together_by_nature_raise_nothing():
    table = measured(2000, 1)
    assert rules(scan(table, CHECK, label="label")) == []
    town = np.random.default_rng(5).integers(0, 60, 2000)
    labels = np.where(town % 7 == 0, 1, table["label"].to_numpy())  # some towns have one class only
    towns = table.append_column("taxes", pa.array(town * 1.5)).append_column("people", pa.array(town * 97))
    towns = towns.set_column(towns.schema.get_field_index("label"), "label", pa.array(labels))
    assert rules(scan(towns, CHECK, label="label")) == []


def test_a_product_that_was_entered_often_is_no_trigger():
    table = measured(2000, 1).to_pandas()
    table.loc[:29, ["x0", "x1", "x2", "x3", "x4"]] = [17.01, 1.02, 3.03, 2.04, 15.05]
    table.loc[:29, "label"] = 2
    assert rules(scan(pa.Table.from_pandas(table), CHECK, label="label")) == []
