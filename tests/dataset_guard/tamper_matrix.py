"""What may be done to a dataset, as data: changes that must be found and located, rewrites that must not.

Each format is written as its users write it. ``CHANGES`` alter what the data says, ``REENCODINGS`` only its
bytes.
``python benchmarks/tamper.py`` runs them on larger tables and beside other tools.
"""

import csv
import gzip
import json
import math
import shutil
import unicodedata
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FORMATS = ("parquet", "csv", "jsonl", "arrow", "folder")
TYPED = {"parquet", "arrow", "folder"}
PARTS = 3  # files of a folder


def original(rows):
    """``rows`` x 6 columns with nulls, text beyond ASCII and no two equal rows."""
    rng = np.random.default_rng(17)
    return pa.table(
        {
            "n": pa.array(range(rows), pa.int64()),
            "x": pa.array(rng.normal(size=rows) * 100, mask=np.arange(rows) % 97 == 5),
            "flag": pa.array(rng.random(rows) < 0.5),
            "text": pa.array([None if i % 83 == 7 else f"café text {i % 701}" for i in range(rows)]),
            "at": pa.array(1_760_000_000_001 + np.arange(rows) * 60_007, pa.timestamp("ms")),
            "label": pa.array([("cat", "dog", "emu")[i] for i in rng.integers(0, 3, rows)]),
        }
    )


# --- formats -------------------------------------------------------------------------------------


def write(table, form, place, **options):
    """Write ``table`` as ``form`` under the folder ``place``; returns what to register."""
    place.mkdir(parents=True, exist_ok=True)
    if form == "folder":
        return write_folder(table, place / "data", **options)
    path = place / f"data.{form}"
    {"parquet": pq.write_table, "csv": write_csv, "jsonl": write_jsonl, "arrow": write_arrow}[form](
        table, path, **options
    )
    return path


def write_folder(table, folder, parts=PARTS, **options):
    folder.mkdir(exist_ok=True)
    step = max(1, math.ceil(table.num_rows / parts))
    for i in range(parts):
        pq.write_table(table.slice(i * step, step), folder / f"part-{i}.parquet", **options)
    return folder


def _text(value):
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat(timespec="milliseconds") if hasattr(value, "isoformat") else repr(value)


def write_csv(table, path, end="\n", quote_all=False, last_end=True, opened=open):
    lines = [",".join(f'"{name}"' if quote_all else name for name in table.column_names)]
    columns = [column.to_pylist() for column in table.columns]
    for row in zip(*columns, strict=True):
        cells = []
        for value in row:
            if isinstance(value, str):
                cells.append('"' + value.replace('"', '""') + '"')
            else:
                text = _text(value)
                cells.append("" if text is None else f'"{text}"' if quote_all else text)
        lines.append(",".join(cells))
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        file.write(end.join(lines) + (end if last_end else ""))


def write_csv_module(table, path):
    """As Python's csv module writes it: quotes only where needed (so no text may be empty)."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table.column_names)
        for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
            writer.writerow([v if isinstance(v, str) else _text(v) for v in row])


def write_jsonl(table, path, *, drop_nulls=False, opened=open, last_end=True, **options):
    rows = table.to_pylist()
    for row in rows:
        if "at" in row and row["at"] is not None and hasattr(row["at"], "isoformat"):
            row["at"] = _text(row["at"])
    if drop_nulls:
        rows = [rows[0], *({k: v for k, v in row.items() if v is not None} for row in rows[1:])]
    text = "\n".join(json.dumps(row, **options) for row in rows)
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        file.write(text + ("\n" if last_end and rows else ""))


def write_arrow(table, path, chunk_rows=None, compression=None):
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=chunk_rows)


# --- changes -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """What a finding must name: these columns; these rows exactly, or the first of them; a file."""

    columns: frozenset = frozenset()
    rows: tuple | None = None
    first_row: int | None = None
    file: bool = False

    def located(self, found):
        named = {c.column for c in found.changes if c.column is not None}
        rows = sorted({row for c in found.changes for row in c.rows})
        return (
            bool(found.changes)
            and self.columns <= named
            and (self.rows is None or tuple(sorted(self.rows)) == tuple(rows))
            and (self.first_row is None or (bool(rows) and rows[0] == self.first_row))
            and (not self.file or any(c.file is not None for c in found.changes))
        )


@dataclass(frozen=True)
class Change:
    """``apply(table)`` gives (changed table, what must be named); only in ``formats`` can it be written."""

    name: str
    apply: object
    formats: frozenset = field(default=frozenset(FORMATS))


def replaced(table, column, values):
    place = table.schema.get_field_index(column)
    return table.set_column(place, column, pa.array(values, table.schema.field(column).type))


def cell(name, column, row, change, formats=FORMATS):
    def apply(table):
        values = table.column(column).to_pylist()
        at = row if row >= 0 else len(values) + row
        before = values[at]
        values[at] = change(before)
        assert values[at] != before, name
        return replaced(table, column, values), Expected(frozenset({column}), rows=(at,))

    return Change(name, apply, frozenset(formats))


def whole(name, change, expected, formats=FORMATS):
    return Change(name, lambda t: (change(t), expected(t)), frozenset(formats))


def other_label(value):
    return {"cat": "dog", "dog": "emu", "emu": "cat"}[value]


def taken(order):
    return lambda t: t.take(pa.array(order(t.num_rows)))


def swapped(i, j):
    def order(rows):
        found = np.arange(rows)
        a, b = i % rows, j % rows
        found[[a, b]] = found[[b, a]]
        return found

    return order


def without(row):
    return lambda t: pa.concat_tables([t.slice(0, row % t.num_rows), t.slice(row % t.num_rows + 1)])


def doubled(row):
    return lambda t: pa.concat_tables([t.slice(0, row % t.num_rows + 1), t.slice(row % t.num_rows)])


def column_of(column, change):
    return lambda t: replaced(t, column, change(t.column(column).to_pylist()))


def swap_labels(t):
    labels = t.column("label").to_pylist()
    other = next(i for i, value in enumerate(labels) if value != labels[40])
    labels[40], labels[other] = labels[other], labels[40]
    return replaced(t, "label", labels)


def swap_names(t):
    return t.rename_columns({"text": "label", "label": "text"})


def cast(column, kind):
    def change(t):
        place = t.schema.get_field_index(column)
        return t.set_column(place, column, t.column(column).cast(kind))

    return change


def names(*columns):
    return lambda _: Expected(frozenset(columns))


ANY = lambda _: Expected()  # noqa: E731
FILE = lambda _: Expected(file=True)  # noqa: E731

CHANGES = (
    cell("first integer plus one", "n", 0, lambda v: v + 1_000_000),
    cell("last integer minus one", "n", -1, lambda v: v - 1),
    cell("an integer negated", "n", 50, lambda v: -v),
    cell("an integer's high bit", "n", 51, lambda v: v + 2**40),
    cell("an integer made null", "n", 52, lambda _: None),
    cell("an integer made zero", "n", 53, lambda _: 0),
    cell("a float's last bit", "x", 60, lambda v: math.nextafter(v, math.inf)),
    cell("a float's sign", "x", 61, lambda v: -v),
    cell("a float times ten", "x", 62, lambda v: v * 10),
    cell("a float made null", "x", 63, lambda _: None),
    cell("a null made a float", "x", 5, lambda _: 0.5),
    cell("a float made huge", "x", 64, lambda _: 1e300),
    cell("a float made tiny", "x", 65, lambda _: 5e-324),
    cell("a float made zero", "x", 66, lambda _: 0.0),
    cell("a float made infinite", "x", 67, lambda _: math.inf, TYPED),
    cell("a float made not a number", "x", 68, lambda _: math.nan, TYPED),
    cell("a flag turned", "flag", 70, lambda v: not v),
    cell("the first flag turned", "flag", 0, lambda v: not v),
    cell("the last flag turned", "flag", -1, lambda v: not v),
    cell("a flag made null", "flag", 71, lambda _: None),
    cell("a letter changed", "text", 80, lambda v: v[:-1] + "x"),
    cell("a trailing space", "text", 81, lambda v: v + " "),
    cell("a leading space", "text", 82, lambda v: " " + v),
    cell("upper case", "text", 84, str.upper),
    cell("a look-alike letter", "text", 85, lambda v: v.replace("e", "е", 1)),  # a Cyrillic one
    cell("decomposed accents", "text", 86, lambda v: unicodedata.normalize("NFD", v)),
    cell("a zero-width space", "text", 87, lambda v: v + "\u200b"),
    cell("a soft hyphen", "text", 88, lambda v: v[:2] + "\u00ad" + v[2:]),
    cell("a no-break space", "text", 89, lambda v: v.replace(" ", "\u00a0", 1)),
    cell("an emptied text", "text", 91, lambda _: ""),
    cell("an empty text for null", "text", 7, lambda _: ""),
    cell("a text made null", "text", 92, lambda _: None),
    cell("a quote in a text", "text", 93, lambda v: v + '"'),
    cell("a line break in a text", "text", 94, lambda v: v + "\n"),
    cell("a carriage return in a text", "text", 95, lambda v: v + "\r\nmore"),
    cell("a comma in a text", "text", 96, lambda v: v + ",1"),
    cell("a very long text", "text", 97, lambda v: v * 1000),
    cell("the word null", "text", 98, lambda _: "null"),
    cell("a time one tick later", "at", 100, lambda v: v + np.timedelta64(1, "ms").astype("O")),
    cell("a time one hour later", "at", 101, lambda v: v + np.timedelta64(1, "h").astype("O")),
    cell("a time made null", "at", 102, lambda _: None),
    cell("the first label", "label", 0, other_label),
    cell("a label", "label", 110, other_label),
    cell("the last label", "label", -1, other_label),
    cell("a label of a new class", "label", 111, lambda _: "fox"),
    cell("a label made null", "label", 112, lambda _: None),
    cell("a label with a space", "label", 113, lambda v: v + " "),
    whole("two labels swapped", swap_labels, names("label")),
    whole("two rows swapped", taken(swapped(10, -10)), lambda t: Expected(rows=(10, t.num_rows - 10))),
    whole("two neighbours swapped", taken(swapped(20, 21)), lambda _: Expected(rows=(20, 21))),
    whole("first and last row swapped", taken(swapped(0, -1)), lambda t: Expected(rows=(0, t.num_rows - 1))),
    whole("rows reversed", taken(lambda n: np.arange(n)[::-1]), lambda _: Expected(first_row=0)),
    whole("rows shuffled", taken(lambda n: np.random.default_rng(3).permutation(n)), ANY),
    whole("rows rotated", taken(lambda n: np.roll(np.arange(n), 1)), lambda _: Expected(first_row=0)),
    whole("rows sorted by a column", lambda t: t.sort_by("x"), ANY),
    whole("the first row removed", without(0), lambda _: Expected(first_row=0)),
    whole("a row removed", without(30), lambda _: Expected(first_row=30)),
    whole("the last row removed", without(-1), lambda t: Expected(first_row=t.num_rows - 1)),
    whole("a row doubled", doubled(30), lambda _: Expected(first_row=31)),
    whole("a row added at the end", doubled(-1), lambda t: Expected(first_row=t.num_rows)),
    whole(
        "rows of another set appended",
        lambda t: pa.concat_tables([t, replaced(t, "n", range(-t.num_rows, 0)).slice(0, 9)]),
        lambda t: Expected(first_row=t.num_rows),
    ),
    whole("the second half removed", lambda t: t.slice(0, t.num_rows // 2), ANY),
    whole("every second row removed", taken(lambda n: np.arange(0, n, 2)), lambda _: Expected(first_row=1)),
    whole("all rows doubled", lambda t: pa.concat_tables([t, t]), lambda t: Expected(first_row=t.num_rows)),
    whole("all rows removed", lambda t: t.slice(0, 0), ANY, TYPED),
    whole("labels shifted by one row", column_of("label", lambda v: v[-1:] + v[:-1]), names("label")),
    whole("all labels turned", column_of("label", lambda v: [other_label(x) for x in v]), names("label")),
    whole(
        "one class renamed",
        column_of("label", lambda v: ["ant" if x == "cat" else x for x in v]),
        names("label"),
    ),
    whole(
        "two classes merged",
        column_of("label", lambda v: ["cat" if x == "dog" else x for x in v]),
        names("label"),
    ),
    whole("a column emptied", column_of("x", lambda v: [None] * len(v)), names("x"), TYPED),
    whole("nulls filled", column_of("x", lambda v: [0.0 if x is None else x for x in v]), names("x")),
    whole("a column rounded", column_of("x", lambda v: [x and round(x, 3) for x in v]), names("x")),
    whole("a column removed", lambda t: t.drop_columns(["flag"]), names("flag")),
    whole(
        "a column added", lambda t: t.append_column("extra", pa.array(range(t.num_rows))), names("extra")
    ),
    whole("a column doubled", lambda t: t.append_column("x2", t.column("x")), names("x2")),
    whole("a column renamed", lambda t: t.rename_columns({"x": "y"}), names("x", "y")),
    whole("two columns' names swapped", swap_names, names("text", "label")),
    whole("a narrower integer", lambda t: cast("n", pa.int32())(t), names("n"), TYPED),
    whole("an integer as float", lambda t: cast("n", pa.float64())(t), names("n")),
    whole("an integer as text", lambda t: cast("n", pa.string())(t), names("n"), TYPED | {"jsonl"}),
    whole("a narrower float", lambda t: cast("x", pa.float32())(t.set_column(
        1, "x", pa.array([1.5] * t.num_rows))), names("x"), TYPED),
    whole("another unit of time", lambda t: cast("at", pa.timestamp("us"))(t), names("at"), TYPED),
    whole("a time zone added", lambda t: cast("at", pa.timestamp("ms", "UTC"))(t), names("at"), TYPED),
    whole("a text as bytes", lambda t: cast("text", pa.binary())(t), names("text"), TYPED),
)  # fmt: skip


def files_of(place):
    return sorted(f for f in place.iterdir() if f.is_file()) if place.is_dir() else [place]


def spoil(change):
    """Change the bytes of the (first) file."""

    def apply(place):
        file = files_of(place)[0]
        file.write_bytes(change(file.read_bytes()))

    return apply


def flipped(raw):
    at = len(raw) // 3
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def overwritten(raw):
    at = len(raw) // 2
    return raw[:at] + bytes(64) + raw[at + 64 :]


def remove_first(folder):
    files_of(folder)[0].unlink()


def copy_first(folder):
    shutil.copy(files_of(folder)[0], folder / "part-9.parquet")


def rename_first(folder):
    files_of(folder)[0].rename(folder / "part-9.parquet")


def swap_two(folder):
    first, second = files_of(folder)[:2]
    first.rename(folder / "kept")
    second.rename(first)
    (folder / "kept").rename(second)


def repeat_first(folder):
    first, second = files_of(folder)[:2]
    shutil.copy(first, second)


# What is done to the files themselves; each must be found, and the file named.
SPOILED = {
    "a bit flipped": (spoil(flipped), FORMATS),
    "cut short": (spoil(lambda raw: raw[: len(raw) * 2 // 3]), FORMATS),
    "emptied": (spoil(lambda _: b""), FORMATS),
    "bytes put before": (spoil(lambda raw: b"xx" + raw), FORMATS),
    "bytes overwritten": (spoil(overwritten), FORMATS),
    "replaced by noise": (spoil(lambda raw: np.random.default_rng(1).bytes(len(raw))), FORMATS),
    "a file removed": (remove_first, ("folder",)),
    "a file added": (copy_first, ("folder",)),
    "a file moved to the end": (rename_first, ("folder",)),
    "two files swapped": (swap_two, ("folder",)),
    "a file in another's place": (repeat_first, ("folder",)),
}


def names_a_file(found, registered):
    """Whether a finding names a file: in a change, or (when only the columns' names differ) in a sentence."""
    known = [file.name for file in files_of(registered)]
    return any(change.file for change in found.changes) or any(
        name in problem for name in known for problem in found.problems
    )


# --- rewrites that change nothing ----------------------------------------------------------------


def _parquet(name, **options):
    return "parquet", f"parquet: {name}", lambda t, place: write(t, "parquet", place, **options)


def _arrow(name, change=lambda t: t, **options):
    return "arrow", f"arrow: {name}", lambda t, place: write(change(t), "arrow", place, **options)


def _csv(name, change=lambda t: t, **options):
    return "csv", f"csv: {name}", lambda t, place: write(change(t), "csv", place, **options)


def _jsonl(name, change=lambda t: t, **options):
    return "jsonl", f"jsonl: {name}", lambda t, place: write(change(t), "jsonl", place, **options)


def _folder(name, change=lambda t: t, **options):
    return "folder", f"folder: {name}", lambda t, place: write(change(t), "folder", place, **options)


def _across(form, to, change=lambda t: t):
    return form, f"{form} as {to}", lambda t, place: write(change(t), to, place)


def reordered(t):
    return t.select(t.column_names[::-1])


def described(t):
    return t.replace_schema_metadata({"note": "another writer"})


def dictionary(t):
    return t.set_column(5, "label", t.column("label").dictionary_encode())


def large(t):
    return t.set_column(3, "text", t.column("text").cast(pa.large_string()))


def viewed(t):
    return t.set_column(3, "text", t.column("text").cast(pa.string_view()))


def gzipped(path, mode, **options):
    return gzip.open(path, mode, **options)


def _gz(form, writer):
    def rewrite(t, place):
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"data.{form}.gz"
        writer(t, path, opened=gzipped)
        return path

    return form, f"{form}: gzip", rewrite


def _module_csv(t, place):
    place.mkdir(parents=True, exist_ok=True)
    write_csv_module(t, place / "data.csv")
    return place / "data.csv"


def _renamed(t, place):
    place.mkdir(parents=True, exist_ok=True)
    pq.write_table(t, place / "another-name.parquet")
    return place / "another-name.parquet"


REENCODINGS = (
    *(_parquet(c, compression=c) for c in ("none", "snappy", "gzip", "zstd", "lz4", "brotli")),
    *(_parquet(f"row groups of {n}", row_group_size=n) for n in (100, 333, 10_000)),
    _parquet("no dictionaries", use_dictionary=False),
    _parquet("newer pages", data_page_version="2.0"),
    _parquet("small pages", data_page_size=1024, write_batch_size=64),
    _parquet("no statistics", write_statistics=False),
    _parquet("checksums and page index", write_page_checksum=True, write_page_index=True),
    _parquet("split bytes", use_dictionary=["text"], column_encoding={"x": "BYTE_STREAM_SPLIT"}),
    _parquet("delta integers", use_dictionary=["text"], column_encoding={"n": "DELTA_BINARY_PACKED"}),
    _parquet("an older version", version="2.4"),
    ("parquet", "parquet: columns reordered", lambda t, p: write(reordered(t), "parquet", p)),
    ("parquet", "parquet: other metadata", lambda t, p: write(described(t), "parquet", p)),
    ("parquet", "parquet: label as dictionary", lambda t, p: write(dictionary(t), "parquet", p)),
    ("parquet", "parquet: large strings", lambda t, p: write(large(t), "parquet", p)),
    ("parquet", "parquet: another file name", _renamed),
    ("parquet", "parquet: three files", lambda t, p: write(t, "folder", p)),
    _across("parquet", "arrow"),
    *(_arrow(f"chunks of {n}", chunk_rows=n) for n in (100, 777)),
    *(_arrow(c, compression=c) for c in ("zstd", "lz4")),
    _arrow("columns reordered", reordered),
    _arrow("other metadata", described),
    _arrow("label as dictionary", dictionary),
    _arrow("large strings", large),
    _arrow("string views", viewed),
    _across("arrow", "parquet"),
    _csv("Windows line ends", end="\r\n"),
    _csv("everything quoted", quote_all=True),
    _csv("no last line end", last_end=False),
    _csv("columns reordered", reordered),
    ("csv", "csv: Python's csv module", _module_csv),
    _gz("csv", write_csv),
    _across("csv", "parquet", cast("at", pa.timestamp("ns"))),  # the type that CSV's times are read with
    _jsonl("keys reordered", reordered),
    _jsonl("keys sorted", sort_keys=True),
    _jsonl("no spaces", separators=(",", ":")),
    _jsonl("more spaces", separators=(" , ", " : ")),
    _jsonl("letters as they are", ensure_ascii=False),
    _jsonl("nulls left out", drop_nulls=True),
    _jsonl("no last line end", last_end=False),
    _gz("jsonl", write_jsonl),
    *(_folder(f"{n} files", parts=n) for n in (1, 2, 7)),
    _folder("another compression", compression="gzip"),
    _folder("columns reordered", reordered),
    _across("folder", "parquet"),
    _across("folder", "arrow"),
)
