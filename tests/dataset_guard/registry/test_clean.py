"""A cleaned copy is the parent less the named rows, signed as such, and appears whole or not at all."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataset_guard
from dataset_guard.registry import record as records
from dataset_guard.registry.store import Registry
from guard_core.cli import main
from guard_core.errors import Tampered, UserError
from guard_core.testing import temporary_home

CHECKS = ["exact_overlap", "label_flip"]


def table(rows=1000):
    return pa.table({"x": range(rows), "label": [i % 2 for i in range(rows)]})


def flipped(rows=1000, number=20):
    labels = np.arange(rows) % 2
    labels[100 : 100 + number] = 1 - labels[100 : 100 + number]
    both = pa.table({"x": range(rows), "label": labels})
    return pa.concat_tables([both, both.slice(0, 5)])


@pytest.fixture
def home():
    with temporary_home() as home:
        yield home


@pytest.fixture
def poisoned(home, tmp_path):
    """acme/set@2: 20 labels flipped against @1, and 5 rows repeated at the end. In a file of its own."""
    pq.write_table(flipped(), tmp_path / "data.parquet")
    known = {"name": "set", "tenant": "acme", "label": "label", "home": home, "checks": CHECKS}
    dataset_guard.register(table(), **known)
    return dataset_guard.register(tmp_path / "data.parquet", trusted="set@1", split="train", **known)


def record_of(home, ref):
    registry = Registry(home)
    return registry.record(registry.get(ref, tenant="acme"))


def test_the_child_is_the_parent_without_the_rows_of_the_finding(home, poisoned):
    assert poisoned.verdict.value == "quarantine"
    child = dataset_guard.clean("set@2", drop=["POIS001"], tenant="acme", home=home, checks=CHECKS)
    assert (child.ref, child.rows, child.verdict.value) == ("acme/set@3", 985, "allow")
    kept = dataset_guard.read("set@3", tenant="acme", home=home).to_table()
    assert kept == pa.concat_tables([flipped().slice(0, 100), flipped().slice(120)])
    assert (child.label, child.split, child.trusted) == ("label", "train", "acme/set@1")


def test_two_findings_and_one_of_several_can_be_dropped(home, poisoned):
    child = dataset_guard.clean(
        "set@2", drop=["POIS001", "LEAK001#1"], tenant="acme", home=home, checks=CHECKS
    )
    assert child.rows == 980
    assert child.findings == ()


def test_the_signed_record_names_the_parent_and_the_transform(home, poisoned):
    dataset_guard.clean("set@2", drop=["POIS001"], tenant="acme", home=home, checks=CHECKS)
    record, parent = record_of(home, "set@3"), record_of(home, "set@2")
    assert record["parents"] == ["acme/set@2", "acme/set@1"]
    transform = record["transform"]
    assert transform["operation"] == "drop-rows"
    assert transform["parent_fingerprint"] == parent["content"]["fingerprint"]
    assert transform["parent_record_digest"] == records.digest_of(parent)
    assert transform["findings"] == [{"finding": "POIS001#1", "check": "label_flip", "rows": 20}]
    again = dataset_guard.clean("set@2", drop=["POIS001"], tenant="acme", home=home, checks=CHECKS)
    assert record_of(home, again.ref)["transform"] == transform
    event = list(home.audit.records(kind="dataset.registered"))[-1]
    assert event["data"]["transform"]["digest"] == transform["digest"]


@pytest.mark.parametrize(
    ("drop", "words"),
    [
        (["POIS099"], "has no finding 'POIS099'; it has POIS001#1, LEAK001#1"),
        (["POIS001#2"], "has no finding 'POIS001#2'"),
        ([], "say which findings"),
    ],
)
def test_what_cannot_be_dropped_is_said_and_nothing_is_stored(home, poisoned, drop, words):
    with pytest.raises(UserError, match=words):
        dataset_guard.clean("set@2", drop=drop, tenant="acme", home=home)
    assert len(Registry(home).versions("set", tenant="acme")) == 2


def test_dropping_every_row_is_refused(home):
    known = {"name": "set", "tenant": "acme", "label": "label", "home": home, "checks": CHECKS}
    dataset_guard.register(table(50), **known)
    dataset_guard.register(table(50).set_column(1, "label", pa.array([1, 0] * 25)), trusted="set@1", **known)
    with pytest.raises(UserError, match="would leave no row"):
        dataset_guard.clean("set@2", drop=["POIS001"], tenant="acme", home=home)


def test_a_parent_that_was_changed_is_not_copied(home, poisoned, tmp_path):
    changed = flipped().set_column(0, "x", pa.array(range(5, 1010)))
    pq.write_table(changed, tmp_path / "data.parquet")
    with pytest.raises(Tampered):
        dataset_guard.clean("set@2", drop=["POIS001"], tenant="acme", home=home)
    assert len(Registry(home).versions("set", tenant="acme")) == 2
    assert not list(home.path("datasets", ".staging").glob("*"))


def test_the_command_registers_the_child(home, poisoned, capsys, monkeypatch):
    monkeypatch.setenv("TRAINGUARD_HOME", str(home.settings.home))
    told = ["--checks", ",".join(CHECKS), "--format", "json"]
    assert main(["dataset", "clean", "acme/set@2", "--drop", "POIS001", *told]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["version"], document["rows"]) == (3, 985)
