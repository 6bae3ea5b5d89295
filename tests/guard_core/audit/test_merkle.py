import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard_core.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    inclusion_proof,
    leaf_hash,
    tree_root,
    verify_inclusion,
)

# The entries and roots of the Certificate Transparency reference tests (google/certificate-transparency,
# cpp/merkletree/merkle_tree_test.cc: "test vectors for the RFC 6962 hasher").
ENTRIES = [bytes.fromhex(e) for e in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def recursive_root(leaves: list[bytes]) -> bytes:
    """MTH exactly as RFC 6962 2.1 writes it: split at the largest power of two below n."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + recursive_root(leaves[:split]) + recursive_root(leaves[split:])).digest()


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_the_certificate_transparency_reference(size):
    assert tree_root([leaf_hash(entry) for entry in ENTRIES[:size]]).hex() == ROOTS[size - 1]


def test_the_root_of_nothing_is_the_hash_of_nothing():
    assert tree_root([]) == EMPTY_ROOT == recursive_root([])


@given(st.integers(0, 200))
def test_a_growing_frontier_has_the_root_of_the_definition_at_every_size(size):
    leaves = [leaf_hash(str(i).encode()) for i in range(size)]
    assert tree_root(leaves) == recursive_root(leaves)


@given(st.data())
def test_a_frontier_taken_up_again_grows_as_if_never_put_down(data):
    leaves = [leaf_hash(str(i).encode()) for i in range(data.draw(st.integers(0, 100)))]
    cut = data.draw(st.integers(0, len(leaves)))
    first = Frontier()
    for leaf in leaves[:cut]:
        first.add(leaf)
    second = Frontier(first.size, list(first.peaks))
    for leaf in leaves[cut:]:
        second.add(leaf)
    assert second.root() == recursive_root(leaves)


@given(st.data())
def test_every_leaf_has_a_proof_and_no_other_leaf_index_or_size_fits_it(data):
    size = data.draw(st.integers(1, 64))
    index = data.draw(st.integers(0, size - 1))
    leaves = [leaf_hash(str(i).encode()) for i in range(size)]
    root, proof = recursive_root(leaves), inclusion_proof(leaves, index)
    assert verify_inclusion(leaves[index], index, size, proof, root)
    other = data.draw(st.integers(0, size - 1).filter(lambda i: i != index)) if size > 1 else None
    if other is not None:
        assert not verify_inclusion(leaves[other], index, size, proof, root)
        assert not verify_inclusion(leaves[index], other, size, proof, root)
    assert not verify_inclusion(leaves[index], index, size, [*proof, root], root)
    assert not verify_inclusion(leaves[index], size, size, proof, root)
    if proof:
        assert not verify_inclusion(leaves[index], index, size, proof[:-1], root)


def test_a_node_cannot_be_passed_off_as_an_entry():
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != tree_root([left, right])


def test_peaks_that_do_not_fit_the_size_are_refused():
    with pytest.raises(ValueError, match="2 peaks"):
        Frontier(3, [leaf_hash(b"a")])
