"""Public row hashes are kept so that their tenant can read them and nobody else, and for ever."""

import json
from pathlib import Path

import numpy as np
import pytest

from dataset_guard.hashing.rowset import SetRoot, inserted, sorted_run
from dataset_guard.sidecars import sealed_rows
from dataset_guard.sidecars.sealed_rows import MAGIC, SealedRows, seal
from guard_core.errors import Tampered

KEY = bytes(range(32))
GOLDEN = Path(__file__).parents[2] / "golden" / "v1" / "rows-sealed.json"


def hashes(rows, seed=1, most=2**64):
    return sorted_run([np.random.default_rng(seed).integers(0, most, (rows, 2), dtype=np.uint64)])


def unseal(path, *, key):
    sealed = SealedRows.of(path, key=key)
    found = np.concatenate([np.empty((0, 2), np.uint64), *sealed.pieces()])
    assert len(found) == sealed.rows
    return found


@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_what_was_sealed_in_pieces_is_read_as_one(tmp_path, rows):
    public = hashes(rows)
    seal(tmp_path / "s", [public[:300], public[300:]], key=KEY)
    assert np.array_equal(unseal(tmp_path / "s", key=KEY), public)


def test_without_the_key_no_hash_can_be_looked_up(tmp_path):
    public = hashes(1000)
    seal(tmp_path / "s", [public], key=KEY)
    raw = (tmp_path / "s").read_bytes()
    assert not any(row.astype("<u8").tobytes()[:8] in raw for row in public)
    assert not np.array_equal(unseal(tmp_path / "s", key=bytes(32)), public)


def test_two_sealings_of_the_same_hashes_share_nothing(tmp_path):
    for name in ("a", "b"):
        seal(tmp_path / name, [hashes(1000)], key=KEY)
    first, second = ((tmp_path / name).read_bytes()[len(MAGIC) :] for name in ("a", "b"))
    assert not any(first[at : at + 16] == second[at : at + 16] for at in range(0, len(first), 16))


def test_a_file_of_another_kind_is_not_read(tmp_path):
    (tmp_path / "s").write_bytes(b"something else")
    with pytest.raises(Tampered, match="does not hold sealed row hashes"):
        unseal(tmp_path / "s", key=KEY)


@pytest.mark.parametrize("most", [2**64, 40])
@pytest.mark.parametrize("few", [0, 1, 60])
def test_a_few_hashes_join_many_in_order_repeats_and_all(few, most):
    a, b = hashes(900, 1, most), hashes(few, 2, most)
    assert np.array_equal(inserted(a, b), sorted_run([a, b]))


@pytest.mark.parametrize("most", [2**64, 40])
@pytest.mark.parametrize("new", [0, 1, 60, 2000])
def test_the_set_root_of_kept_and_new_hashes_is_that_of_all(tmp_path, monkeypatch, new, most):
    monkeypatch.setattr(sealed_rows, "_PIECE", 16 * 37)
    old, fresh = hashes(900, 1, most), np.random.default_rng(2).integers(0, most, (new, 2), dtype=np.uint64)
    if most == 40:
        old[:, 1], fresh[:, 1] = old[:, 1] % 3, fresh[:, 1] % 3
        old = sorted_run([old])
    seal(tmp_path / "s", [old], key=KEY)
    known, whole = SetRoot(["a"]), SetRoot(["a"])
    known.add_kept(SealedRows.of(tmp_path / "s", key=KEY))
    kept = []
    for part in np.array_split(fresh, 3):
        known.add(part)
    for part in (old, fresh):
        whole.add(part)
    assert known.finish(kept.append) == whole.finish()
    assert np.array_equal(np.concatenate(kept), sorted_run([old, fresh]))


def test_sealed_hashes_of_an_earlier_release_are_still_read(tmp_path):
    golden = json.loads(GOLDEN.read_text())
    (tmp_path / "s").write_bytes(bytes.fromhex(golden["file"]))
    found = unseal(tmp_path / "s", key=bytes.fromhex(golden["key"]))
    assert [[f"{hi:016x}", f"{lo:016x}"] for hi, lo in found.tolist()] == golden["hashes"]
    seal(tmp_path / "again", [found], key=bytes.fromhex(golden["key"]), nonce=bytes.fromhex(golden["nonce"]))
    assert (tmp_path / "again").read_bytes().hex() == golden["file"]
