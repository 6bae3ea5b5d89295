"""What is kept beside a record reads back as it was written."""

import fcntl
import multiprocessing
import os

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_guard.hashing.hash_store import HashStore, forget, joined
from dataset_guard.hashing.merkle import merkle_root
from dataset_guard.hashing.rowkeys import tenant_row_key
from dataset_guard.registration.staging import Staging, sweep
from dataset_guard.sidecars.leaves import read_leaves, write_leaves
from dataset_guard.sidecars.manifest import FileEntry, compare, file_digest, file_digests, file_of_row
from dataset_guard.sidecars.rowstore import Sidecar, write_sidecar
from guard_core.errors import UserError
from guard_core.testing import temporary_home

FORK = multiprocessing.get_context("fork")


def hashes(rows, seed=1):
    return np.random.default_rng(seed).integers(0, 2**64, (rows, 2), dtype=np.uint64)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (40, 7)])
def test_leaves_keep_their_shape(tmp_path, shape):
    leaves = np.random.default_rng(1).integers(0, 256, (*shape, 32)).astype(np.uint8)
    write_leaves(tmp_path / "leaves.arrow", leaves)
    found = read_leaves(tmp_path / "leaves.arrow")
    assert found.shape == leaves.shape
    assert (found == leaves).all()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 400), st.booleans(), st.integers(0, 2**32))
def test_a_sidecar_gives_hashes_in_row_order_and_sorted(tmp_path_factory, rows, labelled, seed):
    path = tmp_path_factory.mktemp("sidecar") / "rows.arrow"
    keyed = hashes(rows, seed) % np.uint64(50)  # many equal hashes
    features = hashes(rows, seed + 1) if labelled else None
    write_sidecar(path, keyed, features)
    sidecar = Sidecar(path)
    assert (sidecar.hashes() == keyed).all()
    assert sidecar.sorted_hashes().tolist() == sorted(keyed.tolist())
    if labelled:
        assert (sidecar.features() == features).all()
    elif rows:
        assert sidecar.features() is None
    assert (sidecar.window(rows // 3, 10) == keyed[rows // 3 : rows // 3 + 10]).all()


@pytest.mark.parametrize("memory_rows", [0, 1_000, 4_900, 10_000])
def test_a_store_that_outgrows_memory_gives_the_same_hashes(memory_rows):
    store = HashStore(memory_bytes=16 * memory_rows)
    keyed = hashes(5_000)
    for start in range(0, 5_000, 300):
        store.add(keyed[start : start + 300])
    assert np.array_equal(store.all(), keyed)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_sidecar_written_range_by_range_is_the_one_written_at_once(tmp_path, monkeypatch, labelled):
    keyed = np.concatenate([hashes(5_000), hashes(200)])  # 200 rows occur twice
    store = HashStore(rows=len(keyed), memory_bytes=1_000)
    store.add(keyed)
    features = hashes(len(keyed), 2) if labelled else None
    write_sidecar(tmp_path / "once.arrow", keyed, features)
    monkeypatch.setattr("dataset_guard.sidecars.rowstore._SORT_ROWS", 700)
    write_sidecar(tmp_path / "ranges.arrow", store.all(), features)
    once, ranges = (read_table(tmp_path / f"{name}.arrow") for name in ("once", "ranges"))
    assert ranges.equals(once)


def read_table(path):
    with pa.ipc.open_file(path) as reader:
        return reader.read_all()


def test_a_store_that_knows_its_rows_maps_them_as_one_array_without_a_copy():
    store = HashStore(rows=5_000, memory_bytes=1_000)
    keyed = hashes(5_000)
    parts = [store.add(keyed[start : start + 300]) for start in range(0, 5_000, 300)]
    whole = joined(parts)
    assert isinstance(whole, np.memmap)
    assert np.shares_memory(whole, parts[3])
    assert np.array_equal(whole, keyed)
    forget(whole)
    assert np.array_equal(whole, keyed)


def test_arrays_joined_beyond_the_memory_bound_are_mapped():
    parts = [hashes(300, seed) for seed in range(3)]
    whole = joined(parts, memory_bytes=1_000)
    assert isinstance(whole, np.memmap)
    assert np.array_equal(whole, np.concatenate(parts))


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40))
def test_the_tree_is_the_one_of_rfc_6962(leaves):
    from blake3 import blake3

    def root(nodes):
        if len(nodes) == 1:
            return nodes[0]
        split = 1 << ((len(nodes) - 1).bit_length() - 1)
        return blake3(b"dg1:node\0" + root(nodes[:split]) + root(nodes[split:])).digest()

    assert merkle_root(leaves) == root(leaves)


def test_a_manifest_tells_missing_extra_and_different_files_apart(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.csv").write_text(f"x\n{name}\n")
    entries = [
        FileEntry(f"{n}.csv", file_digest(tmp_path / f"{n}.csv"), (tmp_path / f"{n}.csv").stat().st_size, 1)
        for n in "abc"
    ]
    assert not compare(entries, tmp_path)
    (tmp_path / "a.csv").unlink()
    (tmp_path / "b.csv").write_text("x\nB\n")
    (tmp_path / "d.csv").write_text("x\nd\n")
    (tmp_path / "_SUCCESS").touch()
    changes = compare(entries, tmp_path)
    assert (changes.missing, changes.different, changes.extra) == (("a.csv",), ("b.csv",), ("d.csv",))


def test_a_row_belongs_to_the_file_that_holds_it():
    entries = [FileEntry("a", "", 0, 10), FileEntry("b", "", 0, 0), FileEntry("c", "", 0, 5)]
    assert [file_of_row(entries, row) for row in (0, 9, 10, 14, 99)] == ["a", "a", "c", "c", "c"]
    assert file_of_row([], 0) is None


def test_a_tenant_keeps_its_row_key_and_nobody_else_reads_it():
    with temporary_home() as home:
        key = tenant_row_key(home, "acme")
        assert tenant_row_key(home, "acme") == key
        assert tenant_row_key(home, "beta") != key
        path = home.path("keys", "acme.rowkey")
        assert path.stat().st_mode & 0o777 == 0o600
        path.write_text("12")
        with pytest.raises(UserError, match="1 bytes instead of 32"):
            tenant_row_key(home, "acme")
        path.write_text("not hex")
        with pytest.raises(UserError, match="restore it from a backup"):
            tenant_row_key(home, "acme")


def _stage_and_die(root):
    Staging.make(root)
    os._exit(9)


def test_a_dead_processes_staging_is_swept_and_a_living_ones_is_not(tmp_path):
    process = FORK.Process(target=_stage_and_die, args=(tmp_path,))
    process.start()
    process.join()
    [dead] = [p.name for p in tmp_path.iterdir()]
    living = Staging.make(tmp_path)
    assert sweep(tmp_path) == [dead]
    assert living.folder.exists()
    living.release()
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_spares_a_folder_that_is_just_being_made(tmp_path, monkeypatch):
    lock, swept = fcntl.flock, []

    def swept_before(handle, how):
        if how == fcntl.LOCK_EX:  # the maker's; a sweep's own does not wait
            swept.append(sweep(tmp_path))
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", swept_before)
    staging = Staging.make(tmp_path)
    assert swept == [[]]
    assert staging.folder.is_dir()
    staging.release()


def test_staging_is_never_published_over_a_version(tmp_path):
    staging = Staging.make(tmp_path / "staging")
    (tmp_path / "1").mkdir()
    with pytest.raises(FileExistsError):
        staging.publish(tmp_path / "1")
    staging.publish(tmp_path / "2")
    staging.release()
    assert list((tmp_path / "2").iterdir()) == []


def test_row_hashes_of_no_rows():
    from dataset_guard.hashing.rowhash import row_hashes

    assert row_hashes(pa.record_batch({"a": pa.array([], pa.int64())}), key=None).shape == (0, 2)


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_many_files_have_the_digests_of_each_alone_in_their_order(tmp_path, count):
    files = [tmp_path / f"{i}.bin" for i in range(count)]
    for i, file in enumerate(files):
        file.write_bytes(bytes([i]) * (i * 70_000))  # the largest go through a memory map
    assert file_digests(files) == [file_digest(file) for file in files]


def test_a_file_that_cannot_be_read_is_named_among_many(tmp_path):
    files = [tmp_path / f"{i}.bin" for i in range(40)]
    for file in files:
        file.write_bytes(b"x")
    files[7].unlink()
    with pytest.raises(UserError, match=r"7\.bin cannot be read"):
        file_digests(files)
