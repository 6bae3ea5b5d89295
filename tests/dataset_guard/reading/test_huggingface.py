"""Hugging Face datasets, the real package: rows count, its own fingerprint does not."""

import pandas as pd
import pyarrow as pa
import pytest

import dataset_guard
from dataset_guard.reading import open_source
from guard_core.errors import UserError

datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")

FRAME = pd.DataFrame({"id": range(500), "text": [f"row {i}" for i in range(500)]})


def root_of(data):
    return dataset_guard.fingerprint(data).fingerprint


def test_a_dataset_has_the_fingerprint_of_its_frame_however_it_was_made():
    made = datasets.Dataset.from_pandas(FRAME)
    assert root_of(made) == root_of(FRAME)
    shuffled = made.shuffle(seed=1)
    assert root_of(shuffled) != root_of(FRAME)
    assert root_of(shuffled.sort("id")) == root_of(FRAME)
    assert root_of(made.select(range(10, 20))) == root_of(FRAME[10:20])
    assert root_of(made.with_format("numpy")) == root_of(FRAME)


def test_windows_and_columns():
    source = open_source(datasets.Dataset.from_pandas(FRAME))
    found = pa.Table.from_batches(source.stream(columns=["id"], first_row=7, rows=2))
    assert found.to_pydict() == {"id": [7, 8]}


def test_it_is_kept_when_registered_and_read_again(home):
    report = dataset_guard.register(
        datasets.Dataset.from_pandas(FRAME), name="hf", home=home, checks=["schema"]
    )
    assert report.fingerprint == root_of(FRAME)
    assert dataset_guard.verify("hf@1", home=home).ok


def test_several_splits_and_streams_are_refused():
    made = datasets.Dataset.from_pandas(FRAME)
    with pytest.raises(UserError, match=r"several splits \('train'\); pass one of them"):
        open_source(datasets.DatasetDict({"train": made}))
    with pytest.raises(UserError, match="streaming"):
        open_source(made.to_iterable_dataset())
