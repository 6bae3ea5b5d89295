"""Blocks that are not read again: only what the signed record and the files' hashes vouch for."""

import os
import shutil
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from registered import table

import dataset_guard
from dataset_guard.hashing.fingerprint import BLOCK_ROWS
from dataset_guard.reading import open_source
from dataset_guard.scanning.identity import BlockRange, identify, split
from dataset_guard.sidecars.known import known_of_base
from guard_core.errors import Denied, UserError
from guard_core.testing import temporary_home

ROWS = 3 * BLOCK_ROWS + 500
DATA = table(ROWS)
CUTS = (0, BLOCK_ROWS, BLOCK_ROWS + 700, 3 * BLOCK_ROWS, ROWS)


def write(folder, data=DATA, cuts=CUTS):
    folder.mkdir(exist_ok=True)
    for i in range(len(cuts) - 1):
        pq.write_table(data.slice(cuts[i], cuts[i + 1] - cuts[i]), folder / f"{i}.parquet")


@pytest.fixture(scope="module")
def home():
    """One for all tests here: none of them changes it."""
    with temporary_home() as opened:
        yield opened


@pytest.fixture(scope="module")
def original(tmp_path_factory, home):
    """The registered folder, which stays as it is."""
    folder = tmp_path_factory.mktemp("known") / "set"
    write(folder)
    dataset_guard.register(folder, name="set", tenant="acme", home=home, checks=["schema"])
    return folder


@pytest.fixture
def folder(tmp_path, original):
    """A copy of it, to be changed."""
    return shutil.copytree(original, tmp_path / "set")


def known(folder, home):
    return known_of_base(open_source(folder), "acme/set@1", home=home)


def both(folder, home):
    """(fingerprint with the base's help, without)."""
    helped = dataset_guard.fingerprint(folder, base="acme/set@1", home=home)
    return helped.fingerprint, dataset_guard.fingerprint(folder, set_root=False).fingerprint


def test_an_append_reads_the_tail_only(folder, home):
    pq.write_table(table(300, seed=9), folder / "4.parquet")
    assert known(folder, home).mask.tolist() == [True, True, True, False]
    assert known(folder, home).missing() == [BlockRange(3, None)]
    a, b = both(folder, home)
    assert a == b


def test_an_unchanged_set_is_known_to_the_last_row(folder, home):
    assert known(folder, home).mask.all()
    assert both(folder, home)[0] == both(folder, home)[1]


def test_one_changed_file_costs_the_blocks_that_touch_it(folder, home):
    changed = DATA.slice(CUTS[1], CUTS[2] - CUTS[1]).to_pydict()
    changed["label"][5] += 1
    pq.write_table(pa.table(changed, schema=DATA.schema), folder / "1.parquet")
    assert known(folder, home).mask.tolist() == [True, False, True, True]
    a, b = both(folder, home)
    assert a == b


def test_the_same_rows_at_another_place_are_read(folder, home):
    pq.write_table(DATA.slice(0, 1), folder / "-first.parquet")
    assert known(folder, home) is None
    a, b = both(folder, home)
    assert a == b


def test_a_renamed_file_is_known_and_a_touched_clock_proves_nothing(folder, home):
    (folder / "3.parquet").rename(folder / "9.parquet")
    assert known(folder, home).mask.all()
    stat = (folder / "0.parquet").stat()
    raw = bytearray((folder / "0.parquet").read_bytes())
    raw[1000] ^= 1
    (folder / "0.parquet").write_bytes(raw)
    os.utime(folder / "0.parquet", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not known(folder, home).mask[0]


def test_another_schema_is_not_known(folder, home):
    narrow = pq.read_table(folder / "0.parquet").select(["x", "name"])
    write(folder, narrow.slice(0, 10), (0, 10, 10, 10, 10)[:2])
    for i in range(1, 4):
        (folder / f"{i}.parquet").unlink()
    assert known(folder, home) is None


def test_another_tenants_version_is_no_base(folder, home, tmp_path):
    with pytest.raises((Denied, UserError)):
        dataset_guard.fingerprint(folder, base="acme/set@1", tenant="nobody", home=home)


def test_verification_reads_only_blocks_of_changed_files_and_still_names_the_rows(folder, home, monkeypatch):
    changed = pq.read_table(folder / "3.parquet")
    labels = changed.column("label").to_numpy().copy()
    labels[[3, 7]] += 1
    pq.write_table(changed.set_column(2, "label", pa.array(labels)), folder / "3.parquet")
    found = dataset_guard.verify("acme/set@1", path=folder, home=home)
    [change] = found.changes
    assert (change.file, change.block, change.column) == ("3.parquet", 3, "label")
    assert list(change.rows) == [3 * BLOCK_ROWS + 3, 3 * BLOCK_ROWS + 7]


def test_a_re_encoded_file_is_the_same_content(folder, home):
    pq.write_table(pq.read_table(folder / "2.parquet"), folder / "2.parquet", compression="zstd")
    found = dataset_guard.verify("acme/set@1", path=folder, home=home)
    assert found.ok
    assert found.decoded


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_give_the_roots_and_hashes_of_one(folder, threads):
    key = bytes(range(32))
    one = identify(open_source(folder), row_key=key)
    many = identify(open_source(folder), row_key=key, threads=threads)
    assert many.fingerprint.to_json() == one.fingerprint.to_json()
    assert np.array_equal(many.rows, one.rows)


def test_ranges_are_whole_blocks_and_cover_everything_once():
    source = open_source(DATA)
    for parts in (1, 2, 3, 4, 50):
        ranges = split(source, parts)
        assert ranges[0].first == 0
        assert ranges[-1].end is None
        assert all(a.end == b.first for a, b in pairwise(ranges))
        assert len(ranges) == min(parts, 4)


def test_known_blocks_have_no_row_hashes(folder, home):
    source = open_source(folder)
    with pytest.raises(ValueError, match="not known"):
        identify(source, row_key=bytes(32), known=known(folder, home))
    leaves_alone = known_of_base(source, "acme/set@1", set_root=False, home=home)
    with pytest.raises(ValueError, match="not known"):
        identify(source, known=leaves_alone)


def test_an_append_has_the_set_root_too(folder, home):
    pq.write_table(table(300, seed=9), folder / "4.parquet")
    helped = dataset_guard.fingerprint(folder, base="acme/set@1", home=home)
    alone = dataset_guard.fingerprint(folder)
    assert (helped.set_root, helped.fingerprint) == (alone.set_root, alone.fingerprint)
    threads = dataset_guard.fingerprint(folder, base="acme/set@1", threads=2, home=home)
    assert threads.set_root == alone.set_root


def test_a_file_that_moved_keeps_its_rows_in_the_set_root(folder, home):
    (folder / "1.parquet").rename(folder / "8.parquet")
    pq.write_table(DATA.slice(CUTS[1], 5), folder / "9.parquet")  # rows that are there twice now
    helped = dataset_guard.fingerprint(folder, base="acme/set@1", home=home)
    assert helped.set_root == dataset_guard.fingerprint(folder).set_root


def test_with_a_file_gone_there_is_no_set_root(folder, home):
    (folder / "3.parquet").unlink()
    helped = dataset_guard.fingerprint(folder, base="acme/set@1", home=home)
    assert helped.set_root is None
    assert helped.fingerprint == dataset_guard.fingerprint(folder, set_root=False).fingerprint
