"""The tree of row proofs, against a plain implementation written from docs/row-proofs.md."""

import itertools

import numpy as np
import pytest
from blake3 import blake3

from dataset_guard.proofs.rowtree import find, path_to, root_of, rows_root, rows_root_of

GAP = blake3(derive_key_context="trainguard 2026-11 row proof gap").digest()
NODE = blake3(derive_key_context="trainguard 2026-11 row proof node").digest()


def hashes_of(rows, seed=3, *, repeated=0):
    found = np.random.default_rng(seed).integers(0, 2**64, (rows, 2), dtype=np.uint64)
    if repeated:
        found[-repeated:] = found[:repeated]
    return found


def as_bytes(hashes):
    return sorted(int(hi).to_bytes(8, "big") + int(lo).to_bytes(8, "big") for hi, lo in hashes)


def leaf(left, right):
    kind = bytes([(left is None) + 2 * (right is None)])
    return blake3((left or bytes(16)) + (right or bytes(16)) + kind, key=GAP).digest()


def root_by_recursion(leaves):
    """MTH of RFC 6962, 2.1: split at the largest power of two below the size."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return blake3(root_by_recursion(leaves[:half]) + root_by_recursion(leaves[half:]), key=NODE).digest()


def reference_root(hashes):
    ordered = [None, *as_bytes(hashes), None]
    return root_by_recursion([leaf(a, b) for a, b in itertools.pairwise(ordered)])


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 7, 8, 100, 1000])
def test_the_root_is_the_specified_one(rows):
    assert rows_root_of(hashes_of(rows)) == reference_root(hashes_of(rows))


def test_repeated_rows_are_kept():
    hashes = hashes_of(50, repeated=9)
    assert rows_root_of(hashes) == reference_root(hashes) != rows_root_of(hashes[:41])


@pytest.mark.parametrize("rows", [65_535, 65_536, 131_073])
def test_the_root_over_several_chunks_is_the_specified_one(rows):
    assert rows_root_of(hashes_of(rows)) == reference_root(hashes_of(rows))


def test_the_root_does_not_depend_on_the_pieces():
    hashes = hashes_of(70_000)
    ordered = hashes[np.lexsort((hashes[:, 1], hashes[:, 0]))]
    whole = rows_root([ordered])
    for cut in (1, 65_535, 65_536, 69_999):
        assert rows_root([ordered[:cut], ordered[cut:]]) == whole


@pytest.mark.parametrize("rows", [0, 1, 2, 5, 100, 65_536, 70_000])
def test_every_kind_of_hash_has_a_path_that_leads_to_the_root(rows):
    hashes = hashes_of(rows)
    ordered = hashes[np.lexsort((hashes[:, 1], hashes[:, 0]))]
    known = as_bytes(hashes)
    asked = [bytes(16), b"\xff" * 16, b"\x80" + bytes(15), *known[:3], *known[-3:], *known[rows // 2 :][:1]]
    for wanted in asked:
        place, root = path_to(ordered, wanted)
        assert root == reference_root(hashes) if rows < 1000 else root == rows_root([ordered])
        assert root_of(b"".join(place.siblings), place.gap.digest(), place.index, rows + 1) == root
        assert place.gap.says(wanted) is (wanted in known)


def test_hashes_that_share_their_first_half_are_told_apart():
    ordered = np.array([[7, 1], [7, 5], [7, 9]], np.uint64)
    for lo, present in ((0, False), (1, True), (3, False), (5, True), (9, True), (10, False)):
        wanted = (7).to_bytes(8, "big") + lo.to_bytes(8, "big")
        assert find(ordered, wanted)[0].says(wanted) is present


def test_a_path_fits_one_place_of_one_tree_only():
    hashes = hashes_of(1000)
    ordered = hashes[np.lexsort((hashes[:, 1], hashes[:, 0]))]
    place, root = path_to(ordered, as_bytes(hashes)[500])
    digest, packed = place.gap.digest(), b"".join(place.siblings)
    assert root_of(packed, digest, place.index, 1001) == root
    assert root_of(packed, digest, place.index + 1, 1001) != root
    assert root_of(packed[:-32], digest, place.index, 1001) is None
    assert root_of(packed + bytes(32), digest, place.index, 1001) is None
    assert root_of(packed[:-1], digest, place.index, 1001) is None
    assert root_of(packed, digest, -1, 1001) is None
    assert root_of(packed, digest, 1001, 1001) is None
