"""The set root: a table's rows as a multiset, whatever their order.

BLAKE3 over the row count, the column names and all public 128-bit row hashes in ascending order,
duplicates kept. It is never an XOR or a sum of hashes, which anybody could make collide. Hashes are
sorted in runs; when the runs outgrow ``memory_bytes`` they go to an unnamed temporary file, and the
final merge reads one range of hash values at a time.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import IO, Protocol

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from dataset_guard.hashing.hash_store import forget

SET_TAG = b"dg1:set\0"
_RUN_ROWS = 10_485_760  # 160 MiB of hashes
_PIECE_ROWS = 262_144  # merged at a time: 4 MiB, memory that the next piece can have again
_DEFAULT_MEMORY = 1 << 30
_MANY_ROWS = 8192

Hashes = npt.NDArray[np.uint64]


def sort_hashes(hashes: Hashes) -> npt.NDArray[np.int64]:
    """The order that sorts ``hashes``, shape (n, 2), by (hi, lo); stable."""
    order, differ = _by_first_halves(hashes)
    if differ:
        return order
    hi, lo = hashes[order, 0], hashes[order, 1]
    if np.any((hi[1:] == hi[:-1]) & (lo[1:] < lo[:-1])):  # equal halves of unequal hashes: never by chance
        order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    return order


def _by_first_halves(hashes: Hashes) -> tuple[npt.NDArray[np.int64], bool]:
    """The order by first halves, stable, and whether they all differ (if so, that is the order)."""
    if len(hashes) >= _MANY_ROWS:
        from dataset_guard.hashing.rowsort import spread_order  # numba: late, for those who sort a few only

        spread = spread_order(hashes)
        if spread is not None:
            return spread
    first = np.ascontiguousarray(hashes[:, 0])
    order = np.argsort(first)  # not stable, but three times faster, and right when no two are equal
    hi = first[order]
    if not np.any(hi[1:] == hi[:-1]):
        return order, True
    return np.argsort(first, kind="stable"), False


class KeptHashes(Protocol):
    """Public row hashes that lie somewhere in ascending order."""

    @property
    def rows(self) -> int:
        """How many they are."""

    def pieces(self) -> Iterator[Hashes]:
        """All of them, in pieces that fit the processor's cache."""


class SetRoot:
    """Collects public row hashes, in any order, and gives the set root."""

    def __init__(self, names: Iterable[str], *, memory_bytes: int = _DEFAULT_MEMORY) -> None:
        self._names = sorted(names, key=str.encode)
        self._memory = memory_bytes
        self._open: list[Hashes] = []
        self._open_rows = 0
        self._runs: list[Hashes] = []
        self._in_memory = 0
        self._spill: IO[bytes] | None = None
        self._kept: KeptHashes | None = None
        self.rows = 0

    def add(self, hashes: Hashes) -> None:
        """Take public row hashes, shape (n, 2)."""
        self._open.append(hashes)
        self._open_rows += len(hashes)
        self.rows += len(hashes)
        if self._open_rows >= _RUN_ROWS:
            self._close_run()

    def add_kept(self, kept: KeptHashes) -> None:
        """Take public row hashes that are kept in order somewhere, once; they are read when all is merged."""
        self._kept = kept
        self.rows += kept.rows

    def _close_run(self) -> None:
        if not self._open:
            return
        run = sorted_run(self._open)
        self._open, self._open_rows = [], 0
        if self._in_memory + run.nbytes > self._memory:
            run = self._spilled(run)
        else:
            self._in_memory += run.nbytes
        self._runs.append(run)

    def _spilled(self, run: Hashes) -> Hashes:
        if self._spill is None:
            self._spill = tempfile.TemporaryFile()  # noqa: SIM115 - closed by finish(), or with this object
        start = self._spill.seek(0, 2)
        run.tofile(self._spill)
        self._spill.flush()
        return np.memmap(self._spill, np.uint64, "r", offset=start, shape=run.shape)

    def finish(self, keep: Callable[[Hashes], object] | None = None) -> bytes:
        """The set root, 32 bytes. ``keep`` gets all hashes in ascending order, in pieces."""
        self._close_run()
        kept = self._kept
        if kept is not None and 2 * kept.rows < self.rows:  # so that the last piece below is not all the rest
            self._runs.append(np.concatenate(list(kept.pieces())))
            kept = None
        pieces = _merged(self._runs) if kept is None else _joined(kept.pieces(), self._runs)
        root = set_root_of(self._names, self.rows, pieces if keep is None else _told(pieces, keep))
        if self._spill is not None:
            self._spill.close()
        return root


def set_root_of(names: Iterable[str], rows: int, pieces: Iterable[Hashes]) -> bytes:
    """The set root (32 bytes) over ``rows`` public row hashes that come in ascending ``pieces``."""
    ordered = sorted(names, key=str.encode)
    hasher = blake3(SET_TAG + struct.pack("<QI", rows, len(ordered)))
    for name in ordered:
        raw = name.encode()
        hasher.update(struct.pack("<I", len(raw)) + raw)
    for piece in pieces:
        # Little-endian numbers with their bytes the other way round; astype(">u8") would copy once more.
        hasher.update(np.ascontiguousarray(piece, "<u8").byteswap().view(np.uint8).reshape(-1).data)
    return hasher.digest()


def sorted_run(parts: Sequence[Hashes]) -> Hashes:
    """The hashes of all ``parts`` in ascending order, shape (n, 2)."""
    if sum(map(len, parts)) >= _MANY_ROWS:
        from dataset_guard.hashing.rowsort import spread_sorted  # numba: late, for those who sort a few only

        spread = spread_sorted(parts)
        if spread is not None:
            return spread
    run = np.concatenate(parts) if parts else np.empty((0, 2), np.uint64)
    return np.take(run, sort_hashes(run), axis=0)


def slices_of(run: Hashes, count: int) -> list[Hashes]:
    """A sorted ``run`` cut into ``count`` slices by equal ranges of hash values."""
    borders = [np.uint64((i << 64) // count) for i in range(1, count)]
    edges = [0, *(int(np.searchsorted(run[:, 0], border)) for border in borders), len(run)]
    return [run[a:b] for a, b in pairwise(edges)]


def _told(pieces: Iterable[Hashes], keep: Callable[[Hashes], object]) -> Iterator[Hashes]:
    for piece in pieces:
        keep(piece)
        yield piece


def _merged(runs: Sequence[Hashes]) -> Iterator[Hashes]:
    """All hashes of sorted ``runs`` in order, some 4 MiB at a time."""
    if len(runs) <= 1:
        yield from runs
        return
    count = max(len(runs), -(-sum(map(len, runs)) // _PIECE_ROWS))
    slices = []
    for run in runs:
        slices.append(slices_of(run, count))
        forget(run)  # looking for the borders has touched pages all over it
    for pieces in zip(*slices, strict=True):
        yield _together(pieces)
        for run in runs:
            forget(run)


def _joined(kept: Iterable[Hashes], runs: Sequence[Hashes]) -> Iterator[Hashes]:
    """All hashes of ascending pieces that are ``kept`` and of sorted ``runs``, in order."""
    held = np.empty((0, 2), np.uint64)
    for new in kept:
        piece = np.concatenate([held, new]) if len(held) else new
        # Those that begin like the last one wait: what comes may hold smaller ones of them.
        edge = piece[-1, 0]
        cut, held = np.split(piece, [np.searchsorted(piece[:, 0], edge)])
        parts = [np.split(run, [np.searchsorted(run[:, 0], edge)]) for run in runs]
        runs = [rest for _, rest in parts]
        yield _together([cut, *(first for first, _ in parts)])
    yield _together([held, *runs])


def _together(pieces: Sequence[Hashes]) -> Hashes:
    """Some sorted pieces as one."""
    some = sorted((piece for piece in pieces if len(piece)), key=len)
    if len(some) == 1:
        return some[0]
    if len(some) == 2 and 8 * len(some[0]) < len(some[1]):
        return inserted(some[1], some[0])
    return sorted_run(some)


def inserted(many: Hashes, few: Hashes) -> Hashes:
    """Two ascending arrays as one, at the price of a copy: for a few hashes that join many."""
    places = np.searchsorted(many[:, 0], few[:, 0])
    beside = many[np.minimum(places, len(many) - 1)]
    if np.any((beside[:, 0] == few[:, 0]) & (beside[:, 1] != few[:, 1])):
        return sorted_run([many, few])  # equal halves of unequal hashes: never by chance
    # Rows as items of 16 bytes, which numpy moves at once: a fifth of what np.insert takes.
    places += np.arange(len(few))
    whole = np.empty((len(many) + len(few), 2), np.uint64)
    old = np.ones(len(whole), np.bool_)
    old[places] = False
    whole.view("V16")[old] = np.ascontiguousarray(many).view("V16")
    whole[places] = few
    return whole
