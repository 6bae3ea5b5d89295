"""The Merkle tree over a version's rows that row proofs are paths in (docs/row-proofs.md).

Its leaves are not rows but the *gaps* between neighbours of the sorted tenant row hashes: n rows make n + 1
gaps. One gap proves either thing about a hash: that it is there (it begins a gap) or that it is not (it
lies inside one), so a proof is a single path. Shape as in RFC 6962, section 2.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from dataset_guard.hashing.rowset import sort_hashes

if TYPE_CHECKING:
    from pathlib import Path

Hashes = npt.NDArray[np.uint64]
Nodes = npt.NDArray[np.uint32]
"""Shape (nodes, 8): 32-byte digests as little-endian words."""

GAP_KEY = blake3(derive_key_context="trainguard 2026-11 row proof gap").digest()
NODE_KEY = blake3(derive_key_context="trainguard 2026-11 row proof node").digest()
_CHUNK = 65_536  # leaves held at a time: a power of two, so that chunks are subtrees
_NOTHING = bytes(16)


@dataclass(frozen=True, slots=True)
class Gap:
    """Two neighbouring row hashes (16 bytes each); None before the first and after the last."""

    left: bytes | None
    right: bytes | None

    def digest(self) -> bytes:
        """The leaf."""
        kind = bytes([(self.left is None) | (self.right is None) << 1])
        return blake3((self.left or _NOTHING) + (self.right or _NOTHING) + kind, key=GAP_KEY).digest()

    def says(self, row_hash: bytes) -> bool | None:
        """Whether ``row_hash`` is a row, as far as this gap tells: None when it is silent about it."""
        if self.left == row_hash:
            return True
        above = self.left is None or self.left < row_hash
        below = self.right is None or row_hash < self.right
        return False if above and below else None


@dataclass(frozen=True, slots=True)
class Place:
    """A gap's place in the tree: the leaf's number, and the siblings up to the root, nearest first."""

    gap: Gap
    index: int
    siblings: tuple[bytes, ...]


def root_of(packed: bytes, leaf: bytes, index: int, leaves: int) -> bytes | None:
    """The root that the siblings in ``packed``, 32 bytes each, lead to from leaf ``index`` of ``leaves``.

    None when they do not fit.
    """
    if not 0 <= index < leaves:
        return None
    if len(packed) % 32:
        return None
    hasher = blake3(key=NODE_KEY)  # to reset it takes less than half of what keying one anew does
    reset, update, digest = hasher.reset, hasher.update, hasher.digest
    node, last = leaf, leaves - 1
    for sibling in struct.unpack("32s" * (len(packed) // 32), packed):
        while index == last and not index & 1:  # an odd last node moves up
            if not last:
                return None
            index, last = index >> 1, last >> 1
        reset()
        update(sibling + node if index & 1 else node + sibling)
        node, index, last = digest(), index >> 1, last >> 1
    return None if last else node


def rows_root(sorted_pieces: Iterable[Hashes]) -> bytes:
    """The root (32 bytes) over row hashes that come in ascending order, in pieces of any size."""
    tops = [_levels(chunk)[-1] for chunk in _chunks(sorted_pieces)]
    return _bytes_of(_levels(np.concatenate(tops))[-1][0])


def rows_root_of(hashes: Hashes) -> bytes:
    """The root over row hashes, shape (n, 2), in any order."""
    return rows_root([np.take(hashes, sort_hashes(hashes), axis=0)])


def sidecar_root(path: Path) -> bytes:
    """The root over the row hashes that ``rows.arrow`` holds. Raises OSError."""
    from dataset_guard.sidecars.rowstore import Sidecar

    return rows_root(Sidecar(path).sorted_pieces())


def find(hashes: Hashes, row_hash: bytes) -> tuple[Gap, int]:
    """The gap of the sorted ``hashes`` that says whether ``row_hash`` is one of them, and its number."""
    hi, lo = struct.unpack(">QQ", row_hash)
    first = int(np.searchsorted(hashes[:, 0], np.uint64(hi), side="left"))
    last = int(np.searchsorted(hashes[:, 0], np.uint64(hi), side="right"))
    place = first + int(np.searchsorted(hashes[first:last, 1], np.uint64(lo), side="left"))
    there = place < last and int(hashes[place, 1]) == lo
    index = place + 1 if there else place
    left = _hash_bytes(hashes[index - 1]) if index else None
    right = _hash_bytes(hashes[index]) if index < len(hashes) else None
    return Gap(left, right), index


def path_to(hashes: Hashes, row_hash: bytes) -> tuple[Place, bytes]:
    """The path of the gap that speaks about ``row_hash`` in the tree of sorted ``hashes``, and the root."""
    [place], root = paths_to(hashes, [row_hash])
    return place, root


def paths_to(hashes: Hashes, row_hashes: Sequence[bytes]) -> tuple[list[Place], bytes]:
    """As :func:`path_to` for several rows; the tree is built once."""
    found = [find(hashes, row_hash) for row_hash in row_hashes]
    siblings: list[list[bytes]] = [[] for _ in found]
    tops: list[Nodes] = []
    for number, chunk in enumerate(_chunks([hashes])):
        levels = _levels(chunk)
        tops.append(levels[-1])
        for path, (_, index) in zip(siblings, found, strict=True):
            if number == index // _CHUNK:
                path += _siblings(levels, index % _CHUNK)
    upper = _levels(np.concatenate(tops))
    places = [
        Place(gap, index, (*path, *_siblings(upper, index // _CHUNK)))
        for path, (gap, index) in zip(siblings, found, strict=True)
    ]
    return places, _bytes_of(upper[-1][0])


def _siblings(levels: Sequence[Nodes], index: int) -> Iterator[bytes]:
    for level in levels[:-1]:
        if index ^ 1 < len(level):
            yield _bytes_of(level[index ^ 1])
        index >>= 1


def _chunks(sorted_pieces: Iterable[Hashes]) -> Iterator[Nodes]:
    """All leaves, a full chunk at a time; the last may be shorter."""
    waiting: list[Nodes] = []
    held = 0
    for leaves in _leaves(sorted_pieces):
        waiting.append(leaves)
        held += len(leaves)
        if held < _CHUNK:
            continue
        whole = np.concatenate(waiting)
        full = held - held % _CHUNK
        for start in range(0, full, _CHUNK):
            yield whole[start : start + _CHUNK]
        waiting, held = [whole[full:]], held - full
    if held:
        yield np.concatenate(waiting)


def _leaves(sorted_pieces: Iterable[Hashes]) -> Iterator[Nodes]:
    nothing = np.zeros((1, 2), np.uint64)
    before, kind = nothing, 1
    for piece in sorted_pieces:
        for start in range(0, len(piece), _CHUNK):
            bounds = np.concatenate([before, piece[start : start + _CHUNK]])
            kinds = np.zeros(len(bounds) - 1, np.uint8)
            kinds[0] = kind
            before, kind = bounds[-1:], 0
            yield _gap_digests(bounds, kinds)
    yield _gap_digests(np.concatenate([before, nothing]), np.array([2 | kind], np.uint8))


def _gap_digests(bounds: Hashes, kinds: npt.NDArray[np.uint8]) -> Nodes:
    from dataset_guard.hashing import blake3_lanes  # numba: late, so that importing this module is quick

    out = np.empty((len(kinds), 8), np.uint32)
    blake3_lanes.hash_gaps(bounds, kinds, blake3_lanes.key_words(GAP_KEY), out)
    return out


def _parents(nodes: Nodes) -> Nodes:
    from dataset_guard.hashing import blake3_lanes

    out = np.empty((len(nodes) // 2, 8), np.uint32)
    words: Any = np.ascontiguousarray(nodes).reshape(-1)
    blake3_lanes.hash_blocks(words, 64, blake3_lanes.key_words(NODE_KEY), out)
    return out


def _levels(leaves: Nodes) -> list[Nodes]:
    """All levels of the tree from ``leaves`` (at least one) to its root. An odd last node moves up."""
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        odd = below[len(below) // 2 * 2 :]
        levels.append(np.concatenate([_parents(below), odd]))
    return levels


def _bytes_of(node: Nodes) -> bytes:
    return np.ascontiguousarray(node).astype("<u4").tobytes()


def _hash_bytes(pair: Hashes) -> bytes:
    return struct.pack(">QQ", int(pair[0]), int(pair[1]))
