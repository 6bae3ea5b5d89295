"""JSON Lines: one JSON object per line, UTF-8.

A column's type is settled over all lines of all files, in one pass before the data is read: integers
become floats where both occur, ISO 8601 strings become timestamps where all are, members of objects are
collected. A key that is missing is null. Values that have no common type are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.json as pajson
import pyarrow.types as pt

from dataset_guard.reading.encoding import refusal
from dataset_guard.reading.files import File, refusing
from dataset_guard.reading.memory import first_line
from dataset_guard.reading.places import Place, text_stream
from dataset_guard.reading.source import windowed
from guard_core.errors import UserError

_SLICE = 16 << 20
_ROW = re.compile(r" in row (\d+)")


@dataclass
class JsonLinesFile:
    """A JSON Lines file with settled types."""

    path: Place
    schema: pa.Schema
    num_rows: int

    def batches(
        self, columns: Sequence[str] | None, first_row: int, rows: int | None
    ) -> Iterator[pa.RecordBatch]:
        """Batches of about 16 MiB of text."""
        yield from windowed(self._all(columns), first_row, rows)

    def _all(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        wanted = self.schema if columns is None else pa.schema([self.schema.field(c) for c in columns])
        for first_line_number, text in _slices(self.path):
            table = _parse(self.path, text, first_line_number, wanted, extra="ignore")
            yield from table.select(wanted.names).to_batches()


def open_json_lines(paths: Sequence[Place]) -> list[File]:
    """The files at ``paths``, their types settled together. Raises UserError naming file and line."""
    merged: pa.Schema | None = None
    counted: list[tuple[Place, int]] = []
    for path in paths:
        rows = 0
        with refusing(path):
            for line, text in _slices(path):
                try:
                    text.decode("utf-8")
                except UnicodeDecodeError as error:
                    at = line + text.count(b"\n", 0, error.start)
                    first = text.rfind(b"\n", 0, error.start) + 1
                    bad = text[first:].partition(b"\n")[0]
                    raise refusal(path, f"at line {at}", bad) from error
                table = _parse(path, text, line, None)
                rows += table.num_rows
                merged = table.schema if merged is None else _merged_schema(merged, table.schema, path)
        if not rows:
            raise UserError(f"{path} holds no JSON object; write one object per line")
        counted.append((path, rows))
    return [JsonLinesFile(path, merged, rows) for path, rows in counted]


def _slices(path: Place) -> Iterator[tuple[int, bytes]]:
    """(number of the first line, whole lines) in pieces of about 16 MiB. Lines count from 1."""
    line, rest = 1, b""
    with text_stream(path) as stream:
        while chunk := stream.read(_SLICE):
            rest += chunk
            cut = rest.rfind(b"\n") + 1
            if cut:
                yield line, rest[:cut]
                line += rest.count(b"\n", 0, cut)
                rest = rest[cut:]
    if rest:
        yield line, rest


def _parse(
    path: Place, text: bytes, line: int, schema: pa.Schema | None, *, extra: str = "infer"
) -> pa.Table:
    if not text.strip():
        return pa.table({}) if schema is None else schema.empty_table()
    if text.lstrip()[:1] == b"[":
        raise UserError(f"{path} is a JSON array; write one object per line (JSON Lines)")
    options = pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior=extra)
    size = pajson.ReadOptions(block_size=max(len(text), 1 << 20))
    try:
        return pajson.read_json(pa.BufferReader(text), read_options=size, parse_options=options)
    except pa.ArrowInvalid as error:
        raise _refusal(path, text, line, error) from error


def _refusal(path: Place, text: bytes, line: int, error: pa.ArrowInvalid) -> UserError:
    said = first_line(error)
    row = _ROW.search(said)
    where = f" line {_line_of(text, line, int(row[1]))}" if row else ""
    reason = _ROW.sub("", said).removeprefix("JSON parse error: ").partition(": '")[0][:160]
    return UserError(f"{path}{where} is not a JSON object like the others ({reason}); repair the line")


def _line_of(text: bytes, first: int, row: int) -> int:
    """The line of object number ``row`` in ``text``; blank lines hold none."""
    for number, raw in enumerate(text.split(b"\n"), first):
        if raw.strip():
            if row == 0:
                return number
            row -= 1
    return first


def _merged_schema(a: pa.Schema, b: pa.Schema, path: Place) -> pa.Schema:
    fields = {f.name: f.type for f in a}
    for field in b:
        known = fields.get(field.name)
        fields[field.name] = field.type if known is None else _merged(known, field.type, field.name, path)
    return pa.schema(list(fields.items()))


def _merged(a: pa.DataType, b: pa.DataType, where: str, path: Place) -> pa.DataType:
    if a == b or pt.is_null(b):
        return a
    if pt.is_null(a):
        return b
    if {str(a), str(b)} == {"int64", "double"}:
        return pa.float64()
    if {str(a), str(b)} <= {"string", "timestamp[s]", "timestamp[ns]"}:
        return pa.string() if "string" in (str(a), str(b)) else pa.timestamp("ns")
    if pt.is_list(a) and pt.is_list(b):
        return pa.list_(_merged(a.value_type, b.value_type, where + "[]", path))
    if pt.is_struct(a) and pt.is_struct(b):
        members = {f.name: f.type for f in a}
        for field in b:
            known = members.get(field.name)
            inner = f"{where}.{field.name}"
            members[field.name] = field.type if known is None else _merged(known, field.type, inner, path)
        return pa.struct(list(members.items()))
    raise UserError(f"{path} holds both {a} and {b} under the key {where!r}; give it one type")
