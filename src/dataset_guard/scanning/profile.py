"""One-pass, mergeable statistics per column. What leaves here holds no value of a text column.

Per column: counts, nulls, distinct values (:mod:`dataset_guard.hashing.distinct`); for numbers minimum,
maximum, mean, standard deviation and a 20-bin histogram (of at most 8,192 rows sampled by row number); for
text and lists the lengths; for times the first and last month. For the label, rows per class, where a class
is named by its index in sorted order and by a salted hash, so that two versions of one tenant's set can be
compared and nobody can read the class off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from blake3 import blake3

from dataset_guard.checks.base import ClassIndex
from dataset_guard.checks.sampling import RowSample
from dataset_guard.hashing.distinct import DistinctCount, hash_strings

MAX_CLASSES = 10_000
HISTOGRAM_BINS = 20
_SAMPLE_ROWS = 8_192


def salted(value: Any, salt: bytes) -> str:
    """A class's name for reports: 48 bits of keyed BLAKE3, the same for one salt (32 bytes) only."""
    return "class:" + blake3(repr(value).encode(), key=salt).hexdigest(6)


def is_number(kind: pa.DataType) -> bool:
    """Whether a column has minimum, maximum and mean."""
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text, in any layout but dictionaries."""
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def plain(array: Any) -> Any:
    """``array`` without dictionary, run ends, extension, views or chunks."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    while isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if pt.is_dictionary(array.type):
        return plain(array.dictionary_decode())
    if pt.is_run_end_encoded(array.type):
        return plain(pc.run_end_decode(array))
    if pt.is_string_view(array.type):
        return array.cast(pa.large_string())
    if pt.is_binary_view(array.type):
        return array.cast(pa.large_binary())
    return array


@dataclass(slots=True)
class _Column:
    """Running statistics of one column."""

    kind: str
    rows: int = 0
    nulls: int = 0
    low: Any = None
    high: Any = None
    numbers: int = 0
    mean: float = 0.0
    m2: float = 0.0
    nans: int = 0
    infinite: int = 0
    zeros: int = 0
    trues: int | None = None
    shortest: int | None = None
    longest: int | None = None
    length_sum: int = 0
    measured: int = 0
    distinct: DistinctCount = field(default_factory=DistinctCount)

    def update(self, array: Any) -> None:
        array = plain(array)
        kind = array.type
        self.rows += len(array)
        self.nulls += array.null_count
        if is_number(kind):
            self._numbers(array)
        elif pt.is_boolean(kind):
            bits = np.asarray(array.cast(pa.uint8()).fill_null(0))
            self.trues = (self.trues or 0) + int(bits.sum())
            self.distinct.update(bits.astype(np.uint64), _valid(array))
        elif is_text(kind) or pt.is_binary(kind) or pt.is_large_binary(kind):
            self._texts(array)
        elif pt.is_temporal(kind) and not pt.is_interval(kind):
            self._times(array)
        elif pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind):
            self._lengths(pc.list_value_length(array))

    def _numbers(self, array: Any) -> None:
        if pt.is_decimal(array.type) or pt.is_float16(array.type):
            array = array.cast(pa.float64())
        valid = _valid(array)
        values = np.asarray(array.fill_null(0) if array.null_count else array)
        if values.dtype.kind == "f":
            nan, whole = np.isnan(values), np.isinf(values)
            self.nans += int((nan & valid).sum())
            self.infinite += int((whole & valid).sum())
            usable = valid & ~nan & ~whole
            words = (values.astype(np.float64) + 0.0).view(np.uint64)
        else:
            usable, words = valid, values.astype(np.int64, copy=False).view(np.uint64)
        self.distinct.update(words, valid)
        chosen = values if usable.all() else values[usable]
        if not len(chosen):
            return
        low, high = chosen.min().item(), chosen.max().item()
        self._widen(low, high)
        self.zeros += int(len(chosen) - np.count_nonzero(chosen))
        as_float = chosen.astype(np.float64, copy=False)
        mean = float(as_float.mean())
        self._moments(len(chosen), mean, float(np.square(as_float - mean).sum()))

    def _widen(self, low: Any, high: Any) -> None:
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)

    def _moments(self, n: int, mean: float, m2: float) -> None:
        """Chan, Golub and LeVeque's parallel update."""
        if not self.numbers:  # else the mean would be rounded once more than that of one pass
            self.numbers, self.mean, self.m2 = n, mean, m2
            return
        total = self.numbers + n
        delta = mean - self.mean
        self.m2 += m2 + delta * delta * self.numbers * n / total
        self.mean += delta * n / total
        self.numbers = total

    def _texts(self, array: Any) -> None:
        wide = array.cast(pa.large_binary())
        offsets = np.frombuffer(wide.buffers()[1], np.int64)[wide.offset : wide.offset + len(wide) + 1]
        data = wide.buffers()[2]
        words = np.zeros(len(wide), np.uint64)
        hash_strings(offsets, np.frombuffer(data or b"", np.uint8), words)
        self.distinct.update(words, _valid(wide))
        self._lengths(pc.binary_length(wide))

    def _lengths(self, lengths: Any) -> None:
        sizes = np.asarray(lengths.drop_null())
        if len(sizes):
            low, high = int(sizes.min()), int(sizes.max())
            self.shortest = low if self.shortest is None else min(self.shortest, low)
            self.longest = high if self.longest is None else max(self.longest, high)
            self.length_sum += int(sizes.sum(dtype=np.int64))
            self.measured += len(sizes)

    def _times(self, array: Any) -> None:
        kind = array.type
        words = array.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).cast(pa.int64()).fill_null(0)
        self.distinct.update(np.asarray(words).view(np.uint64), _valid(array))
        if (pt.is_timestamp(kind) or pt.is_date(kind)) and array.null_count < len(array):
            ends = pc.min_max(array)
            # Months, not moments: the earliest birthday would be somebody's.
            self._widen(*(pc.strftime(ends[e], "%Y-%m").as_py() for e in ("min", "max")))

    def merge(self, other: _Column) -> None:
        self.rows += other.rows
        self.nulls += other.nulls
        if other.low is not None:
            self._widen(other.low, other.high)
        if other.numbers:
            self._moments(other.numbers, other.mean, other.m2)
        for name in ("nans", "infinite", "zeros", "length_sum", "measured"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.trues is not None:
            self.trues = (self.trues or 0) + other.trues
        for name, best in (("shortest", min), ("longest", max)):
            ends = [v for v in (getattr(self, name), getattr(other, name)) if v is not None]
            setattr(self, name, best(ends) if ends else None)
        self.distinct.merge(other.distinct)

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"type": self.kind, "count": self.rows, "nulls": self.nulls}
        number, exact = self.distinct.finish()
        if number or self.nulls == self.rows:
            out |= {"distinct": number, "distinct_exact": exact}
        if self.low is not None:
            out |= {"min": self.low, "max": self.high}
        if self.numbers:
            deviation = math.sqrt(self.m2 / (self.numbers - 1)) if self.numbers > 1 else 0.0
            out |= {"mean": self.mean, "std": deviation, "zeros": self.zeros}
        if self.nans or self.infinite:
            out |= {"nans": self.nans, "infinite": self.infinite}
        if self.trues is not None:
            out["trues"] = self.trues
        if self.longest is not None:
            out["lengths"] = {
                "min": self.shortest, "max": self.longest, "mean": self.length_sum / max(1, self.measured),
            }  # fmt: skip
        return out


def _valid(array: Any) -> npt.NDArray[np.bool_]:
    if not array.null_count:
        return np.ones(len(array), bool)
    return np.asarray(array.is_valid())


class Profiler:
    """Profiles a stream of batches. Memory: about 70 KiB a column, the histogram sample, the classes."""

    def __init__(self, schema: pa.Schema, *, label: str | None, salt: bytes, seed: int = 0) -> None:
        self._schema = schema
        self._label = label if label in schema.names else None
        self._salt = salt
        self._columns = {f.name: _Column(str(f.type)) for f in schema}
        self._numeric = [f.name for f in schema if is_number(f.type)]
        self._sample = RowSample(_SAMPLE_ROWS, seed)
        self._classes: dict[Any, int] = {}
        self._rows = 0

    def update(self, batch: pa.RecordBatch, first_row: int) -> None:
        """Take the rows ``first_row ...``."""
        for i, name in enumerate(batch.schema.names):
            self._columns[name].update(batch.column(i))
        if self._numeric:
            rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
            self._sample.update(batch.select(self._numeric), rows)
        if self._label is not None and len(self._classes) <= MAX_CLASSES:
            self._count_classes(batch.column(self._label))
        self._rows += batch.num_rows

    def _count_classes(self, column: Any) -> None:
        values = plain(column)
        if pt.is_nested(values.type):
            return
        for entry in pc.value_counts(values).to_pylist():
            value = entry["values"]
            if value is not None:
                self._classes[value] = self._classes.get(value, 0) + entry["counts"]

    def merge(self, other: Profiler) -> None:
        """Absorb the profile of other rows."""
        for name, column in other._columns.items():
            self._columns[name].merge(column)
        self._sample.merge(other._sample)
        for value, number in other._classes.items():
            self._classes[value] = self._classes.get(value, 0) + number
        self._rows += other._rows

    def finish(self) -> dict[str, Any]:
        """``{rows, columns: {name: statistics}, label: {column, classes: [...]} | None}``."""
        columns = {name: column.to_json() for name, column in self._columns.items()}
        self._histograms(columns)
        return {"rows": self._rows, "columns": columns, "label": self._label_classes()}

    def _histograms(self, columns: Mapping[str, dict[str, Any]]) -> None:
        if not self._numeric:
            return
        _, sample = self._sample.finish(pa.schema([self._schema.field(n) for n in self._numeric]))
        for name in self._numeric:
            stats = columns[name]
            if "mean" not in stats:
                continue
            values = np.asarray(plain(sample[name]).drop_null().cast(pa.float64(), safe=False))
            values = values[np.isfinite(values)]
            low, high = float(stats["min"]), float(stats["max"])
            if len(values) and math.isfinite(high - low):
                counts, edges = np.histogram(values, HISTOGRAM_BINS, (low, high))
                stats["histogram"] = {"counts": counts.tolist(), "edges": edges.tolist(), "rows": len(values)}

    def _label_classes(self) -> dict[str, Any] | None:
        if self._label is None:
            return None
        if len(self._classes) > MAX_CLASSES or not self._classes:
            return {"column": self._label, "classes": []}
        values = list(self._classes)
        codes = ClassIndex(values).codes(values)
        named = [
            {"class": int(code), "name": salted(value, self._salt), "count": self._classes[value]}
            for value, code in zip(values, codes, strict=True)
            if code >= 0
        ]
        return {"column": self._label, "classes": sorted(named, key=lambda c: c["class"])}
