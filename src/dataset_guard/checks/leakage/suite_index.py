"""Items of evaluation suites, looked up in texts: which item does a text contain, also when it was edited?

An item's text is a *unit*. First stage: the 5-token windows of a text are looked up among those of all units;
a window that many units share proposes nothing, and a unit is proposed by a tenth of its windows. Second
stage: a proposed unit is aligned with the place in the text where its windows lie (longest common subsequence
of tokens, each weighed by how rare it is among the units: IDF). The share of a unit's weight that is found in
order is its score; an edit of one word costs that word's weight, not the five windows it is in, which is why
edited items are found at all.

Windows and IDF follow decon (AI2, https://github.com/allenai/decon); the alignment is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dataset_guard.checks.leakage.folding import cells_of
from dataset_guard.checks.leakage.tokens import cut, longest_of, tokens_of
from dataset_guard.hashing.jit import inlined, kernel

WINDOW = 5
MOST_POSTINGS = 32  # a window in more units than this proposes nothing
MOST_TOKENS = 512  # of a unit; the rest of a longer one is not looked for
FILTER_BITS = 23
MOST_CANDIDATES = 128  # units proposed for one text
LEAST_WINDOWS = 0.1  # share of a unit's windows that proposes it; a fifth of the words edited leaves a third
SLACK = 8  # tokens that edits may have moved a unit's end

_U64 = np.uint64
_FACTOR = _U64(0x9E3779B97F4A7C15)
_OLDEST = _U64(0x9E3779B97F4A7C15**4 & 2**64 - 1)
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Units:
    """The looked-up form of many texts. Memory: 12 bytes per token and 16 per window, and 1 MiB.

    ``starts`` (units + 1) cuts ``tokens`` and ``weights``; ``keys`` is a hash table of windows, ``first`` and
    ``counts`` say where its units are in ``postings`` (unit, position).
    """

    starts: Ints
    tokens: npt.NDArray[np.uint64]
    weights: npt.NDArray[np.float32]
    mass: npt.NDArray[np.float32]
    keys: npt.NDArray[np.uint64]
    first: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    postings: npt.NDArray[np.int32]
    bits: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.starts) - 1


@inlined
def _sealed(h: Any) -> Any:
    h = (h ^ (h >> _U64(31))) * _U64(0xBF58476D1CE4E5B9)
    return (h ^ (h >> _U64(29))) | _U64(1)


@inlined
def _window(tokens: Any, at: Any) -> Any:
    h = tokens[at]
    for k in range(1, WINDOW):
        h = h * _FACTOR + tokens[at + k]
    return _sealed(h)


@kernel
def _windows(starts: Any, tokens: Any, least: int, out: Any, unit: Any, position: Any) -> int:
    n = 0
    for u in range(len(starts) - 1):
        if starts[u + 1] - starts[u] < least:
            continue
        for t in range(starts[u], starts[u + 1] - WINDOW + 1):
            out[n] = _window(tokens, t)
            unit[n] = u
            position[n] = t - starts[u]
            n += 1
    return n


@kernel
def _fill(grams: Any, firsts: Any, sizes: Any, keys: Any, first: Any, counts: Any, bits: Any) -> None:
    mask = _U64(len(keys) - 1)
    for i in range(len(grams)):
        slot = (grams[i] >> _U64(20)) & mask
        while keys[slot] != _U64(0):
            slot = (slot + _U64(1)) & mask
        keys[slot] = grams[i]
        first[slot] = firsts[i]
        counts[slot] = sizes[i]
        bit = grams[i] >> _U64(64 - FILTER_BITS)
        bits[bit >> _U64(6)] |= _U64(1) << (bit & _U64(63))


def index_of(texts: Any, least_tokens: int = WINDOW) -> Units:
    """Index an Arrow array of texts; one of fewer than ``least_tokens`` is a unit that is never found."""
    ends, tokens = cut(texts, MOST_TOKENS)
    starts = np.concatenate([[0], ends]).astype(np.int64)
    weights = _rarity(starts, tokens)
    sums = np.concatenate([[0.0], np.cumsum(weights, dtype=np.float64)])
    mass = (sums[starts[1:]] - sums[starts[:-1]]).astype(np.float32)
    room = max(1, len(tokens))
    grams, unit, position = np.empty(room, np.uint64), np.empty(room, np.int32), np.empty(room, np.int32)
    n = _windows(starts, tokens, max(WINDOW, least_tokens), grams, unit, position)
    order = np.argsort(grams[:n], kind="stable")
    grams, postings = grams[:n][order], np.stack([unit[:n][order], position[:n][order]], axis=1)
    distinct, firsts, sizes = np.unique(grams, return_index=True, return_counts=True)
    usable = sizes <= MOST_POSTINGS
    slots = 1 << max(4, (2 * int(usable.sum())).bit_length())
    keys = np.zeros(slots, np.uint64)
    first, counts = np.zeros(slots, np.int32), np.zeros(slots, np.int32)
    bits = np.zeros(1 << (FILTER_BITS - 6), np.uint64)
    _fill(distinct[usable], firsts[usable], sizes[usable], keys, first, counts, bits)
    return Units(starts, tokens, weights, mass, keys, first, counts, np.ascontiguousarray(postings), bits)


def _rarity(starts: Ints, tokens: npt.NDArray[np.uint64]) -> npt.NDArray[np.float32]:
    """``log((units + 1) / (units with the token + 1)) + 0.1`` of each token."""
    units = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    _, code = np.unique(tokens, return_inverse=True)
    pairs = np.unique(code.astype(np.int64) * max(1, len(starts)) + units) // max(1, len(starts))
    frequency = np.bincount(pairs, minlength=int(code.max()) + 1 if len(code) else 0)
    idf = np.log(len(starts) / (frequency + 1.0)) + 0.1
    return np.maximum(idf, 0.1)[code].astype(np.float32)


@kernel
def _aligned(unit: Any, weights: Any, text: Any, low: int, high: int, row: Any) -> float:
    """The weight of the heaviest common subsequence of ``unit`` and ``text[low:high]``."""
    n = len(unit)
    row[: n + 1] = 0.0
    for t in range(low, high):
        token = text[t]
        before = row[0]
        for j in range(n):
            above = row[j + 1]
            if unit[j] == token:
                row[j + 1] = max(above, before + weights[j])
            elif row[j] > above:
                row[j + 1] = row[j]
            before = above
    return float(row[n])


@kernel
def _search(
    offsets: Any, data: Any, fold: Any, first_text: int,
    starts: Any, unit_tokens: Any, weights: Any, mass: Any,
    keys: Any, first: Any, counts: Any, postings: Any, bits: Any, least_share: float,
    tokens: Any, passed: Any, stamp: Any, slot_of: Any, found: Any, row: Any,
    hits: Any, scores: Any,
) -> Any:  # fmt: skip
    """Search texts from ``first_text`` on; returns (next text, hits written): ``hits`` may be full first."""
    mask = _U64(len(keys) - 1)
    written = 0
    for i in range(first_text, len(offsets) - 1):
        if written + len(found) > len(hits):
            return i, written
        n = tokens_of(data, offsets[i], offsets[i + 1], fold, tokens)
        candidates = known = 0
        rolled = _U64(0)
        for t in range(min(WINDOW - 1, n)):
            rolled = rolled * _FACTOR + tokens[t]
        for t in range(n - WINDOW + 1):
            rolled = rolled * _FACTOR + tokens[t + WINDOW - 1]
            h = _sealed(rolled)
            rolled -= tokens[t] * _OLDEST
            bit = h >> _U64(64 - FILTER_BITS)
            # Counted, not branched on: few windows pass, and which is not to be foreseen.
            passed[known, 0], passed[known, 1] = h, _U64(t)
            known += int((bits[bit >> _U64(6)] >> (bit & _U64(63))) & _U64(1))
        for w in range(known):
            h, t = passed[w, 0], int(passed[w, 1])
            slot = (h >> _U64(20)) & mask
            while keys[slot] != _U64(0) and keys[slot] != h:
                slot = (slot + _U64(1)) & mask
            if keys[slot] != h:
                continue
            for p in range(first[slot], first[slot] + counts[slot]):
                u, q = postings[p, 0], postings[p, 1]
                if stamp[u] != i:
                    if candidates == len(found):
                        continue
                    stamp[u] = i
                    slot_of[u] = candidates
                    found[candidates, 0] = u
                    found[candidates, 1] = t - q  # where the unit would begin, by its first window
                    found[candidates, 2] = t - q  # ... by its latest
                    found[candidates, 3] = t
                    found[candidates, 4] = 1
                    found[candidates, 5] = 1
                    found[candidates, 6] = 1
                    candidates += 1
                    continue
                c = slot_of[u]
                if t == found[c, 3]:
                    continue
                run = found[c, 4] + 1 if t == found[c, 3] + 1 and t - q == found[c, 2] else 1
                found[c, 2], found[c, 3], found[c, 4] = t - q, t, run
                found[c, 5] = max(found[c, 5], run)
                found[c, 6] += 1
        for c in range(candidates):
            u = found[c, 0]
            low, high = starts[u], starts[u + 1]
            if found[c, 6] < LEAST_WINDOWS * (high - low - WINDOW + 1):
                continue
            best = 0.0
            for turn in range(2):
                begin = found[c, 1 + turn]
                if turn == 1 and abs(begin - found[c, 1]) <= SLACK:
                    break
                a, b = max(0, begin - SLACK), min(n, begin + high - low + SLACK)
                weight = _aligned(unit_tokens[low:high], weights[low:high], tokens, a, b, row)
                best = max(best, weight / mass[u])
            if best >= least_share:
                hits[written, 0], hits[written, 1], hits[written, 2] = i, u, found[c, 5] + WINDOW - 1
                scores[written] = best
                written += 1
    return len(offsets) - 1, written


@dataclass(frozen=True, slots=True)
class Hits:
    """Where units were found: texts, units, scores (share of a unit's weight) and longest runs (tokens)."""

    texts: Ints
    units: Ints
    runs: Ints
    scores: npt.NDArray[np.float32]


def search(units: Units, texts: Any, least_share: float) -> Iterator[Hits]:
    """All units found in the texts of an Arrow array, by text."""
    offsets, data, fold = cells_of(texts)
    tokens = np.empty(longest_of(offsets), np.uint64)
    passed = np.empty((len(tokens), 2), np.uint64)  # windows that some unit may have, and where they are
    stamp, slot_of = np.full(len(units), -1, np.int64), np.zeros(len(units), np.int32)
    found, row = np.empty((MOST_CANDIDATES, 7), np.int64), np.empty(MOST_TOKENS + 1, np.float32)
    hits, scores = np.empty((64 * MOST_CANDIDATES, 3), np.int64), np.empty(64 * MOST_CANDIDATES, np.float32)
    at = 0
    while at < len(offsets) - 1:
        at, n = _search(
            offsets, data, fold, at, units.starts, units.tokens, units.weights, units.mass,
            units.keys, units.first, units.counts, units.postings, units.bits, least_share,
            tokens, passed, stamp, slot_of, found, row, hits, scores,
        )  # fmt: skip
        if n:
            yield Hits(hits[:n, 0].copy(), hits[:n, 1].copy(), hits[:n, 2].copy(), scores[:n].copy())
