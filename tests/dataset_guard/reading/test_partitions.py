"""Hive partitions: folder names are columns, as pyarrow reads them."""

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import dataset_guard
from dataset_guard.reading import open_source
from guard_core.errors import UserError


def root_of(data):
    return dataset_guard.fingerprint(data, set_root=False).fingerprint


@pytest.fixture
def folder(tmp_path):
    """Two levels, a null, a percent sign, and a day that is no number only in one place."""
    for year, day in ((2023, "1"), (2023, "__HIVE_DEFAULT_PARTITION__"), (2024, "a%2Fb")):
        place = tmp_path / "set" / f"year={year}" / f"day={day}"
        place.mkdir(parents=True)
        pq.write_table(pa.table({"x": [year, 2], "s": ["a", day]}), place / "part-0.parquet")
    return tmp_path / "set"


def test_the_path_the_pyarrow_dataset_and_the_table_have_one_fingerprint(folder):
    dataset = pads.dataset(folder, partitioning="hive")
    assert open_source(folder).schema.equals(dataset.schema)
    assert dataset.schema.field("day").type == pa.string()
    found = {root_of(folder), root_of(dataset), root_of(dataset.to_table())}
    assert len(found) == 1


@pytest.mark.parametrize(
    "values", [["01", "-5"], ["+1", "2"], ["2147483648", "1"], ["1.5", "2"], [" 1", "2"], ["é%3D", "%C3%A9"]]
)
def test_types_and_values_are_those_of_pyarrow(tmp_path, values):
    for value in values:
        (tmp_path / f"k={value}").mkdir()
        pq.write_table(pa.table({"x": [1]}), tmp_path / f"k={value}" / "0.parquet")
    theirs = pads.dataset(tmp_path, partitioning="hive").to_table().sort_by("k")
    ours = pa.Table.from_batches(open_source(tmp_path).stream()).sort_by("k")
    assert ours.equals(theirs)


def test_values_are_decoded_and_the_default_partition_is_null(folder):
    table = pa.Table.from_batches(open_source(folder).stream())
    assert table.column("day").to_pylist() == ["1", "1", None, None, "a/b", "a/b"]
    assert table.column("year").to_pylist() == [2023] * 4 + [2024] * 2


def test_chosen_columns_and_windows_also_of_partition_columns_alone(folder):
    source = open_source(folder)
    found = pa.Table.from_batches(source.stream(columns=["year"], first_row=3, rows=2))
    assert found.to_pydict() == {"year": [2023, 2024]}
    found = pa.Table.from_batches(source.stream(columns=["day", "x"], first_row=1, rows=1))
    assert found.to_pydict() == {"day": ["1"], "x": [2]}


def test_a_renamed_partition_is_a_changed_version(folder, home):
    dataset_guard.register(folder, name="p", home=home, checks=["schema"])
    assert dataset_guard.verify("p@1", home=home).ok
    (folder / "year=2024").rename(folder / "year=2025")
    found = dataset_guard.verify("p@1", home=home)
    assert not found.ok
    assert "year" in {change.column for change in found.changes}


def test_files_of_unequal_depth_are_refused(folder):
    pq.write_table(pa.table({"x": [1]}), folder / "zzz.parquet")
    with pytest.raises(UserError, match=r"zzz\.parquet lies in no partition"):
        open_source(folder)


def test_a_column_in_the_file_and_in_the_folder_is_refused(tmp_path):
    (tmp_path / "x=1").mkdir()
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x=1" / "a.parquet")
    with pytest.raises(UserError, match="a column 'x' that the name of its folder holds, too"):
        open_source(tmp_path)
