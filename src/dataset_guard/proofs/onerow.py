"""Rows from a file, with the column types of a registered version.

A row somebody holds is rarely stored as the version was: JSON has no dates, CSV no widths. Row hashes are of
typed values, so the row's values are converted to the registered types first, and only if nothing is lost.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataset_guard.hashing.canonical import canonical_schema
from dataset_guard.hashing.rowhash import RowHasher, RowHashes
from dataset_guard.reading import open_source
from guard_core.errors import UserError

_ZONED = re.compile(r'timestamp\[(ms|us|ns), tz="([^"\\]+)"\]')
_UNIT = re.compile(r"(timestamp|duration)\[(ms|us|ns)\]")
_DECIMAL = re.compile(r"decimal\((\d+), (-?\d+)\)")
_LIST = re.compile(r"list<(.+)>")
_PLAIN = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|string|binary")


def row_hashes_of(
    data: Any, columns: Sequence[tuple[str, str]], *, key: bytes | None, most: int = 1
) -> RowHashes:
    """The hashes of the row in ``data`` (a file or a table), its columns typed as ``columns``.

    With ``most`` above 1, of up to so many rows. Raises UserError when there are none or more, when it has
    other columns, or a value does not fit its type.
    """
    source = open_source(data)
    table = pa.Table.from_batches(list(source.batches()), schema=source.schema)
    if not 1 <= table.num_rows <= most:
        fits = "exactly one" if most == 1 else f"one to {most:,}"
        raise UserError(f"{source.uri} has {table.num_rows:,} rows; give a file with {fits}")
    wanted, given = [name for name, _ in columns], table.schema.names
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    if missing or extra:
        what = f"has no column {missing[0]!r}" if missing else f"has a column {extra[0]!r} too many"
        raise UserError(f"{source.uri} {what}; give the whole row, with just the registered columns")
    types = {c.name: c.type for c in canonical_schema(table.schema)}
    arrays = [_typed(table, name, types[name], kind, source.uri) for name, kind in columns]
    batch = pa.Table.from_arrays(arrays, names=wanted).combine_chunks().to_batches()[0]
    return RowHasher(batch.schema, key=key).hash(batch)


def _typed(table: pa.Table, name: str, found: str, wanted: str, where: str) -> Any:
    column = table.column(name)
    if found == wanted:
        return column
    target = _arrow_type(wanted)
    try:
        if target is not None:
            return column.cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass  # said below, without the value
    raise UserError(f"{where}: column {name!r} is {found} and cannot be taken as {wanted}, as registered")


def _arrow_type(text: str) -> pa.DataType | None:
    """The Arrow type of a logical type, for those that a plain file cannot spell; else None."""
    if _PLAIN.fullmatch(text):
        return pa.bool_() if text == "bool" else pa.type_for_alias(text.replace("float16", "halffloat"))
    if text == "date":
        return pa.date32()
    if found := _ZONED.fullmatch(text):
        return pa.timestamp(found[1], tz=found[2])
    if found := _UNIT.fullmatch(text):
        return pa.timestamp(found[2]) if found[1] == "timestamp" else pa.duration(found[2])
    if found := _DECIMAL.fullmatch(text):
        precision, scale = int(found[1]), int(found[2])
        return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
    if found := _LIST.fullmatch(text):
        item = _arrow_type(found[1])
        return None if item is None else pa.list_(item)
    return None


def read_bytes(path: Path, what: str) -> bytes:
    """The bytes of ``path``. Raises UserError, naming ``what`` it should be."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{what} {path} cannot be read ({error.strerror or error}); check the path"
        ) from error
