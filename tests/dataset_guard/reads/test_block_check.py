"""A block is handed out only when it is exactly what was signed."""

import pickle
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from dataset_guard.hashing.fingerprint import BLOCK_ROWS, Fingerprinter
from dataset_guard.reads.block_check import BlockCheck
from dataset_guard.sidecars.manifest import FileEntry, file_digest
from guard_core.errors import Tampered

ROWS = BLOCK_ROWS + 100


def table(rows=ROWS):
    return pa.table(
        {
            "x": np.arange(rows, dtype=np.float64),
            "name": [f"n{i % 97}" for i in range(rows)],
            "label": np.arange(rows, dtype=np.int64) % 3,
        }
    )


def block(data, number):
    return data.slice(number * BLOCK_ROWS, BLOCK_ROWS).combine_chunks().to_batches()[0]


@pytest.fixture(scope="module")
def signed():
    fingerprinter = Fingerprinter(table().schema)
    for batch in table().to_batches():
        fingerprinter.update(batch)
    return fingerprinter.finish()


@pytest.fixture(scope="module")
def check(signed):
    return BlockCheck.trusted(
        ref="acme/x@1",
        columns=[(c.name, c.type) for c in signed.columns],
        rows=signed.rows,
        leaves=signed.leaves,
        fingerprint=signed.fingerprint,
        files=[FileEntry("x.parquet", "0" * 64, 1, ROWS)],
    )


def changed(column, row, value):
    data = table()
    values = data[column].to_pylist()
    values[row] = value
    return data.set_column(data.schema.get_field_index(column), column, pa.array(values, data[column].type))


def test_unchanged_blocks_pass_in_any_column_order(check):
    data = table().select(["label", "x", "name"])
    for number in range(check.blocks):
        check.check(number, block(data, number))
    check.complete(2)


def test_one_changed_cell_names_its_file_block_and_column(check):
    tampered = block(changed("label", BLOCK_ROWS + 5, 2), 1)
    with pytest.raises(
        Tampered, match=r"x\.parquet, block 1 \(rows 65,536 to 65,635\) differs in column 'label'"
    ):
        check.check(1, tampered)


def test_a_block_in_another_blocks_place_is_found(check):
    rows = table().slice(BLOCK_ROWS, 100)
    swapped = pa.concat_tables([rows, table().slice(100, BLOCK_ROWS - 100)]).combine_chunks().to_batches()[0]
    with pytest.raises(Tampered, match=r"block 0 .* differs in column 'label' and 2 more"):
        check.check(0, swapped)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (table().drop_columns("name"), "lacks column 'name'"),
        (table().append_column("extra", pa.array([0] * ROWS)), "has column 'extra', which was not signed"),
        (
            table().set_column(0, "x", table()["x"].cast("float32")),
            "column 'x' as float32 where float64 was signed",
        ),
    ],
)
def test_another_schema_is_tampering_and_says_which_column(check, data, said):
    with pytest.raises(Tampered, match=said):
        check.check(0, block(data, 0))


def test_added_and_removed_rows_are_found_even_at_the_end(check):
    longer = table(ROWS + 1)
    with pytest.raises(Tampered, match="has 101 rows where 100 were signed"):
        check.check(1, block(longer, 1))
    with pytest.raises(Tampered, match=r"block 2 .* rows were added at the end"):
        check.check(2, block(table(), 1))
    with pytest.raises(Tampered, match=r"block 1 .* is missing: rows were removed at the end"):
        check.complete(1)


def test_some_columns_are_checked_alone(check):
    some = check.of_columns(["label", "x"])
    some.check(1, block(table().select(["x", "label"]), 1))
    with pytest.raises(Tampered, match="differs in column 'x'"):
        some.check(1, block(changed("x", ROWS - 1, -1.0).select(["x", "label"]), 1))


def test_a_column_the_version_lacks_is_named(check):
    with pytest.raises(KeyError, match="nope"):
        check.of_columns(["x", "nope"])


def test_changed_leaves_do_not_give_the_signed_fingerprint(signed):
    forged = signed.leaves.copy()
    forged[1, 0, 0] ^= 1
    columns = [(c.name, c.type) for c in signed.columns]
    for leaves, rows in ((forged, ROWS), (signed.leaves[:1], ROWS), (signed.leaves, ROWS - 1)):
        with pytest.raises(Tampered, match="do not give its signed fingerprint"):
            BlockCheck.trusted(
                ref="acme/x@1", columns=columns, rows=rows, leaves=leaves, fingerprint=signed.fingerprint
            )


def test_a_part_of_the_blocks_is_checked_under_its_own_numbers(check):
    last = check.of_blocks(1, 2)
    assert last.leaves.shape == (1, 3, 32)
    last.check(1, block(table(), 1))
    last.complete(2)
    with pytest.raises(Tampered, match=r"block 1 .* differs in column 'label'"):
        last.check(1, block(changed("label", ROWS - 1, 9), 1))


def test_a_check_travels_to_another_process(check):
    there = pickle.loads(pickle.dumps(check))
    there.check(1, block(table(), 1))


def test_of_several_files_in_a_block_the_changed_one_is_named(check, tmp_path):
    names = ("a.parquet", "b.parquet", "c.parquet")
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    rows = dict(zip(names, (40_000, 20_000, 5_636), strict=True))
    entries = [FileEntry(name, file_digest(tmp_path / name), 9, rows[name]) for name in names]
    several = replace(check, files=tuple(entries), path=tmp_path)
    assert several.place(0) == "a.parquet, b.parquet, c.parquet"
    assert several.place(1) == "c.parquet"
    (tmp_path / "b.parquet").write_bytes(b"B.parquet")
    assert several.place(0) == "b.parquet"
