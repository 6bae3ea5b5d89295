"""One block of rows as compiled expectations see it: what several of them need is worked out once.

A value is *missing* when it is null or NaN: pandas has one word for both, and Great Expectations counts on
pandas frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from dataset_guard.checks.quality.gx_engine import Outcome
from dataset_guard.scanning.profile import is_text, plain

Mask = npt.NDArray[np.bool_]
Family = Literal["int", "float", "text", "bool", "time", "date", "other"]


def family(kind: pa.DataType) -> Family:
    """What may be compared with what. Dictionaries, run ends and extensions count as their values."""
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return family(kind.value_type)
    if pt.is_integer(kind):
        return "int"
    if pt.is_floating(kind):
        return "float"
    if is_text(kind):
        return "text"
    if pt.is_boolean(kind):
        return "bool"
    if pt.is_timestamp(kind):
        return "time"
    return "date" if pt.is_date32(kind) else "other"


class Column:
    """One column of a block."""

    def __init__(self, array: Any) -> None:
        self.array = plain(array)
        self.family = family(self.array.type)

    @cached_property
    def missing(self) -> Mask | None:
        """Which values are missing, shape (rows,); None when none is."""
        if self.family == "float":
            nans = np.isnan(self.numbers)
            return nans if nans.any() else None  # nulls are NaN among the numbers
        return self._nulls

    @cached_property
    def _nulls(self) -> Mask | None:
        array = self.array
        if not array.null_count:
            return None
        return flags(array.is_null())

    @cached_property
    def missing_count(self) -> int:
        """How many values are missing."""
        return 0 if self.missing is None else int(np.count_nonzero(self.missing))

    @cached_property
    def numbers(self) -> npt.NDArray[Any]:
        """The values as numbers: float64 (null is NaN), or integers (null is any); times in their unit."""
        array = self.array
        if self.family == "bool":
            array = array.cast(pa.uint8())
        elif self.family in ("time", "date"):
            array = array.view(pa.int64() if self.family == "time" else pa.int32())
        sort = "f" if self.family == "float" else "u" if pt.is_unsigned_integer(array.type) else "i"
        kind = np.dtype(f"{sort}{array.type.bit_width // 8}")
        values = np.frombuffer(array.buffers()[1] or b"", kind, len(array), array.offset * kind.itemsize)
        if self.family != "float":
            return values
        wide = values.astype(np.float64, copy=False)
        return wide if self._nulls is None else np.where(self._nulls, np.nan, wide)

    @cached_property
    def present(self) -> npt.NDArray[Any]:
        """The numbers that are not missing."""
        return self.numbers if self.missing is None else self.numbers[~self.missing]

    @cached_property
    def extent(self) -> tuple[Any, Any] | None:
        """The least and the greatest of the present numbers; None without any."""
        if not len(self.present):
            return None
        return self.present.min().item(), self.present.max().item()

    @cached_property
    def _text(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Where each text begins, shape (rows + 1,), and the bytes of all of them from the first on."""
        wide = self.array.cast(pa.large_string())
        offsets = np.frombuffer(wide.buffers()[1], np.int64)[wide.offset : wide.offset + len(wide) + 1]
        if not len(offsets) or offsets[0] == offsets[-1]:
            return offsets, np.empty(0, np.uint8)
        return offsets, np.frombuffer(wide.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]

    @property
    def bytes(self) -> npt.NDArray[np.uint8]:
        """The UTF-8 of all texts, one after another."""
        return self._text[1]

    @cached_property
    def printable(self) -> bool:
        """Whether all texts are printable ASCII; a cheap look at the bytes."""
        data = self._text[1]
        return not len(data) or bool(data.max() <= 0x7E and data.min() >= 0x20)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Code points of each text, shape (rows,); anything where it is null."""
        offsets, data = self._text
        if not len(data) or data.max() < 0x80:
            return np.diff(offsets) if len(offsets) else np.empty(0, np.int64)
        return integers(pc.utf8_length(self.array).fill_null(0)).astype(np.int64)


class Block:
    """A batch whose first row has the number ``first_row``."""

    def __init__(self, batch: pa.RecordBatch, first_row: int) -> None:
        self.rows = batch.num_rows
        self.first_row = first_row
        self._batch = batch
        self._columns: dict[str, Column] = {}
        self._numbers: npt.NDArray[np.int64] | None = None
        self._parts: dict[Any, Block] = {}

    def column(self, name: str) -> Column:
        """The column ``name``, the same object whoever asks."""
        if name not in self._columns:
            self._columns[name] = Column(self._batch.column(name))
        return self._columns[name]

    def where(self, condition: Callable[[Block], Mask]) -> Block:
        """The rows that ``condition`` picks, with their own numbers; picked once for equal conditions."""
        if condition not in self._parts:
            mask = condition(self)
            packed = pa.py_buffer(np.packbits(mask, bitorder="little"))
            picked = pa.Array.from_buffers(pa.bool_(), self.rows, [None, packed])
            part = Block(self._batch.filter(picked), self.first_row)
            part._numbers = np.flatnonzero(mask) + self.first_row
            self._parts[condition] = part
        return self._parts[condition]

    def judged(self, bad: Mask | None, missing: int) -> Outcome:
        """The counts of one expectation; ``bad`` are its unexpected rows, None when there are none."""
        rows: Any = () if bad is None else np.flatnonzero(bad)
        if len(rows):
            rows = rows + self.first_row if self._numbers is None else self._numbers[rows]
        return Outcome(
            success=not len(rows),
            raised=False,
            elements=self.rows,
            missing=missing,
            unexpected=len(rows),
            rows=rows,
        )


def array_of(values: npt.NDArray[Any], missing: Mask | None = None) -> Any:
    """Numbers as an Arrow array. ``pa.array`` would import pandas, which takes a quarter of a second."""
    kind = pa.from_numpy_dtype(values.dtype)
    valid = None if missing is None else pa.py_buffer(np.packbits(~missing, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(np.ascontiguousarray(values))])


def texts_of(values: Sequence[str], kind: pa.DataType) -> Any:
    """Texts as an Arrow array of ``kind`` (string or large_string), likewise."""
    encoded = [v.encode() for v in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    offsets, data = pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))
    return pa.Array.from_buffers(pa.large_string(), len(encoded), [None, offsets, data]).cast(kind)


def flags(array: Any) -> Mask:
    """A boolean Arrow array without nulls as a NumPy one. ``np.asarray`` of it would import pandas."""
    packed = np.frombuffer(array.buffers()[1] or b"", np.uint8)[array.offset // 8 :]
    skipped = array.offset % 8
    return np.unpackbits(packed, count=skipped + len(array), bitorder="little")[skipped:].view(np.bool_)


def integers(array: Any) -> npt.NDArray[Any]:
    """An Arrow array of signed integers without nulls as a NumPy one, likewise."""
    kind = np.dtype(f"i{array.type.bit_width // 8}")
    return np.frombuffer(array.buffers()[1] or b"", kind, len(array), array.offset * kind.itemsize)


def among(array: Any, values: Sequence[str]) -> Mask:
    """Which texts of ``array`` are among ``values``; null is not."""
    options = pc.SetLookupOptions(texts_of(values, array.type))
    return flags(pc.call_function("is_in", [array], options))


def except_missing(bad: Mask, missing: Mask | None) -> Mask:
    """``bad`` without the rows that are missing."""
    return bad if missing is None else bad & ~missing
