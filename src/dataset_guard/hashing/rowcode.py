"""The canonical bytes of a row: what a row hash is a hash of.

A row is the concatenation of its cells, columns sorted by the UTF-8 bytes of their names. A cell
begins with a tag, which also says how it ends, so no two rows share an encoding. Values are
normalised further than in ``dg1`` leaves, because rows of different files are compared: integers
and floats of every width, lists of every layout and times of every unit are equal when their values
are (docs/fingerprint.md, "Row encoding").

Here columns become the forms that :mod:`dataset_guard.hashing.rowpack` writes: a tag and eight bytes
(:class:`Fixed`, :class:`Full`), a tag, a count and bytes (:class:`Counted`, :class:`Texts`), or bytes that
are cells already (:class:`Raw`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from dataset_guard.hashing import rowpack
from dataset_guard.hashing.canonical import (
    Array,
    decoded,
    fixed_width,
    is_list,
    list_lengths,
    map_as_list,
    sorted_members,
    union_codes,
    union_members,
    validity,
    var_binary,
)
from dataset_guard.hashing.rowpack import I64, Cells, Counted, Fixed, Full, Raw, Texts

NULL, FALSE, TRUE, INT, BIG_UINT, FLOAT, DATE, TIME = range(8)
TIMESTAMP_NAIVE, TIMESTAMP_UTC, DURATION = 8, 12, 16  # + 0 s, 1 ms, 2 us, 3 ns
STRING, BINARY, DECIMAL, INTERVAL, LIST, MAP, STRUCT, UNION = range(20, 28)

_UNIT_POWER = {"s": 0, "ms": 1, "us": 2, "ns": 3}


def cells_of(array: Array) -> Cells:
    """The cells of ``array``. Raises UserError as :func:`dataset_guard.hashing.canonical.decoded` does."""
    array = decoded(array)
    t = array.type
    if pt.is_null(t):
        return Fixed(np.zeros(len(array), np.uint8), _zeros(array))
    if pt.is_boolean(t):
        bits = np.asarray(array.cast(pa.uint8()).fill_null(0))
        return Fixed(
            np.where(validity(array) == 1, bits + np.uint8(FALSE), NULL).astype(np.uint8), _zeros(array)
        )
    if pt.is_integer(t):
        return _integers(array)
    if pt.is_floating(t):
        return _floats(array)
    if pt.is_temporal(t) and not pt.is_interval(t):
        return _times(array)
    if pt.is_string(t) or pt.is_large_string(t):
        return _strings(array, STRING)
    if pt.is_binary(t) or pt.is_large_binary(t):
        return _strings(array, BINARY)
    return _other_cells(array)


def _other_cells(array: Array) -> Cells:
    t = array.type
    if pt.is_fixed_size_binary(t) and not pt.is_decimal(t):
        return _fixed_size(array, BINARY, b"", counted=True)
    if pt.is_decimal(t):
        return _fixed_size(array, DECIMAL, int(t.scale).to_bytes(4, "little", signed=True), counted=False)
    if pt.is_interval(t):
        return _fixed_size(array, INTERVAL, b"", counted=False)
    if pt.is_map(t):
        return _map_cells(array)
    if pt.is_fixed_size_list(t):
        lengths = validity(array).astype(np.int64) * t.list_size
        return _list_cells(array, LIST, lengths, array.flatten())
    if is_list(t):
        return _list_cells(array, LIST, list_lengths(array).astype(np.int64), array.flatten())
    if pt.is_struct(t):
        return _struct_cells(array)
    return _union_cells(array)


def _zeros(array: Array) -> npt.NDArray[np.uint64]:
    return np.zeros(len(array), np.uint64)


def _fixed(array: Array, tag: int, values: npt.NDArray[Any]) -> Fixed | Full:
    if not array.null_count:
        return Full(tag, values.view(np.uint64))
    return Fixed(validity(array) * np.uint8(tag), values.view(np.uint64))


def _integers(array: Array) -> Fixed | Full:
    signed = pt.is_signed_integer(array.type)
    width = array.type.bit_width // 8
    values = np.frombuffer(fixed_width(array), np.dtype(f"<{'i' if signed else 'u'}{width}"))
    if not signed and width == 8:
        tags = np.where(values >> np.uint64(63), BIG_UINT, INT).astype(np.uint8)
        return Fixed(validity(array) * tags, values)
    return _fixed(array, INT, values.astype(np.int64))


def _floats(array: Array) -> Fixed | Full:
    width = array.type.bit_width // 8
    with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN like any other
        values = np.frombuffer(fixed_width(array), np.dtype(f"<f{width}")).astype(np.float64) + 0.0
    values[np.isnan(values)] = np.nan  # one NaN: quiet, positive, no payload
    bits = values.view(np.uint64)
    bits[np.isnan(values)] = 0x7FF8000000000000
    return _fixed(array, FLOAT, bits)


def _times(array: Array) -> Fixed | Full:
    t = array.type
    width = t.bit_width // 8
    values = np.frombuffer(fixed_width(array), np.dtype(f"<i{width}")).astype(np.int64)
    if pt.is_date(t):
        return _fixed(array, DATE, values)
    power = _UNIT_POWER[t.unit]
    if pt.is_time(t):
        return _fixed(array, TIME, values * 1000 ** (3 - power))
    base = DURATION if pt.is_duration(t) else TIMESTAMP_NAIVE if t.tz is None else TIMESTAMP_UTC
    tags = np.full(len(values), base + power, np.uint8)
    for step in range(power, 0, -1):  # the coarsest unit that holds the value exactly
        coarser, rest = np.divmod(values, 1000)
        shrink = (rest == 0) & (tags == base + step)
        if not shrink.any():
            break
        values = np.where(shrink, coarser, values)
        tags -= shrink
    return Fixed(validity(array) * tags, np.ascontiguousarray(values).view(np.uint64))


def _strings(array: Array, tag: int) -> Counted | Texts:
    if len(array) and not array.null_count and (pt.is_string(array.type) or pt.is_binary(array.type)):
        offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
        return Texts(tag, offsets, np.frombuffer(array.buffers()[2] or b"", np.uint8))
    lengths, data = var_binary(array)
    counts = lengths.astype(np.int64)
    return Counted(tag, validity(array), counts, _running(counts), np.frombuffer(data, np.uint8))


def _running(lengths: I64) -> I64:
    """Offsets, one more than lengths, of values that lie end to end."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _fixed_size(array: Array, tag: int, head: bytes, *, counted: bool) -> Cells:
    n, width = len(array), array.type.bit_width // 8
    payload = np.frombuffer(fixed_width(array), np.uint8).reshape(n, width)
    if counted:
        counts = np.full(n, width, np.int64)
        return Counted(tag, validity(array), counts, _running(counts), payload.reshape(-1))
    prefix = np.frombuffer(bytes([tag]) + head, np.uint8)
    cells = np.concatenate([np.broadcast_to(prefix, (n, len(prefix))), payload], axis=1)
    valid = validity(array)
    lengths = np.where(valid == 1, cells.shape[1], 1)
    cells[valid == 0] = NULL
    keep = np.arange(cells.shape[1])[None, :] < lengths[:, None]
    return Raw(_running(lengths.astype(np.int64)), cells[keep])


def raw(cells: Cells) -> Raw:
    """``cells`` written out."""
    if isinstance(cells, Raw):
        return cells
    lengths = rowpack.measure([cells])
    offsets = _running(lengths)
    out = np.empty(int(offsets[-1]), np.uint8)
    rowpack.write([cells], out, offsets[:-1].copy())
    return Raw(offsets, out)


def _list_cells(array: Array, tag: int, lengths: I64, items: Array) -> Counted:
    inner = raw(cells_of(items))
    return Counted(tag, validity(array), lengths, inner.offsets[_running(lengths)], inner.data)


def _map_cells(array: Array) -> Counted:
    as_list = map_as_list(array)
    entries = as_list.flatten()
    keys, items = entries.flatten()
    pair = joined([raw(cells_of(keys)), raw(cells_of(items))])
    lengths = list_lengths(as_list).astype(np.int64)
    return Counted(MAP, validity(array), lengths, pair.offsets[_running(lengths)], pair.data)


def joined(parts: list[Raw]) -> Raw:
    """Row by row, the cells of ``parts`` one after the other."""
    lengths = rowpack.measure(parts)
    offsets = _running(lengths)
    out = np.empty(int(offsets[-1]), np.uint8)
    rowpack.write(parts, out, offsets[:-1].copy())
    return Raw(offsets, out)


def _struct_cells(array: Array) -> Counted:
    """A struct is counted by its members; each member is its name (as a STRING cell) and its cell."""
    members = array.flatten()
    parts: list[Raw] = []
    n = len(array)
    for i, field in sorted_members(array.type):
        name = raw(cells_of(pa.array([field.name], pa.string())))
        size = len(name.data)
        parts.append(Raw(np.arange(n + 1, dtype=np.int64) * size, np.tile(name.data, n)))
        parts.append(raw(cells_of(members[i])))
    inner = joined(parts) if parts else Raw(np.zeros(n + 1, np.int64), np.empty(0, np.uint8))
    counts = np.full(n, array.type.num_fields, np.int64)
    return Counted(STRUCT, validity(array), counts, inner.offsets, inner.data)


def _union_cells(array: Array) -> Raw:
    """A union's cell: the tag, the type code, the cell of the chosen value."""
    codes = union_codes(array)
    pieces: list[Any] = []
    order: list[npt.NDArray[np.int64]] = []
    for code, values in union_members(array):
        chosen = np.flatnonzero(codes == code)
        inner = raw(cells_of(values))
        head = Raw(
            np.arange(len(chosen) + 1, dtype=np.int64) * 2,
            np.tile([UNION, code], len(chosen)).astype(np.uint8),
        )
        pieces.append(joined([head, inner]))
        order.append(chosen)
    blobs = pa.chunked_array([_as_binary(p) for p in pieces], pa.large_binary()).combine_chunks()
    back = np.argsort(np.concatenate(order)) if order else np.empty(0, np.int64)
    lengths, data = var_binary(pc.take(blobs, pa.array(back)))
    return Raw(_running(lengths.astype(np.int64)), np.frombuffer(data, np.uint8))


def _as_binary(cells: Raw) -> Array:
    buffers = [None, pa.py_buffer(np.ascontiguousarray(cells.offsets)), pa.py_buffer(cells.data)]
    return pa.Array.from_buffers(pa.large_binary(), len(cells.offsets) - 1, buffers)
