"""CSV and TSV, read strictly.

Commas (tabs in ``.tsv``), double quotes, a header line, UTF-8. An empty field without quotes is null, in
every column; ``""`` is the empty string; nothing else is null. Every row has as many fields as the
header. A column's type is the first of these that holds *all* its values, in all files:
int64, float64, bool (true/false), date (YYYY-MM-DD), time, timestamp (ISO 8601, with or without zone),
string. Types are settled by one pass over the text before the data is read, because a type guessed from
the first block would fail, or worse differ, on a later one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.types as pt

from dataset_guard.reading.encoding import first_bad_line, not_utf8, refusal
from dataset_guard.reading.files import File, extension_of, refusing
from dataset_guard.reading.memory import first_line
from dataset_guard.reading.places import Place, text_stream
from dataset_guard.reading.source import windowed
from guard_core.counting import counted
from guard_core.errors import UserError

_BLOCK = 16 << 20
_LARGEST_BLOCK = 1 << 30
_CONVERSION = re.compile(
    r"In CSV column #(\d+): CSV conversion error to ([^:]+): (?:invalid value '(.*)')?", re.DOTALL
)
_INTEGER = re.compile(r"^[+-]?\d+$")
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(inf|nan|infinity)$", re.IGNORECASE)

Types = dict[str, pa.DataType]


def open_delimited(paths: Sequence[Place]) -> list[File]:
    """The files at ``paths``, their types settled together. Raises UserError naming file and row."""
    types: Types = {}
    files: list[DelimitedFile] = []
    for path in paths:
        with refusing(path):
            file = _settled(path, types)
        files.append(file)
        for field in file.schema:
            types[field.name] = _wider(types.get(field.name, pa.null()), field.type)
    for file in files:
        file.schema = pa.schema([(f.name, _wider(f.type, types[f.name])) for f in file.schema])
    return list(files)


@dataclass
class DelimitedFile:
    """A CSV file with settled types."""

    path: Place
    schema: pa.Schema
    num_rows: int
    block: int

    def batches(
        self, columns: Sequence[str] | None, first_row: int, rows: int | None
    ) -> Iterator[pa.RecordBatch]:
        """Batches of about 16 MiB of text."""
        types = {f.name: f.type for f in self.schema}
        with _reader(self.path, types, block=self.block, columns=columns) as reader:
            yield from windowed(reader, first_row, rows)


def _reader(
    path: Place,
    types: Types,
    *,
    block: int,
    columns: Sequence[str] | None = None,
    on_bad_row: Any = None,
    threads: bool = True,
) -> Any:
    return pacsv.open_csv(
        text_stream(path),
        read_options=pacsv.ReadOptions(block_size=block, use_threads=threads),
        parse_options=pacsv.ParseOptions(
            delimiter="\t" if extension_of(path) == ".tsv" else ",",
            newlines_in_values=True,
            invalid_row_handler=on_bad_row,
        ),
        convert_options=pacsv.ConvertOptions(
            column_types=types,
            include_columns=None if columns is None else list(columns),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            check_utf8=True,
        ),
    )


def _settled(path: Place, known: Types) -> DelimitedFile:
    """One file, read through until every value fits the type of its column."""
    types = {name: t for name, t in known.items() if not pt.is_null(t)}
    tried: set[tuple[str, str]] = set()
    block = _BLOCK
    while True:
        try:
            schema, rows = _read_through(path, types, block)
        except pa.ArrowInvalid as error:
            said = str(error)
            if "straddling" in said and block < _LARGEST_BLOCK:
                block *= 8  # one row is longer than a block
                continue
            _refuse_bad_rows(path, said, block)
            name, wider = _widened(path, said, block)
            types[name] = pa.string() if (name, str(wider)) in tried else wider
            tried.add((name, str(wider)))
            continue
        for field in schema:
            if pt.is_binary(field.type):
                raise not_utf8(path, f"in column {field.name!r}")
        return DelimitedFile(path, schema, rows, block)


def _read_through(path: Place, types: Types, block: int) -> tuple[pa.Schema, int]:
    try:
        with _reader(path, types, block=block) as reader:
            schema = reader.schema
            _check_header(path, schema)
            rows, last = 0, None
            for batch in reader:
                rows += batch.num_rows
                last = batch if batch.num_rows else last
    except UnicodeDecodeError as error:
        raise not_utf8(path, "in the header") from error
    if last is not None and _open_quote(path, last):
        raise UserError(f'{path} ends inside a quoted field: a closing " is missing; restore or repair it')
    return schema, rows


def _check_header(path: Place, schema: pa.Schema) -> None:
    for name in schema.names:
        if schema.names.count(name) > 1:
            raise UserError(f"{path} has two columns named {name!r} in its header; rename one of them")
    only = schema.names[0] if len(schema.names) == 1 else ""
    for separator in (";", "\t", "|"):
        if separator in only:
            raise UserError(
                f"{path} seems to be separated by {separator!r}; write it with commas (or tabs, as .tsv)"
            )


def _open_quote(path: Place, last: pa.RecordBatch) -> bool:
    """Whether the file ends inside quotes, which pyarrow takes for the end of the field."""
    row = last.slice(last.num_rows - 1)
    if not any(pt.is_string(c.type) and "\n" in (c[0].as_py() or "") for c in row.columns):
        return False
    quotes = 0
    with text_stream(path) as stream:
        while chunk := stream.read(1 << 24):
            quotes += chunk.count(b'"')
    return quotes % 2 == 1


def _refuse_bad_rows(path: Place, said: str, block: int) -> None:
    """Raise the sentence for a row of the wrong width or for text that is not UTF-8, else return."""
    if "UTF8" in said or "UTF-8" in said:
        raise not_utf8(path, "")
    if "CSV parse error" in said:
        # Before the handler below is asked: pyarrow hands it the row's text, and where that cannot be decoded
        # CPython prints an error that nobody can catch.
        if (bad := first_bad_line(path)) is not None:
            raise refusal(path, *bad)
        found: list[Any] = []

        def note(row: Any) -> str:
            found.append(row)
            return "error"

        try:  # once more without threads, which know no row numbers
            with _reader(path, {}, block=block, on_bad_row=note, threads=False) as reader:
                for _ in reader:
                    pass
        except pa.ArrowInvalid:
            pass
        if found:
            row = found[0]
            raise UserError(
                f"{path} row {row.number} has {counted(row.actual_columns, 'field')} where the header has "
                f"{row.expected_columns} (the header is row 1); repair the row"
            )
    if "Empty CSV" in said:
        raise UserError(f"{path} holds no header line; write it again with one")


def _widened(path: Place, said: str, block: int) -> tuple[str, pa.DataType]:
    """(column, next wider type) for the value that pyarrow stumbled over."""
    match = _CONVERSION.search(said)
    if match is None:
        raise UserError(f"{path} cannot be read as CSV ({first_line(Exception(said))[:160]}); repair it")
    with _reader(path, {}, block=block) as reader:
        name = reader.schema.names[int(match[1])]
    failed, value = match[2].strip(), match[3] or ""
    if failed == "string":
        raise UserError(f"{path} column {name!r} cannot be read as text; repair it")
    narrow = _narrowest(value)
    if failed == "null":
        return name, narrow
    if failed == "int64" and _NUMBER.match(value):
        return name, pa.float64()
    if failed.startswith(("date32", "timestamp[s")) and (pt.is_timestamp(narrow) or pt.is_date(narrow)):
        return name, narrow if pt.is_timestamp(narrow) else pa.timestamp("s")
    return name, pa.string()


def _narrowest(value: str) -> pa.DataType:
    """The narrowest type of one text value."""
    if _INTEGER.match(value):
        return pa.int64()
    inferred = pacsv.read_csv(
        pa.py_buffer(b'x\n"' + value.replace('"', '""').encode() + b'"\n'),
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
    ).schema.field(0)
    return pa.string() if pt.is_null(inferred.type) or pt.is_binary(inferred.type) else inferred.type


def _wider(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The type that holds the values of both, for files of one folder; ``a`` when there is none."""
    if pt.is_null(a):
        return b
    if {str(a), str(b)} == {"int64", "double"}:
        return pa.float64()
    naive = ("date32[day]", "timestamp[s]", "timestamp[ns]")
    if str(a) in naive and str(b) in naive:
        return max(a, b, key=lambda t: naive.index(str(t)))
    return a
