"""All checks together: each planted kind is named by its own rule, and clean sets are left in peace."""

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from check_kit import KEY, Registered
from sklearn import datasets

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.discover import discover
from dataset_guard.reading import open_source
from dataset_guard.scanning.scan import scan_source
from guard_core.findings import Severity

PLANTED = Path(__file__).parents[3] / "examples" / "demo" / "planted.py"


@pytest.fixture(scope="module")
def planted():
    """The demo's own poison: 5 % of the labels flipped, a 2x2 patch on 3 %, 40 test rows copied."""
    import sys

    spec = importlib.util.spec_from_file_location("demo_planted", PLANTED)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def scan_all(table, **context):
    known = CheckContext(schema=table.schema, label="label", tenant="acme", name="digits", **context)
    checks, broken = discover()
    ours = tuple(c for c in checks if c.name != "expectations")  # Great Expectations has tests of its own
    return scan_source(open_source(table), known, row_key=KEY, available=(ours, broken))


def demo(planted, folder, seed):
    data = planted.build(folder, seed=seed)
    train, test, poisoned = (pq.read_table(p) for p in (data.train, data.test, data.poisoned))
    trusted = Registered("acme/digits@1", train, "label", "train")
    return train, Registered("acme/digits-test@1", test, "label", "test"), poisoned, trusted, data.planted


def assert_named(result, rule_id, rows):
    (finding,) = [f for f in result.findings if f.rule_id == rule_id]
    found = set(finding.rows)
    assert finding.severity is Severity.CRITICAL
    assert len(found & rows) / len(found) >= 0.95, f"precision of {rule_id}"
    assert len(found & rows) / len(rows) >= 0.95, f"recall of {rule_id}"


@pytest.mark.parametrize("seed", [20261123, 1, 2])
def test_each_planted_kind_is_named_by_its_own_rule(planted, tmp_path, seed):
    _, test, poisoned, trusted, truth = demo(planted, tmp_path, seed)
    result = scan_all(poisoned, split="train", baseline=trusted, against=(test,))
    assert_named(result, "POIS001", truth.flipped)
    assert_named(result, "POIS010", truth.triggered)
    assert_named(result, "LEAK002", truth.copied)


def test_the_patch_and_the_copies_are_found_without_a_trusted_version_too(planted, tmp_path):
    _, test, poisoned, _, truth = demo(planted, tmp_path, 20261123)
    result = scan_all(poisoned, split="train", against=(test,))
    assert_named(result, "POIS010", truth.triggered)
    assert_named(result, "LEAK002", truth.copied)


def test_the_clean_half_of_the_demo_has_no_critical_finding(planted, tmp_path):
    train, test, _, trusted, _ = demo(planted, tmp_path, 20261123)
    first = scan_all(train, split="train", against=(test,))
    update = scan_all(pa.concat_tables([train, test.table]), split="train", baseline=trusted)
    assert [f.rule_id for f in (*first.findings, *update.findings) if f.severity is Severity.CRITICAL] == []


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer", "diabetes"])
def test_clean_sets_have_no_critical_finding(name):
    features, target = getattr(datasets, f"load_{name}")(return_X_y=True)
    column = "pixel_" if name == "digits" else "x"
    columns = {f"{column}{i}": features[:, i] for i in range(features.shape[1])}
    result = scan_all(pa.table({**columns, "label": np.asarray(target)}))
    assert [f.rule_id for f in result.findings if f.severity is not Severity.INFO] == []
    assert [c["skipped"] for c in result.checks if (c["skipped"] or "").startswith("failed")] == []


def test_no_finding_quotes_a_class_name(planted, tmp_path):
    _, test, poisoned, trusted, _ = demo(planted, tmp_path, 20261123)

    def named(table):
        names = [f"canary-class-{v}" for v in table["label"].to_pylist()]
        return table.set_column(table.schema.get_field_index("label"), "label", pa.array(names))

    result = scan_all(
        named(poisoned),
        split="train",
        baseline=Registered(trusted.ref, named(trusted.table), "label", "train"),
        against=(Registered(test.ref, named(test.table), "label", "test"),),
    )
    assert {"POIS001", "POIS010", "LEAK002"} <= {f.rule_id for f in result.findings}
    assert "canary" not in str([f.to_json() for f in result.findings]) + str(result.profile)
