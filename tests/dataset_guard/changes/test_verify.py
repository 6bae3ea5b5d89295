"""Every change of content is found and named; no re-encoding is; a changed record is never believed."""

import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

import dataset_guard
from dataset_guard.registry import record as records
from dataset_guard.registry.store import Registry
from guard_core.errors import Tampered, UserError
from guard_core.testing import temporary_home

ROWS = 140_000
RNG = np.random.default_rng(11)
TABLE = pa.table(
    {
        "n": pa.array(range(ROWS), pa.int64()),
        "x": pa.array(RNG.normal(size=ROWS).round(5), mask=RNG.random(ROWS) < 0.02),
        "flag": RNG.random(ROWS) < 0.5,
        "text": [None if i % 91 == 0 else f"text {i % 3_001}" for i in range(ROWS)],
        "at": pa.array(range(ROWS), pa.timestamp("ms")),
        "vec": pa.array([[i, i + 1] for i in range(ROWS)], pa.list_(pa.float32())),
        "label": RNG.integers(0, 4, ROWS),
    }
)
PARTS = (50_000, 90_000)  # rows of two files


def write_parts(folder, table, options=None):
    folder.mkdir(exist_ok=True)
    pq.write_table(table.slice(0, PARTS[0]), folder / "a.parquet", **(options or {}))
    pq.write_table(table.slice(PARTS[0]), folder / "b.parquet", **(options or {}))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A home with TABLE registered from a folder of two files."""
    root = tmp_path_factory.mktemp("world")
    write_parts(root / "data", TABLE)
    with temporary_home() as home:
        dataset_guard.register(root / "data", name="set", tenant="acme", label="label", home=home, checks=[])
        yield home, root / "data"


@pytest.fixture
def copy(world, tmp_path):
    home, folder = world
    return home, shutil.copytree(folder, tmp_path / "data")


def verify(home, path=None):
    return dataset_guard.verify("set@1", path=path, tenant="acme", home=home)


def replaced(table, column, values):
    at = table.schema.get_field_index(column)
    return table.set_column(at, column, pa.array(values, table.schema.field(column).type))


def with_value(table, column, row, value):
    values = table.column(column).to_pylist()
    values[row] = value
    return replaced(table, column, values)


def test_unchanged_files_need_no_decoding(copy):
    found = verify(*copy)
    assert found.ok
    assert not found.decoded


CELLS = {
    "an integer": ("n", 139_999, -1, "b.parquet", 2),
    "a float": ("x", 60_000, 123.5, "b.parquet", 0),
    "a float made null": ("x", 70_001, None, "b.parquet", 1),
    "a boolean": ("flag", 3, None, "a.parquet", 0),
    "a text": ("text", 49_999, "other", "a.parquet", 0),
    "an empty text for null": ("text", 91, "", "a.parquet", 0),
    "a timestamp": ("at", 65_536, 7, "b.parquet", 1),
    "a list item": ("vec", 65_535, [0.0, 0.0], "b.parquet", 0),
    "a list made shorter": ("vec", 10, [10.0], "a.parquet", 0),
    "a label": ("label", 100_000, 9, "b.parquet", 1),
}


@pytest.mark.parametrize("case", sorted(CELLS))
def test_one_changed_cell_names_file_block_column_and_row(copy, case):
    home, folder = copy
    column, row, value, file, block = CELLS[case]
    write_parts(folder, with_value(TABLE, column, row, value))
    found = verify(home, folder)
    assert not found.ok
    assert [c.to_json() for c in found.changes] == [
        {"file": file, "block": block, "column": column, "rows": [row]}
    ]


def test_changes_in_several_places_are_all_named(copy):
    home, folder = copy
    changed = with_value(with_value(TABLE, "n", 5, -1), "label", 100_000, 9)
    write_parts(folder, with_value(changed, "label", 49_998, 9))
    found = {(c.file, c.block, c.column): c.rows.to_json() for c in verify(home, folder).changes}
    # A block's rows are told for each of its changed columns: hashes are of whole rows.
    assert found == {
        ("a.parquet", 0, "n"): [5, 49_998],
        ("a.parquet", 0, "label"): [5, 49_998],
        ("b.parquet", 1, "label"): [100_000],
    }


def swap_rows(table):
    order = np.arange(ROWS)
    order[[10, 100_000]] = [100_000, 10]
    return table.take(pa.array(order))


WHOLE = {
    "two rows swapped": swap_rows,
    "rows permuted": lambda t: t.take(pa.array(np.random.default_rng(2).permutation(ROWS))),
    "a row removed": lambda t: pa.concat_tables([t.slice(0, 70_000), t.slice(70_001)]),
    "a row doubled": lambda t: pa.concat_tables([t.slice(0, 70_000), t.slice(69_999)]),
    "a row added at the end": lambda t: pa.concat_tables([t, t.slice(0, 1)]),
    "the last row removed": lambda t: t.slice(0, ROWS - 1),
    "a column removed": lambda t: t.drop_columns(["flag"]),
    "a column added": lambda t: t.append_column("extra", pa.array(range(ROWS))),
    "a column renamed": lambda t: t.rename_columns(["m", *t.column_names[1:]]),
    "two columns' names swapped": lambda t: t.rename_columns(["label", *t.column_names[1:-1], "n"]),
    "a narrower integer": lambda t: replaced(t.set_column(6, "label", t["label"].cast("int8")), "n", t["n"]),
    "another unit of time": lambda t: t.set_column(4, "at", t["at"].cast(pa.timestamp("us"))),
    "labels shifted": lambda t: replaced(t, "label", np.roll(t["label"].to_numpy(), 1)),
    "no rows": lambda t: t.slice(0, 0),
}


@pytest.mark.parametrize("case", sorted(WHOLE))
def test_a_change_of_the_whole_table_is_found(copy, case):
    home, folder = copy
    write_parts(folder, WHOLE[case](TABLE))
    found = verify(home, folder)
    assert not found.ok
    assert found.changes
    assert found.problems


def test_swapped_rows_are_named_where_they_are_now(copy):
    home, folder = copy
    write_parts(folder, swap_rows(TABLE))
    assert {row for c in verify(home, folder).changes for row in c.rows} == {10, 100_000}


def rename(folder):
    (folder / "a.parquet").rename(folder / "c.parquet")


def swap(folder):
    (folder / "a.parquet").rename(folder / "x")
    (folder / "b.parquet").rename(folder / "a.parquet")
    (folder / "x").rename(folder / "b.parquet")


def flip_a_byte(folder):
    raw = bytearray((folder / "b.parquet").read_bytes())
    raw[len(raw) // 3] ^= 1
    (folder / "b.parquet").write_bytes(raw)


FILES = {
    "a file missing": (lambda f: (f / "a.parquet").unlink(), "a.parquet is missing"),
    "a file added": (
        lambda f: shutil.copy(f / "a.parquet", f / "c.parquet"),
        "grew by c.parquet (the bytes of a.parquet again)",
    ),
    "a file renamed past the other": (rename, "c.parquet was added, with the bytes of a.parquet"),
    "two files swapped": (swap, "a.parquet has other bytes than were registered, those of b.parquet"),
    "a byte flipped": (flip_a_byte, "b.parquet"),
    "a file cut short": (lambda f: os.truncate(f / "b.parquet", 5_000), "b.parquet"),
    "a file emptied": (lambda f: os.truncate(f / "b.parquet", 0), "b.parquet"),
}


@pytest.mark.parametrize("case", sorted(FILES))
def test_a_change_of_files_is_found_and_the_file_named(copy, case):
    home, folder = copy
    change, said = FILES[case]
    change(folder)
    found = verify(home, folder)
    assert not found.ok
    assert said in " ".join(found.problems)


def test_rows_past_the_registered_end_are_in_the_file_that_holds_them(copy):
    home, folder = copy
    pq.write_table(TABLE.slice(0, 70), folder / "c.parquet")
    pq.write_table(TABLE.slice(0, 30), folder / "d.parquet")
    found = verify(home, folder)
    assert found.grown
    rows = {(change.file, tuple(change.rows.ranges)) for change in found.changes if change.column == "n"}
    end = ROWS + 70
    assert rows == {("c.parquet", ((ROWS, end - 1),)), ("d.parquet", ((end, end + 29),))}


def test_a_rollback_to_an_older_version_is_called_so(tmp_path):
    with temporary_home() as home:
        path = tmp_path / "t.csv"
        for cells in ("1,0\n2,1\n", "1,0\n2,1\n3,1\n"):
            path.write_text("a,label\n" + cells)
            dataset_guard.register(path, name="set", tenant="acme", home=home, checks=["schema"])
        path.write_text("a,label\n1,0\n2,1\n")
        found = dataset_guard.verify("acme/set@2", home=home)
        assert found.problems[0] == "the data was rolled back to that of acme/set@1"
        path.write_text("a,label\n1,0\n2,1\n3,1\n")
        found = dataset_guard.verify("acme/set@1", home=home)
        assert found.problems[0] == "the data was replaced by that of acme/set@2"


def test_a_rewrite_that_keeps_size_and_time_is_found(tmp_path):
    with temporary_home() as home:
        path = tmp_path / "t.csv"
        path.write_text("a,label\n1,0\n2,1\n")
        dataset_guard.register(path, name="set", tenant="acme", home=home, checks=[])
        before = path.stat()
        with path.open("r+") as file:
            file.write("a,label\n1,1\n2,1\n")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = path.stat()
        assert (before.st_size, before.st_mtime_ns, before.st_ino) == (
            after.st_size,
            after.st_mtime_ns,
            after.st_ino,
        )
        found = verify(home)
        assert [c.to_json() for c in found.changes] == [
            {"file": "t.csv", "block": 0, "column": "label", "rows": [0]}
        ]


ENCODINGS = {
    "zstd": {"compression": "zstd", "row_group_size": 30_000},
    "plain": {"compression": "none", "use_dictionary": False},
    "newer pages": {"data_page_version": "2.0", "compression": "gzip", "compression_level": 1},
    "small pages": {"data_page_size": 4_096, "write_batch_size": 100},
}


@pytest.mark.parametrize("case", sorted(ENCODINGS))
def test_the_same_rows_in_other_bytes_are_no_change(copy, case):
    home, folder = copy
    write_parts(folder, TABLE, ENCODINGS[case])
    found = verify(home, folder)
    assert found.ok
    assert found.decoded
    assert "re-encoded, same content" in found.notes[0]


def test_the_same_rows_in_one_arrow_file_are_no_change(world, tmp_path):
    pa.feather.write_feather(TABLE, tmp_path / "all.arrow")
    assert verify(world[0], tmp_path / "all.arrow").ok


def test_data_that_is_gone_is_not_ok(tmp_path):
    with temporary_home() as home:
        pa.csv.write_csv(TABLE.slice(0, 10).select(["n"]), tmp_path / "t.csv")
        dataset_guard.register(tmp_path / "t.csv", name="set", tenant="acme", home=home, checks=[])
        (tmp_path / "t.csv").unlink()
        found = verify(home)
        assert not found.ok
        assert [c.file for c in found.changes] == ["t.csv"]


def test_a_path_that_is_not_there_is_the_users_mistake(world, tmp_path):
    with pytest.raises(UserError, match="no file or folder"):
        verify(world[0], tmp_path / "none")


def test_a_table_is_no_path(world):
    with pytest.raises(UserError, match=r"compare a table with dataset_guard\.diff"):
        verify(world[0], TABLE)


def test_what_was_found_is_on_record(world):
    verify(world[0])
    last = list(world[0].audit.records(kind="dataset.verified"))[-1]
    assert (last["subject"], last["data"]["ok"]) == ("acme/set@1", True)


# --- the record itself ---------------------------------------------------------------------------


def edit_json(folder, name, change):
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))


def flip_file(folder, name):
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw)


def resign_with_another_key(folder, name):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from guard_core.attestation import Signer

    key = folder / "evil.pem"
    key.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    key.chmod(0o600)
    (folder / "evil-keys").mkdir()
    record = json.loads((folder / records.RECORD).read_text())
    record["verdict"] = "allow"
    signer = Signer.open(folder / "evil-keys", key)
    (folder / records.ENVELOPE).write_text(json.dumps(records.sign(record, signer)))
    (folder / records.RECORD).write_text(json.dumps(record))


FORGERIES = {
    "the readable record": (records.RECORD, lambda f, n: edit_json(f, n, lambda r: r.update(verdict="deny"))),
    "the signed payload": (
        records.ENVELOPE,
        lambda f, n: edit_json(f, n, lambda e: e.update(payload="e30=")),
    ),
    "the signature": (records.ENVELOPE, lambda f, n: edit_json(f, n, lambda e: e["signatures"].clear())),
    "the signer": (records.ENVELOPE, resign_with_another_key),
    "the envelope, removed": (records.ENVELOPE, lambda f, n: (f / n).unlink()),
    "the leaves": (records.LEAVES, flip_file),
    "the row hashes": (records.ROWS, flip_file),
    "the row hashes, removed": (records.ROWS, lambda f, n: (f / n).unlink()),
    "the findings": (records.FINDINGS, flip_file),
    "the manifest": (records.MANIFEST, flip_file),
}


@pytest.mark.parametrize("case", sorted(FORGERIES))
def test_a_forged_record_is_never_believed(tmp_path, case):
    with temporary_home() as home:
        pa.csv.write_csv(TABLE.slice(0, 10).select(["n", "x"]), tmp_path / "t.csv")
        dataset_guard.register(tmp_path / "t.csv", name="set", tenant="acme", home=home, checks=[])
        name, forge = FORGERIES[case]
        forge(Registry(home).get("set@1", tenant="acme").folder, name)
        with pytest.raises(Tampered):
            verify(home)


def test_the_record_of_another_version_is_not_taken(tmp_path):
    with temporary_home() as home:
        for rows in (10, 20):
            pa.csv.write_csv(TABLE.slice(0, rows).select(["n"]), tmp_path / f"{rows}.csv")
            dataset_guard.register(tmp_path / f"{rows}.csv", name="set", tenant="acme", home=home, checks=[])
        first, second = Registry(home).versions("set", tenant="acme")
        for file in second.folder.iterdir():
            shutil.copy(file, first.folder / file.name)
        with pytest.raises(Tampered, match="is the record of acme/set@2, not of acme/set@1"):
            verify(home)
