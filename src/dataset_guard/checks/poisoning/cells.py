"""Tables as sets of cells and pairs of cells, so that the search for word sequences can search tables.

A cell is a column with one exact value. Only values that are in several rows matter: a trigger repeats.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from blake3 import blake3

from dataset_guard.checks.features import feature_names
from dataset_guard.checks.poisoning.ngrams import Incidence, Keys, incidence, mixed
from dataset_guard.scanning.profile import is_number, is_text, plain

MAX_COLUMNS = 64
"""Beyond so many columns only the first are searched: pairs grow with the square."""


def cell_columns(schema: pa.Schema, label: str | None) -> list[str]:
    """The columns that are searched: numbers, booleans and short text."""
    empty = schema.empty_table()
    held = [n for n in feature_names(empty, label) if _holds_cells(schema.field(n).type)]
    return held[:MAX_COLUMNS]


def _holds_cells(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return is_number(kind) or pa.types.is_boolean(kind) or is_text(kind)


def pairs_of(table: pa.Table, columns: list[str], least: int) -> Incidence:
    """All pairs of cells of ``columns`` that are in at least ``least`` rows; keys are equal across tables."""
    keys: list[Keys] = []
    rows: list[npt.NDArray[np.int32]] = []
    cells = [_cells(table, i, name, least) for i, name in enumerate(columns)]
    for i, (left, common) in enumerate(cells):
        for right, also in cells[i + 1 :]:
            at = np.flatnonzero(common & also)
            if len(at) < least:
                continue
            pair = mixed(left[at], right[at], 2)
            # Most pairs are alone: drop them before they are sorted with the others.
            _, which, counts = np.unique(pair, return_inverse=True, return_counts=True)
            kept = counts[which] >= least
            keys.append(pair[kept])
            rows.append(at[kept].astype(np.int32))
    if not keys:
        return incidence(np.empty(0, np.uint64), np.empty(0, np.int32), table.num_rows)
    return incidence(np.concatenate(keys), np.concatenate(rows), table.num_rows)


def _cells(table: pa.Table, number: int, name: str, least: int) -> tuple[Keys, npt.NDArray[np.bool_]]:
    """A key per row, and whether the value is in at least ``least`` rows (a missing one never is)."""
    encoded = plain(table[name]).dictionary_encode()
    codes = np.asarray(encoded.indices.fill_null(-1)).astype(np.int64)
    counts = np.bincount(codes[codes >= 0], minlength=len(encoded.dictionary))
    words = [repr((number, v)).encode() for v in encoded.dictionary.to_pylist()]
    keys = np.frombuffer(b"".join(blake3(w).digest(length=8) for w in words), np.uint64)
    if not len(keys):
        return np.zeros(len(codes), np.uint64), np.zeros(len(codes), bool)
    return keys[codes], (codes >= 0) & (counts[codes] >= least)
