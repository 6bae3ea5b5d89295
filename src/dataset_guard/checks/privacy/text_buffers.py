"""Search a column of text as the one buffer that Arrow keeps it in, however deep in lists or structs it lies.

Arrow puts the texts of a column end to end with nothing between them. A search over that buffer costs no
Python call per row, but a hit may straddle two rows, and a pattern must not look at its neighbours: what
precedes it may be the end of another row. So a first-stage pattern is short and has no ``\\b``, ``^``, ``$``;
after each hit the search goes on at the next byte, so that a straddling hit hides nothing; hits are mapped to
rows by binary search in the offsets; and the second stage sees bytes of one row only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from dataset_guard.checks.base import Rows
from dataset_guard.hashing.canonical import union_codes, union_members
from dataset_guard.scanning.profile import plain

_LIST_KINDS = (pt.is_list, pt.is_large_list, pt.is_fixed_size_list, pt.is_list_view, pt.is_large_list_view)
_BYTE_KINDS = (
    *(pt.is_string, pt.is_large_string, pt.is_string_view),
    *(pt.is_binary, pt.is_large_binary, pt.is_binary_view, pt.is_fixed_size_binary),
)


@lru_cache(maxsize=64)
def compiled(pattern: bytes) -> Any:
    """``pattern`` as RE2 over bytes. RE2 runs in linear time: no text can make a search slow."""
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_capture = True
    options.max_mem = 64 << 20
    return re2.compile(pattern, options)


@dataclass(frozen=True, slots=True)
class Hit:
    """Where a first-stage pattern matched: bytes ``[start, end)`` of the item that spans ``[low, high)``."""

    item: int
    start: int
    end: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class TextBuffer:
    """Texts end to end: item ``i`` is ``data[offsets[i]:offsets[i + 1]]``.

    ``rows`` gives the row (of the batch) of each item, or None when item ``i`` is row ``i``. ``codes`` is set
    for a dictionary: row ``j`` holds item ``codes[j]``, -1 for null.
    """

    data: memoryview
    offsets: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_] | None
    rows: Rows | None
    codes: npt.NDArray[np.int64] | None = None

    def hits(self, pattern: bytes, *, overlapping: bool = True) -> Iterator[Hit]:
        """Every place where ``pattern`` matches inside one item, in order.

        Unless ``overlapping``, the pattern may be greedy, and the search goes on behind a hit: right for
        patterns that take all of a run, and quicker where hits are many.
        """
        regexp = compiled(pattern)
        spans: list[tuple[int, int]] = []
        position, stop = int(self.offsets[0]), int(self.offsets[-1])
        borders = [] if overlapping else self.offsets.tolist()
        while (match := regexp.search(self.data, position, stop)) is not None:
            span = match.span()
            position = span[0] + 1
            if not overlapping:
                border = borders[bisect_right(borders, span[0])]
                if (
                    span[1] > border
                ):  # a greedy match ran on into the next item: what does it match in its own?
                    match = regexp.search(self.data, span[0], border)
                    if match is None:
                        position = border
                        continue
                    span = match.span()
                position = span[1]
            spans.append(span)
        if not spans:
            return
        places = np.array(spans, np.int64)
        items = np.searchsorted(self.offsets, places[:, 0], side="right") - 1
        inside = places[:, 1] <= self.offsets[items + 1]
        if self.present is not None:
            inside &= self.present[items]  # a null's bytes are undefined
        places, items = places[inside], items[inside]
        bounds = zip(items, places, self.offsets[items], self.offsets[items + 1], strict=True)
        for item, (start, end), low, high in bounds:
            yield Hit(int(item), int(start), int(end), int(low), int(high))

    def proposed(self, pattern: bytes) -> npt.NDArray[np.int64]:
        """The items in which ``pattern`` begins to match, each once; it may end in the next one."""
        regexp = compiled(pattern)
        found: list[int] = []
        position, stop = int(self.offsets[0]), int(self.offsets[-1])
        while (match := regexp.search(self.data, position, stop)) is not None:
            item = int(np.searchsorted(self.offsets, match.start(), side="right")) - 1
            found.append(item)
            position = int(self.offsets[item + 1])
        return np.array(found, np.int64)

    def only(self, items: npt.NDArray[np.int64]) -> TextBuffer:
        """The texts of ``items`` alone: item ``i`` of the result is ``items[i]`` here, and of no row."""
        low, high = self.offsets[items], self.offsets[items + 1]
        data = b"".join(bytes(self.data[a:b]) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(high - low)])
        present = None if self.present is None else self.present[items]
        return TextBuffer(memoryview(data), offsets, present, None)

    def window(self, item: int, start: int, before: int, after: int) -> tuple[bytes, int]:
        """The bytes of ``item`` around ``start``, and where in them ``start`` is."""
        low, high = int(self.offsets[item]), int(self.offsets[item + 1])
        first = max(low, start - before)
        return bytes(self.data[first : min(high, start + after)]), start - first

    def around(self, hit: Hit, before: int, after: int) -> tuple[bytes, int]:
        """The bytes of the hit's own item around its start, and where in them the hit starts."""
        low = max(hit.low, hit.start - before)
        return bytes(self.data[low : min(hit.high, hit.start + after)]), hit.start - low

    def uses(self, items: npt.NDArray[np.int64]) -> tuple[Rows, npt.NDArray[np.int64]]:
        """``(rows, index into items)``: one pair for every row that holds an item, in no certain order."""
        if self.codes is None:
            return items if self.rows is None else self.rows[items], np.arange(len(items))
        order = np.argsort(items, kind="stable")
        low = np.searchsorted(items[order], self.codes, side="left")
        many = np.searchsorted(items[order], self.codes, side="right") - low
        at = np.repeat(np.arange(len(self.codes)), many)
        nth = np.arange(len(at)) - np.repeat(np.cumsum(many) - many, many)
        rows = at if self.rows is None else self.rows[at]
        return rows, order[low[at] + nth]


def holds_text(kind: pa.DataType) -> bool:
    """Whether a column of this type has text or bytes anywhere in it."""
    if isinstance(kind, pa.BaseExtensionType):
        return holds_text(kind.storage_type)
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return holds_text(kind.value_type)
    if pt.is_nested(kind):
        return any(holds_text(kind.field(i).type) for i in range(kind.num_fields))
    return any(test(kind) for test in _BYTE_KINDS)


def text_buffers(column: Any, rows: Rows | None = None) -> Iterator[TextBuffer]:
    """The text in an Arrow array, one buffer per leaf of its type; ``rows`` are its items' (0, 1, ...)."""
    if not holds_text(column.type) or not len(column):
        return
    while isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    kind = column.type
    if pt.is_dictionary(kind) and not pt.is_nested(kind.value_type):
        codes = np.asarray(column.indices.fill_null(-1)).astype(np.int64)
        yield _buffer(column.dictionary, rows, codes)
    elif pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        yield from text_buffers(plain(column), rows)
    elif any(test(kind) for test in _LIST_KINDS):
        yield from text_buffers(pc.list_flatten(column), _at(rows, pc.list_parent_indices(column)))
    elif pt.is_map(kind):
        # As a list of its entries: lists can be flattened with their nulls and slices, maps cannot.
        entries = pa.list_(pa.struct([kind.key_field, kind.item_field]))
        yield from text_buffers(column.cast(entries), rows)
    elif pt.is_struct(kind):
        for member in column.flatten():
            yield from text_buffers(member, rows)
    elif pt.is_union(kind):
        yield from _union(column, rows)
    else:
        yield _buffer(column, rows, None)


def _at(rows: Rows | None, positions: Any) -> Rows:
    chosen = np.asarray(positions).astype(np.int64)
    return chosen if rows is None else rows[chosen]


def _union(column: Any, rows: Rows | None) -> Iterator[TextBuffer]:
    codes = union_codes(column)
    for code, values in union_members(column):
        yield from text_buffers(values, _at(rows, np.flatnonzero(codes == code)))


def _buffer(values: Any, rows: Rows | None, codes: npt.NDArray[np.int64] | None) -> TextBuffer:
    wide = values.cast(pa.large_binary())
    buffers = wide.buffers()
    n = len(wide)
    offsets = np.zeros(1, np.int64)
    if n:
        offsets = np.frombuffer(buffers[1], np.int64)[wide.offset : wide.offset + n + 1]
    present = np.asarray(wide.is_valid()) if wide.null_count else None
    data = memoryview(buffers[2]) if buffers[2] is not None else memoryview(b"")
    return TextBuffer(data, offsets, present, rows, codes)
