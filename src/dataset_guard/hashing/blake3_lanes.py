"""BLAKE3 of many short messages at once, in numba: one message per lane, sixteen lanes together.

The ``blake3`` library is fastest on one long message; rows are many short ones, and a call per row
costs more than the hashing. The compression function below is straight-line code in the body of a
loop over lanes, which LLVM turns into vector instructions. Messages above one chunk (1024 bytes)
take the scalar path with the same function and the tree of the BLAKE3 paper, section 2.

Source: BLAKE3, "one function, fast everywhere" (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020),
sections 2.1 to 2.5. Equal to the library byte for byte: tests/dataset_guard/hashing/test_blake3_lanes.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.hashing.blake3_blocks import LANES, turn_blocks
from dataset_guard.hashing.jit import inlined, kernel

CHUNK_START, CHUNK_END, PARENT, ROOT, KEYED_HASH = 1, 2, 4, 8, 16

_U = np.uint32
_BLOCK = 64
_CHUNK = 1024
_MAX_DEPTH = 54
_BYTES = np.uint64(0x00FF00FF00FF00FF)
_PAIRS = np.uint64(0x0000FFFF0000FFFF)
_LOW = np.uint64(0xFFFFFFFF)


@inlined
def _g(a: Any, b: Any, c: Any, d: Any, x: Any, y: Any) -> Any:
    """The quarter round G; every sum is cut to 32 bits."""
    a = _U(a + b + x)
    d = _U(d ^ a)
    d = _U((d >> _U(16)) | (d << _U(16)))
    c = _U(c + d)
    b = _U(b ^ c)
    b = _U((b >> _U(12)) | (b << _U(20)))
    a = _U(a + b + y)
    d = _U(d ^ a)
    d = _U((d >> _U(8)) | (d << _U(24)))
    c = _U(c + d)
    b = _U(b ^ c)
    b = _U((b >> _U(7)) | (b << _U(25)))
    return a, b, c, d


@inlined
def _round(s: Any, m: Any) -> Any:
    """One of the seven rounds: columns, then diagonals. ``s`` and ``m`` are tuples of 16 words."""
    s0, s4, s8, s12 = _g(s[0], s[4], s[8], s[12], m[0], m[1])
    s1, s5, s9, s13 = _g(s[1], s[5], s[9], s[13], m[2], m[3])
    s2, s6, s10, s14 = _g(s[2], s[6], s[10], s[14], m[4], m[5])
    s3, s7, s11, s15 = _g(s[3], s[7], s[11], s[15], m[6], m[7])
    s0, s5, s10, s15 = _g(s0, s5, s10, s15, m[8], m[9])
    s1, s6, s11, s12 = _g(s1, s6, s11, s12, m[10], m[11])
    s2, s7, s8, s13 = _g(s2, s7, s8, s13, m[12], m[13])
    s3, s4, s9, s14 = _g(s3, s4, s9, s14, m[14], m[15])
    return (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15)


@inlined
def _permute(m: Any) -> Any:
    """The message word permutation between rounds."""
    return (
        m[2], m[6], m[3], m[10], m[7], m[0], m[4], m[13],
        m[1], m[11], m[12], m[5], m[9], m[14], m[15], m[8],
    )  # fmt: skip


@kernel
def compress(cv: Any, block: Any, counter: Any, length: Any, flags: Any) -> None:
    """Compress one block per lane into ``cv``.

    ``cv`` is (8 * LANES,) uint32, updated in place; ``block`` (16 * LANES,); ``counter``,
    ``length`` and ``flags`` (lanes,) uint32. Arrays are flat and the lane count is a constant, or LLVM would
    not turn the loop into vector code.
    """
    for i in range(LANES):
        m = (
            block[i], block[1 * LANES + i], block[2 * LANES + i], block[3 * LANES + i],
            block[4 * LANES + i], block[5 * LANES + i], block[6 * LANES + i], block[7 * LANES + i],
            block[8 * LANES + i], block[9 * LANES + i], block[10 * LANES + i], block[11 * LANES + i],
            block[12 * LANES + i], block[13 * LANES + i], block[14 * LANES + i], block[15 * LANES + i],
        )  # fmt: skip
        s = (
            cv[i], cv[1 * LANES + i], cv[2 * LANES + i], cv[3 * LANES + i],
            cv[4 * LANES + i], cv[5 * LANES + i], cv[6 * LANES + i], cv[7 * LANES + i],
            _U(0x6A09E667), _U(0xBB67AE85), _U(0x3C6EF372), _U(0xA54FF53A),
            counter[i], _U(0), length[i], flags[i],
        )  # fmt: skip
        s = _round(s, m)
        m = _permute(m)
        s = _round(s, m)
        m = _permute(m)
        s = _round(s, m)
        m = _permute(m)
        s = _round(s, m)
        m = _permute(m)
        s = _round(s, m)
        m = _permute(m)
        s = _round(s, m)
        m = _permute(m)
        s = _round(s, m)
        cv[i] = _U(s[0] ^ s[8])
        cv[1 * LANES + i] = _U(s[1] ^ s[9])
        cv[2 * LANES + i] = _U(s[2] ^ s[10])
        cv[3 * LANES + i] = _U(s[3] ^ s[11])
        cv[4 * LANES + i] = _U(s[4] ^ s[12])
        cv[5 * LANES + i] = _U(s[5] ^ s[13])
        cv[6 * LANES + i] = _U(s[6] ^ s[14])
        cv[7 * LANES + i] = _U(s[7] ^ s[15])


@kernel
def _load(words: Any, base: int, block: Any, lane: int) -> None:
    for j in range(16):
        block[j * LANES + lane] = words[base + j]


@kernel
def _chunk_flags(flags: int, index: int, blocks: int, last: int) -> int:
    if index == 0:
        flags |= CHUNK_START
    if index == blocks - 1:
        flags |= CHUNK_END | last
    return flags


@kernel
def _parent(left: Any, right: Any, key: Any, flags: int, out: Any) -> None:
    """CV of a parent node. One lane does the work: parents are one in sixteen blocks of a long message."""
    cv, block = np.empty(8 * LANES, _U), np.zeros(16 * LANES, _U)
    zero, length, lane_flags = np.zeros(LANES, _U), np.full(LANES, _U(64)), np.full(LANES, _U(flags))
    for j in range(8):
        cv[j * LANES] = key[j]
        block[j * LANES] = left[j]
        block[(8 + j) * LANES] = right[j]
    compress(cv, block, zero, length, lane_flags)
    for j in range(8):
        out[j] = cv[j * LANES]


@kernel
def _long(words: Any, base: int, size: int, key: Any, mode: int, out: Any) -> None:
    """A message of more than one chunk: chunks go through the lanes, then the tree is folded."""
    chunks = (size + _CHUNK - 1) // _CHUNK
    stack = np.empty((_MAX_DEPTH, 8), _U)
    depth = 0
    cv, block = np.empty(8 * LANES, _U), np.zeros(16 * LANES, _U)
    counter, length, flags = np.zeros(LANES, _U), np.zeros(LANES, _U), np.zeros(LANES, _U)
    done = np.empty((LANES, 8), _U)
    for first in range(0, chunks, LANES):
        count = min(LANES, chunks - first)
        for lane in range(LANES):
            counter[lane] = first + lane
            for j in range(8):
                cv[j * LANES + lane] = key[j]
        for b in range(16):
            for lane in range(count):
                left = min(_CHUNK, size - (first + lane) * _CHUNK)
                blocks = (left + 63) // _BLOCK
                if b < blocks:
                    _load(words, base + (first + lane) * 256 + b * 16, block, lane)
                    length[lane] = min(_BLOCK, left - b * _BLOCK)
                    flags[lane] = _chunk_flags(mode, b, blocks, 0)
            compress(cv, block, counter, length, flags)
            for lane in range(count):
                left = min(_CHUNK, size - (first + lane) * _CHUNK)
                if b == (left + 63) // _BLOCK - 1:
                    for j in range(8):
                        done[lane, j] = cv[j * LANES + lane]
        for lane in range(count):
            stack[depth] = done[lane]
            depth += 1
            total = first + lane + 1
            if total == chunks:
                break
            while total & 1 == 0:  # a full subtree ends here: fold it
                _parent(stack[depth - 2], stack[depth - 1], key, mode | PARENT, stack[depth - 2])
                depth -= 1
                total >>= 1
    while depth > 2:
        _parent(stack[depth - 2], stack[depth - 1], key, mode | PARENT, stack[depth - 2])
        depth -= 1
    _parent(stack[0], stack[1], key, mode | PARENT | ROOT, out)


@inlined
def _big_endian(first: Any, second: Any) -> Any:
    """Eight bytes, held as two little-endian words, read as a big-endian number."""
    both = np.uint64(first) << np.uint64(32) | np.uint64(second)
    both = (both & _BYTES) << np.uint64(8) | (both >> np.uint64(8)) & _BYTES
    return (both & _PAIRS) << np.uint64(16) | (both >> np.uint64(16)) & _PAIRS


@inlined
def _swapped(word: Any) -> Any:
    """A number of eight bytes, these the other way round."""
    word = (word & _BYTES) << np.uint64(8) | (word >> np.uint64(8)) & _BYTES
    word = (word & _PAIRS) << np.uint64(16) | (word >> np.uint64(16)) & _PAIRS
    return word << np.uint64(32) | word >> np.uint64(32)


@kernel
def _halves(cv: Any, out: Any) -> None:
    """The first 16 bytes of up to 16 digests in lanes as two big-endian numbers each, (n, 2) uint64."""
    for i in range(len(out)):
        out[i, 0] = _big_endian(cv[i], cv[1 * LANES + i])
        out[i, 1] = _big_endian(cv[2 * LANES + i], cv[3 * LANES + i])


@kernel
def _first_chunks(words: Any, starts: Any, sizes: Any, key: Any, mode: int, room: Any, done: Any) -> None:
    """Write the CV of the first chunk of up to 16 messages to ``done``, (8 * LANES,): a short one's digest.

    Lanes without a message do the last one again, and blocks behind a message's end its last block: their
    results are not looked at.
    """
    cv, block, counter, length, flags, blocks, tails, bases = room
    count, most, least = len(sizes), _U(1), _U(_CHUNK)
    for i in range(LANES):
        size = _U(min(sizes[min(i, count - 1)], _CHUNK))
        blocks[i] = max(_U(1), (size + _U(63)) // _U(_BLOCK))
        tails[i] = size - (blocks[i] - _U(1)) * _U(_BLOCK)
        bases[i] = starts[min(i, count - 1)]
        most, least = max(most, blocks[i]), min(least, blocks[i])
    for j in range(8):
        for i in range(LANES):
            cv[j * LANES + i] = key[j]
    for b in range(most):
        start = _U(CHUNK_START if b == 0 else 0) | _U(mode)
        turn_blocks(words, bases, block)
        if b + 1 < least:
            length[:], flags[:] = _U(_BLOCK), start
        else:
            for i in range(LANES):
                # All ones where a message ends: numbers instead of branches, which would not become vectors.
                ends = _U(0) - _U(blocks[i] == _U(b) + _U(1))
                length[i] = (tails[i] & ends) | (_U(_BLOCK) & ~ends)
                flags[i] = start | (_U(CHUNK_END | ROOT) & ends)
        compress(cv, block, counter, length, flags)
        if b + 1 >= least:
            for i in range(LANES):
                length[i] = _U(0) - _U(blocks[i] == _U(b) + _U(1))
            for j in range(8):
                for i in range(LANES):
                    at = j * LANES + i
                    done[at] = (cv[at] & length[i]) | (done[at] & ~length[i])
        for i in range(LANES):
            bases[i] += np.int64(blocks[i] > _U(b) + _U(1)) * 16


@kernel
def _room() -> Any:
    """What :func:`_first_chunks` works in."""
    return (
        np.empty(8 * LANES, _U), np.zeros(16 * LANES, _U), np.zeros(LANES, _U), np.zeros(LANES, _U),
        np.zeros(LANES, _U), np.zeros(LANES, _U), np.zeros(LANES, _U), np.zeros(LANES, np.int64),
    )  # fmt: skip


@kernel
def hash_blocks(words: Any, size: int, key: Any, out: Any) -> None:
    """Keyed BLAKE3 of messages of ``size`` bytes, 64 at most, that begin at every 16th of ``words``.

    ``words`` is uint32, zero behind each message; ``key`` is (8,) uint32, ``out`` (messages, 8) uint32.
    """
    n = len(out)
    cv, block, bases = np.empty(8 * LANES, _U), np.empty(16 * LANES, _U), np.empty(LANES, np.int64)
    counter, length = np.zeros(LANES, _U), np.full(LANES, _U(size))
    flags = np.full(LANES, _U(KEYED_HASH | CHUNK_START | CHUNK_END | ROOT))
    for first in range(0, n, LANES):
        for i in range(LANES):
            bases[i] = 16 * min(first + i, n - 1)  # lanes without a message do the last one again
        turn_blocks(words, bases, block)
        _digest_blocks(cv, block, counter, length, flags, key, out[first : first + LANES])


@kernel
def hash_gaps(bounds: Any, kinds: Any, key: Any, out: Any) -> None:
    """Keyed BLAKE3 of ``bounds[i]``, ``bounds[i + 1]`` and ``kinds[i]``: 33 bytes.

    ``bounds`` is (messages + 1, 2) uint64, each number big-endian in its message; ``kinds`` is (messages,)
    uint8, ``key`` (8,) uint32, ``out`` (messages, 8) uint32.
    """
    n = len(out)
    cv, block = np.empty(8 * LANES, _U), np.zeros(16 * LANES, _U)
    counter, length = np.zeros(LANES, _U), np.full(LANES, _U(33))
    flags = np.full(LANES, _U(KEYED_HASH | CHUNK_START | CHUNK_END | ROOT))
    for first in range(0, n, LANES):
        for i in range(LANES):
            at = min(first + i, n - 1)
            for j in range(4):
                word = _swapped(bounds[at + (j >> 1), j & 1])
                block[2 * j * LANES + i] = _U(word & _LOW)
                block[(2 * j + 1) * LANES + i] = _U(word >> np.uint64(32))
            block[8 * LANES + i] = _U(kinds[at])
        _digest_blocks(cv, block, counter, length, flags, key, out[first : first + LANES])


@kernel
def _digest_blocks(cv: Any, block: Any, counter: Any, length: Any, flags: Any, key: Any, out: Any) -> None:
    """Digests of the messages in ``block`` into up to 16 rows of ``out``."""
    for j in range(8):
        for i in range(LANES):
            cv[j * LANES + i] = key[j]
    compress(cv, block, counter, length, flags)
    for i in range(len(out)):
        for j in range(8):
            out[i, j] = cv[j * LANES + i]


@kernel
def hash_rows(
    words: Any, starts: Any, sizes: Any, row_key: Any, tenant_key: Any, public: Any, keyed: Any
) -> None:
    """First halves of digests of messages, and of these digests hashed again.

    ``words`` is uint32; message i begins at word ``starts[i]`` (int64), has ``sizes[i]`` bytes and is
    zero-padded to a multiple of 64 bytes (an empty one to 64). Keys are (8,) uint32.
    ``public`` gets those under ``row_key``, ``keyed`` those of the whole digests under ``tenant_key``: shape
    (messages, 2) uint64 each, big-endian numbers; either may be empty, and is not written then.
    """
    n = len(sizes)
    room, done = _room(), np.zeros(8 * LANES, _U)
    long = np.empty(8, _U)
    cv, block = np.empty(8 * LANES, _U), np.zeros(16 * LANES, _U)
    counter, length = np.zeros(LANES, _U), np.full(LANES, _U(32))
    flags = np.full(LANES, _U(KEYED_HASH | CHUNK_START | CHUNK_END | ROOT))
    for first in range(0, n, LANES):
        stop = min(n, first + LANES)
        _first_chunks(words, starts[first:stop], sizes[first:stop], row_key, KEYED_HASH, room, done)
        for i in range(first, stop):
            if sizes[i] > _CHUNK:
                _long(words, starts[i], sizes[i], row_key, KEYED_HASH, long)
                for j in range(8):
                    done[j * LANES + i - first] = long[j]
        if len(public):
            _halves(done, public[first:stop])
        if len(keyed):
            block[: 8 * LANES] = done
            for j in range(8):
                for i in range(LANES):
                    cv[j * LANES + i] = tenant_key[j]
            compress(cv, block, counter, length, flags)
            _halves(cv, keyed[first:stop])


def key_words(key: bytes) -> npt.NDArray[np.uint32]:
    """A 32-byte key as eight little-endian words. Raises ValueError for another length."""
    if len(key) != 32:
        raise ValueError(f"a BLAKE3 key has 32 bytes, got {len(key)}")
    return np.frombuffer(key, "<u4").astype(np.uint32)
