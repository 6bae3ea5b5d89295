"""A sample of rows as a model sees it: one matrix of numbers, and one text per row if there is text.

No cell leaves this module except inside these arrays, which stay in memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from dataset_guard.scanning.profile import is_number, is_text, plain

MAX_COLUMNS = 4_096
MAX_CATEGORIES = 32
TEXT_MEAN_BYTES = 20

Matrix = npt.NDArray[np.float32]


def feature_names(table: pa.Table, label: str | None) -> list[str]:
    """All columns but the label."""
    return [n for n in table.schema.names if n != label]


def matrix_of(table: pa.Table, label: str | None) -> Matrix:
    """Numbers, booleans, times, numeric lists and categories (one-hot), shape (rows, features).

    Missing values take their column's median; columns that never vary are left out, and so is everything
    beyond 4,096 features.
    """
    blocks: list[Matrix] = []
    width = 0
    for name in feature_names(table, label):
        block = _block(plain(table[name]))
        if block is None or width + block.shape[1] > MAX_COLUMNS:
            continue
        blocks.append(block)
        width += block.shape[1]
    if not blocks:
        return np.empty((table.num_rows, 0), np.float32)
    whole = np.concatenate(blocks, axis=1)
    _fill(whole)
    return np.asarray(whole[:, np.ptp(whole, axis=0) > 0] if len(whole) else whole)


def _block(array: Any) -> Matrix | None:
    kind = array.type
    if is_number(kind) or pt.is_boolean(kind):
        return _numbers(array)[:, None]
    if pt.is_temporal(kind) and not pt.is_interval(kind):
        ticks = array.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
        return _numbers(ticks)[:, None]
    if pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind):
        return list_matrix(array)
    if is_text(kind):
        return _categories(array)
    return None


def _numbers(array: Any) -> npt.NDArray[np.float32]:
    values = array.cast(pa.float64(), safe=False)
    return np.asarray(values.fill_null(float("nan"))).astype(np.float32)


def list_matrix(array: Any) -> Matrix | None:
    """A list column whose values are numbers and equally many in every row, shape (rows, items).

    Rows without a list hold missing values.
    """
    known = np.asarray(array.is_valid())
    lists = array.drop_null() if array.null_count else array
    if not len(lists):
        return None
    items = plain(lists.flatten())
    if pt.is_nested(items.type):
        items = plain(items.flatten()) if not items.null_count and _is_list(items.type) else items
    if not is_number(items.type) or len(items) % len(lists):
        return None
    lengths = np.asarray(pc.list_value_length(lists))
    if not (lengths == lengths[0]).all():
        return None
    matrix = _numbers(items).reshape(len(lists), -1)
    if known.all():
        return matrix
    out = np.full((len(array), matrix.shape[1]), np.nan, np.float32)
    out[known] = matrix
    return out


def _is_list(kind: pa.DataType) -> bool:
    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))


def _categories(array: Any) -> Matrix | None:
    encoded = array.dictionary_encode()
    if not 1 < len(encoded.dictionary) <= MAX_CATEGORIES:
        return None
    codes = np.asarray(encoded.indices.fill_null(-1))
    return np.asarray(codes[:, None] == np.arange(len(encoded.dictionary))[None, :]).astype(np.float32)


def _fill(matrix: Matrix) -> None:
    bad = ~np.isfinite(matrix)
    for column in np.flatnonzero(bad.any(axis=0)):
        rows = bad[:, column]
        matrix[rows, column] = np.median(matrix[~rows, column]) if not rows.all() else 0.0


def texts_of(table: pa.Table, label: str | None) -> list[str] | None:
    """The row's texts joined; None when no column holds text of 20 bytes on average."""
    columns = []
    for name in feature_names(table, label):
        array = plain(table[name])
        if is_text(array.type) and len(array):
            mean = pc.mean(pc.binary_length(array)).as_py()
            if mean is not None and mean >= TEXT_MEAN_BYTES:
                columns.append(array.cast(pa.string()).fill_null(""))
    if not columns:
        return None
    joined: list[str] = pc.binary_join_element_wise(*columns, "\n").to_pylist()
    return joined
