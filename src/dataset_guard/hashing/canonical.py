"""Canonical types and bytes of Arrow columns: the ground that ``dg1`` stands on.

Two questions are answered here, both without regard to layout (slices, chunks, dictionaries, run
ends, views, offset widths, validity bitmaps without nulls):

* :func:`logical_type`: what is this column, as text?
* :func:`encode`: which bytes stand for these values?

docs/fingerprint.md is the specification; ``tests/dataset_guard/reference_dg1.py`` is a second,
slow implementation that was written from it. Buffers are handed on without a copy wherever the
Arrow layout already is the canonical one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from dataset_guard.hashing.extension_types import extension_of
from guard_core.errors import UserError

Update = Callable[[Any], Any]
"""Takes the next bytes (any object with the buffer protocol) of a canonical encoding."""

Array = Any
"""A ``pyarrow.Array``; pyarrow ships no types."""

MAX_VALUE_BYTES = 2**32 - 1
"""Longest string, binary value or list (items): lengths are written as u32."""

_U32 = np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a canonical schema: its name, logical type and position in the source."""

    name: str
    type: str
    index: int


def quote(text: str) -> str:
    """``text`` in double quotes, with backslash and double quote escaped by a backslash."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def canonical_schema(schema: pa.Schema) -> tuple[Column, ...]:
    """The columns of ``schema``, sorted by the UTF-8 bytes of their names.

    Raises UserError for two columns, or two members of one struct, with the same name.
    """
    columns = [Column(field.name, logical_type(field), i) for i, field in enumerate(schema)]
    _refuse_duplicates([c.name for c in columns], "the data")
    return tuple(sorted(columns, key=lambda c: c.name.encode()))


def _refuse_duplicates(names: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{where} has two columns named {name!r}; rename one of them")
        seen.add(name)


def logical_type(field: pa.Field) -> str:
    """The logical type of ``field`` as text (docs/fingerprint.md, "Logical types")."""
    extension = extension_of(field)
    storage = _storage_type(field.type)
    plain = _plain_type(storage)
    if extension is None:
        return plain
    name, parameters = extension
    return f"extension<{quote(name)}, {quote(parameters)}, {plain}>"


def _storage_type(data_type: pa.DataType) -> pa.DataType:
    while isinstance(data_type, pa.BaseExtensionType):
        data_type = data_type.storage_type
    return data_type


_SIMPLE: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (pt.is_null, "null"),
    (pt.is_boolean, "bool"),
    (pt.is_float16, "float16"),
    (pt.is_float32, "float32"),
    (pt.is_float64, "float64"),
    (pt.is_date, "date"),
    (lambda t: pt.is_string(t) or pt.is_large_string(t) or pt.is_string_view(t), "string"),
    (lambda t: pt.is_binary(t) or pt.is_large_binary(t) or pt.is_binary_view(t), "binary"),
)


def _plain_type(t: pa.DataType) -> str:
    for matches, name in _SIMPLE:
        if matches(t):
            return name
    if pt.is_integer(t):
        return str(t)
    if pt.is_decimal(t):
        return f"decimal({t.precision}, {t.scale})"
    if pt.is_timestamp(t):
        zone = "" if t.tz is None else f", tz={quote(t.tz)}"
        return f"timestamp[{_unit(t)}{zone}]"
    if pt.is_time(t):
        return f"time[{_unit(t)}]"
    if pt.is_duration(t):
        return f"duration[{_unit(t)}]"
    if pt.is_fixed_size_binary(t):
        return f"fixed_size_binary[{t.byte_width}]"
    if pt.is_interval(t):
        return "interval[month_day_nano]"
    return _nested_type(t)


def _nested_type(t: pa.DataType) -> str:
    if pt.is_dictionary(t) or pt.is_run_end_encoded(t):
        return logical_type(pa.field("", t.value_type))
    if pt.is_fixed_size_list(t):
        return f"fixed_size_list[{t.list_size}]<{logical_type(t.value_field)}>"
    if pt.is_map(t):
        return f"map<{logical_type(t.key_field)}, {logical_type(t.item_field)}>"
    if is_list(t):
        return f"list<{logical_type(t.value_field)}>"
    if pt.is_struct(t):
        members = sorted_members(t)
        return "struct<" + ", ".join(f"{quote(f.name)}: {logical_type(f)}" for _, f in members) + ">"
    if pt.is_union(t):
        members = [(code, t.field(i)) for i, code in enumerate(t.type_codes)]
        inner = (f"{code} {quote(f.name)}: {logical_type(f)}" for code, f in sorted(members, key=_first))
        return "union<" + ", ".join(inner) + ">"
    raise UserError(f"columns of Arrow type {t} cannot be fingerprinted; cast them to another type first")


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _unit(t: pa.DataType) -> str:
    """Seconds count as milliseconds, because Parquet has no seconds and a re-encoding must not matter."""
    return "ms" if t.unit == "s" else str(t.unit)


def is_list(t: pa.DataType) -> bool:
    """Whether ``t`` is a list of any offset width or a list view (not a map, not of fixed size)."""
    return bool(pt.is_list(t) or pt.is_large_list(t) or pt.is_list_view(t) or pt.is_large_list_view(t))


def sorted_members(t: pa.StructType) -> list[tuple[int, pa.Field]]:
    """(position, field) of a struct's members, sorted by the UTF-8 bytes of their names."""
    members = [(i, t.field(i)) for i in range(t.num_fields)]
    _refuse_duplicates([f.name for _, f in members], "a struct column")
    return sorted(members, key=lambda m: m[1].name.encode())


def decoded(array: Array) -> Array:
    """``array`` without extension, dictionary, run-end or view layers, in the canonical width of its type.

    Raises UserError for values that their own type does not allow (a date64 within a day) or that
    the canonical unit cannot hold (seconds beyond the year 292 million).
    """
    while True:
        t = array.type
        if isinstance(t, pa.BaseExtensionType):
            array = array.storage
        elif pt.is_dictionary(t):
            array = array.dictionary_decode()
        elif pt.is_run_end_encoded(t):
            array = pc.run_end_decode(array)
        else:
            break
    target = _canonical_width(t)
    if target is None:
        return array
    try:
        return array.cast(target)
    except pa.ArrowInvalid as error:
        raise UserError(
            f"a column of type {t} holds a value outside the range of {target}; cast it first"
        ) from error


def _canonical_width(t: pa.DataType) -> pa.DataType | None:
    """The Arrow type to cast to before encoding, or None when ``t`` is canonical already."""
    target = t
    if pt.is_decimal(t):
        target = pa.decimal128(t.precision, t.scale) if t.precision <= 38 else t
    elif pt.is_date64(t):
        target = pa.date32()
    elif pt.is_string_view(t):
        target = pa.large_string()
    elif pt.is_binary_view(t):
        target = pa.large_binary()
    elif pt.is_timestamp(t) and t.unit == "s":
        target = pa.timestamp("ms", tz=t.tz)
    elif pt.is_time32(t) and t.unit == "s":
        target = pa.time32("ms")
    elif pt.is_duration(t) and t.unit == "s":
        target = pa.duration("ms")
    return None if target == t else target


def encode(pieces: Sequence[Array], update: Update) -> None:
    """Feed ``update`` the canonical bytes of the values in ``pieces``, taken as one column.

    ``pieces`` are one or more arrays of one Arrow type. Raises UserError as :func:`decoded` does and
    for a value longer than :data:`MAX_VALUE_BYTES`.
    """
    arrays = [decoded(piece) for piece in pieces]
    t = arrays[0].type
    update(struct.pack("<Q", sum(len(a) for a in arrays)))
    if pt.is_null(t):
        return
    if pt.is_union(t):
        _encode_union(arrays, update)
        return
    _encode_validity(arrays, update)
    if pt.is_boolean(t):
        update(np.packbits(np.concatenate([_bools(a) for a in arrays]), bitorder="little"))
    elif pt.is_floating(t):
        for a in arrays:
            update(_floats(a))
    elif _is_var_binary(t):
        _encode_var_binary(arrays, update)
    elif pt.is_map(t):
        _encode_lists([map_as_list(a) for a in arrays], update)
    elif is_list(t):
        _encode_lists(arrays, update)
    elif pt.is_fixed_size_list(t):
        encode([a.flatten() for a in arrays], update)
    elif pt.is_struct(t):
        flat = [a.flatten() for a in arrays]
        for i, _ in sorted_members(t):
            encode([members[i] for members in flat], update)
    else:
        for a in arrays:
            update(fixed_width(a))


def _is_var_binary(t: pa.DataType) -> bool:
    return bool(pt.is_string(t) or pt.is_large_string(t) or pt.is_binary(t) or pt.is_large_binary(t))


def validity(array: Array) -> npt.NDArray[np.uint8]:
    """One byte per value: 1 where there is a value, 0 where there is null."""
    n = len(array)
    bitmap = array.buffers()[0]
    if bitmap is None or array.null_count == 0:
        return np.ones(n, np.uint8)
    return _bits(bitmap, array.offset, n)


def _bits(buffer: Any, offset: int, n: int) -> npt.NDArray[np.uint8]:
    first = offset >> 3
    packed = np.frombuffer(buffer, np.uint8)[first : (offset + n + 7) >> 3]
    return np.unpackbits(packed, bitorder="little")[offset & 7 : (offset & 7) + n]


def _bools(array: Array) -> npt.NDArray[np.uint8]:
    n = len(array)
    if n == 0:
        return np.empty(0, np.uint8)
    values = _bits(array.buffers()[1], array.offset, n)
    return values & validity(array) if array.null_count else values


def _encode_validity(arrays: Sequence[Array], update: Update) -> None:
    if not any(a.null_count for a in arrays):
        update(b"\0")
        return
    update(b"\1")
    update(np.packbits(np.concatenate([validity(a) for a in arrays]), bitorder="little"))


def fixed_width(array: Array) -> Any:
    """The values of a fixed-width ``array`` as bytes, nulls as zero bytes; a view when there are no nulls."""
    n, width = len(array), array.type.bit_width // 8
    if n == 0 or width == 0:
        return b""
    view = memoryview(array.buffers()[1])[array.offset * width : (array.offset + n) * width]
    if array.null_count == 0:
        return view
    if width in (1, 2, 4, 8):
        values = np.frombuffer(view, np.dtype(f"<u{width}"))
        return values * validity(array).astype(values.dtype)
    cells = np.frombuffer(view, np.uint8).reshape(n, width)
    return np.ascontiguousarray(cells * validity(array)[:, None])


def _floats(array: Array) -> npt.NDArray[Any]:
    """IEEE values, little endian, with -0.0 as 0.0, every NaN as the quiet positive one, nulls as 0.0."""
    width = array.type.bit_width // 8
    raw = fixed_width(array)
    if width == 2:
        half = np.array(np.frombuffer(raw, "<u2"))
        half[half == 0x8000] = 0
        half[(half & 0x7FFF) > 0x7C00] = 0x7E00
        return half
    with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN like any other
        values: npt.NDArray[Any] = np.frombuffer(raw, np.dtype(f"<f{width}")) + np.dtype(f"<f{width}").type(0)
    nans = np.isnan(values)
    if nans.any():
        bits = values.view(np.dtype(f"<u{width}"))
        bits[nans] = 0x7FC00000 if width == 4 else 0x7FF8000000000000
    return values


def _offsets(array: Array) -> npt.NDArray[Any]:
    wide = pt.is_large_string(array.type) or pt.is_large_binary(array.type)
    dtype = np.dtype("<i8" if wide else "<i4")
    if len(array) == 0:
        return np.zeros(1, dtype)
    return np.frombuffer(array.buffers()[1], dtype)[array.offset : array.offset + len(array) + 1]


def var_binary(array: Array) -> tuple[npt.NDArray[Any], Any]:
    """(length of each value as u32, the bytes of all values in order); nulls have length 0 and no bytes."""
    offsets = _offsets(array)
    lengths = np.diff(offsets)
    if array.null_count:
        kept = lengths * validity(array).astype(lengths.dtype)
        if int(kept.sum()) != int(lengths.sum()):  # a null slot may own bytes: they are not data
            return var_binary(array.fill_null(b"" if _holds_bytes(array.type) else ""))
        lengths = kept
    if lengths.dtype != np.dtype("<i4") and len(lengths) and int(lengths.max()) > MAX_VALUE_BYTES:
        raise UserError("a value of 4 GiB or more cannot be fingerprinted; store it in a file of its own")
    data = array.buffers()[2] if len(array) else None
    view = memoryview(data)[int(offsets[0]) : int(offsets[-1])] if data is not None else b""
    return lengths.astype(_U32, copy=False), view


def _holds_bytes(t: pa.DataType) -> bool:
    return bool(pt.is_binary(t) or pt.is_large_binary(t))


def _encode_var_binary(arrays: Sequence[Array], update: Update) -> None:
    parts = [var_binary(a) for a in arrays]
    for lengths, _ in parts:
        update(lengths)
    for _, data in parts:
        update(data)


def list_lengths(array: Array) -> npt.NDArray[Any]:
    """Items in each list as u32; null lists have none. ``array`` is a list of any width, or a view."""
    lengths = np.asarray(pc.list_value_length(array).fill_null(0))
    if len(lengths) and int(lengths.max()) > MAX_VALUE_BYTES:
        raise UserError("a list of 2**32 items or more cannot be fingerprinted; split it")
    return lengths.astype(_U32)


def map_as_list(array: Array) -> Array:
    """A map ``array`` as a list of structs with members ``key`` and ``value``, sharing its buffers."""
    entries = pa.StructArray.from_arrays([array.keys, array.items], names=["key", "value"])
    return pa.ListArray.from_buffers(
        pa.list_(entries.type),
        len(array),
        array.buffers()[:2],
        offset=array.offset,
        children=[entries],
    )


def _encode_lists(arrays: Sequence[Array], update: Update) -> None:
    for a in arrays:
        update(list_lengths(a))
    encode([a.flatten() for a in arrays], update)


def union_codes(array: Array) -> npt.NDArray[np.uint8]:
    """The type code of each row. Read from the buffer: ``UnionArray.type_codes`` forgets a slice's offset."""
    return _window(array, 1, np.uint8)


def _window(array: Array, buffer: int, dtype: Any) -> npt.NDArray[Any]:
    if len(array) == 0:
        return np.empty(0, dtype)
    values: npt.NDArray[Any] = np.frombuffer(array.buffers()[buffer], dtype)
    return values[array.offset : array.offset + len(array)]


def union_members(array: Array) -> list[tuple[int, Array]]:
    """(type code, the values of the rows that chose it, in row order), sorted by type code."""
    codes = union_codes(array)
    members = []
    for i, code in enumerate(array.type.type_codes):
        rows = np.flatnonzero(codes == code)
        if array.type.mode == "dense":
            rows = _window(array, 2, np.dtype("<i4"))[rows]
        members.append((code, decoded(array.field(i)).take(pa.array(rows))))
    return sorted(members, key=_first)


def _encode_union(arrays: Sequence[Array], update: Update) -> None:
    for a in arrays:
        update(union_codes(a))
    members = [union_members(a) for a in arrays]
    for i in range(len(members[0])):
        encode([m[i][1] for m in members], update)
