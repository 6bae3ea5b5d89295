"""Every kind of table reads as the same rows, again and again; bad input is one sentence."""

import gzip
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet as pq
import pytest

from dataset_guard.hashing.fingerprint import Fingerprinter
from dataset_guard.reading import open_source
from dataset_guard.reading.source import decoding_alone
from guard_core.errors import UserError

N = 150_000
RNG = np.random.default_rng(5)
TABLE = pa.table(
    {
        "id": pa.array(range(N), pa.int64()),
        "score": pa.array(RNG.normal(size=N).round(6), mask=RNG.random(N) < 0.01),
        "name": pa.array([None if i % 50 == 0 else f'n "{i % 997}"' for i in range(N)]),
        "flag": pa.array([i % 3 == 0 for i in range(N)]),
        "at": pa.array(range(N), pa.timestamp("s")),
    }
)


def fingerprint(data):
    source = open_source(data)
    printer = Fingerprinter(source.schema)
    for batch in source.stream():
        printer.update(batch)
    return printer.finish().fingerprint


def write_json_lines(table, path):
    table.to_pandas().to_json(path, orient="records", lines=True, date_format="iso")


WRITERS = {
    "zstd.parquet": lambda t, p: pq.write_table(t, p, compression="zstd", row_group_size=40_000),
    "plain.parquet": lambda t, p: pq.write_table(t, p, compression="none", use_dictionary=False),
    "file.arrow": lambda t, p: pa.feather.write_feather(t, p, compression="lz4"),
    "raw.feather": lambda t, p: pa.feather.write_feather(t, p, compression="uncompressed", chunksize=999),
    "table.csv": lambda t, p: pa.csv.write_csv(t, p),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    for name, write in WRITERS.items():
        write(TABLE, folder / name)
    (folder / "table.csv.gz").write_bytes(gzip.compress((folder / "table.csv").read_bytes(), 1))
    return folder


@pytest.mark.parametrize("name", [*WRITERS, "table.csv.gz"])
def test_every_format_gives_the_same_fingerprint(folder, name):
    assert fingerprint(folder / name) == fingerprint(TABLE)


def test_orc_keeps_its_rows(folder):
    table = TABLE.drop_columns(["at"])  # ORC has its own idea of time
    pa.orc.write_table(table, folder / "t.orc", stripe_size=100_000)
    assert fingerprint(folder / "t.orc") == fingerprint(table)


def test_json_lines_read_as_the_table_they_were_written_from(tmp_path):
    table = TABLE.slice(0, 20_000).drop_columns(["at"])
    write_json_lines(table, tmp_path / "t.jsonl")
    assert fingerprint(tmp_path / "t.jsonl") == fingerprint(table)


@pytest.mark.parametrize("rows", [65_536, 1_000, 7])
def test_batches_have_exactly_the_rows_asked_for(folder, rows):
    counts = [b.num_rows for b in open_source(folder / "zstd.parquet").batches(batch_rows=rows)]
    assert set(counts[:-1]) <= {rows}
    assert sum(counts) == N


@pytest.mark.parametrize("name", ["zstd.parquet", "raw.feather", "table.csv"])
@pytest.mark.parametrize(("first", "rows"), [(0, 5), (39_999, 2), (65_536, 65_536), (149_999, 10)])
def test_a_window_of_rows_is_those_rows(folder, name, first, rows):
    batches = list(open_source(folder / name).batches(first_row=first, rows=rows, columns=["name", "id"]))
    found = pa.Table.from_batches(batches)
    assert found.column_names == ["name", "id"]
    assert found.column("id").to_pylist() == list(range(first, min(N, first + rows)))


def test_a_folder_is_its_files_by_relative_path(tmp_path):
    for part, (start, rows) in {"b/2": (50_000, 70_000), "a": (0, 50_000), "b/10": (120_000, 30_000)}.items():
        path = tmp_path / f"{part}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(TABLE.slice(start, rows), path)
    (tmp_path / "_SUCCESS").touch()
    source = open_source(tmp_path)
    assert [source.name_of(f) for f in source.files] == ["a.parquet", "b/10.parquet", "b/2.parquet"]
    assert source.file_rows == (50_000, 30_000, 70_000)
    ids = pa.Table.from_batches(source.stream(columns=["id"], first_row=79_999, rows=2)).column("id")
    assert ids.to_pylist() == [149_999, 50_000]


def test_frames_and_datasets_read_as_tables(folder):
    small = TABLE.slice(0, 1_000)
    pq.write_table(small, folder / "small.parquet")
    expected = fingerprint(small)
    assert fingerprint(pl.from_arrow(small)) == expected
    assert fingerprint(pa.dataset.dataset(folder / "small.parquet")) == fingerprint(folder / "small.parquet")
    assert fingerprint(small.to_pandas(types_mapper=pd.ArrowDtype)) == expected


def test_a_dataset_of_a_plain_folder_is_that_folder_and_any_other_is_itself(tmp_path):
    for name, start in (("a", 0), ("b", 500)):
        pq.write_table(TABLE.slice(start, 500), tmp_path / f"{name}.parquet")
    plain = open_source(pa.dataset.dataset(tmp_path))
    assert (plain.kind, [f.name for f in plain.files]) == ("parquet", ["a.parquet", "b.parquet"])
    turned = open_source(pa.dataset.dataset([tmp_path / "b.parquet", tmp_path / "a.parquet"]))
    assert (turned.kind, turned.files) == ("dataset", ())
    first = next(turned.batches(columns=["id"], batch_rows=1))
    assert first.column(0).to_pylist() == [500]


def test_a_partitioned_dataset_has_its_partition_columns(tmp_path):
    for year in (2023, 2024):
        (tmp_path / f"year={year}").mkdir()
        pq.write_table(pa.table({"x": [year, year + 1]}), tmp_path / f"year={year}" / "0.parquet")
    source = open_source(pa.dataset.dataset(tmp_path, partitioning="hive"))
    assert pa.Table.from_batches(source.stream()).to_pydict() == {
        "x": [2023, 2024, 2024, 2025],
        "year": [2023, 2023, 2024, 2024],
    }


@pytest.mark.parametrize("name", [*WRITERS, "table.csv.gz"])
def test_a_source_travels_to_another_process(folder, name):
    source = pickle.loads(pickle.dumps(open_source(folder / name)))
    assert sum(b.num_rows for b in source.stream(columns=["id"])) == N


def test_a_named_pandas_index_is_data_and_an_unnamed_one_is_not():
    frame = pd.DataFrame({"a": [1, 2]}, index=[7, 8])
    assert open_source(frame).schema.names == ["a"]
    frame.index.name = "key"
    assert open_source(frame).schema.names == ["key", "a"]


def test_column_types_of_csv_are_settled_over_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr("dataset_guard.reading.delimited._BLOCK", 4_096)
    lines = ["i,f,n,d,t,s,b"]
    for row in range(3_000):
        late = row == 2_900
        lines.append(
            f"{row},{'2.5' if late else row},{'2020-01-02' if late else ''},"
            f"{'2020-01-01T10:00:00' if late else '2020-01-01'},"
            f"2020-01-01 00:00:00{'.5' if late else ''},{'x' if late else row},{'maybe' if late else 'true'}"
        )
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    source = open_source(tmp_path / "t.csv")
    assert [str(t) for t in source.schema.types] == [
        "int64", "double", "date32[day]", "timestamp[s]", "timestamp[ns]", "string", "string",
    ]  # fmt: skip
    assert sum(b.num_rows for b in source.stream()) == source.num_rows == 3_000


def test_an_empty_csv_field_is_null_and_a_quoted_one_is_text(tmp_path):
    (tmp_path / "t.csv").write_text('a,b\n,""\nNA,x\n"two\nlines",\n')
    table = pa.Table.from_batches(open_source(tmp_path / "t.csv").stream())
    assert table.to_pydict() == {"a": [None, "NA", "two\nlines"], "b": ["", "x", None]}


def test_types_of_json_keys_are_settled_over_all_lines_and_files(tmp_path, monkeypatch):
    monkeypatch.setattr("dataset_guard.reading.json_lines._SLICE", 64)
    (tmp_path / "a.jsonl").write_text('{"x": 1, "l": []}\n' * 20 + '{"x": 1.5, "s": {"k": 1}, "l": [1]}\n')
    (tmp_path / "b.jsonl").write_text('{"x": null, "t": "2020-01-01 00:00:00"}\n{"t": "never"}\n')
    source = open_source(tmp_path)
    assert str(source.schema.field("x").type) == "double"
    rows = pa.Table.from_batches(source.stream()).to_pylist()
    assert rows[20] == {"x": 1.5, "l": [1], "s": {"k": 1}, "t": None}
    assert [r["t"] for r in rows[21:]] == ["2020-01-01 00:00:00", "never"]


# --- what is refused -----------------------------------------------------------------------------


def refusal(data):
    with pytest.raises(UserError) as caught:
        source = open_source(data)
        for _ in source.stream():
            pass
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def bad_file(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


BAD_FILES = {
    "an empty file": ("t.parquet", b"", "is empty"),
    "a Parquet file of other bytes": ("t.parquet", b"not parquet at all", "is damaged"),
    "a truncated Arrow file": ("t.arrow", b"ARROW1\0\0\xff\xff\xff", "is damaged"),
    "an unknown extension": ("t.xlsx", b"x", "extension '.xlsx'"),
    "no extension": ("data", b"x", "(none)"),
    "a short CSV row": ("t.csv", "a,b\n1,2\n3\n", "row 3 has 1 field where the header has 2"),
    "a long CSV row": ("t.csv", "a,b\n1,2,3\n", "row 2 has 3 fields where the header has 2"),
    "two columns of one name": ("t.csv", "a,a\n1,2\n", "two columns named 'a'"),
    "CSV that is not UTF-8": ("t.csv", "a,b\n1,x\n2,é\n".encode("latin-1"), "line 3 (byte 10)"),
    "a header that is not UTF-8": ("t.csv", "é,b\n1,2\n".encode("latin-1"), "line 1 (byte 0)"),
    "another separator": ("t.csv", "a;b\n1;2\n", "separated by ';'"),
    "an open quote": ("t.csv", 'a,b\n1,"x\n2,y\n', "ends inside a quoted field"),
    "a truncated gzip": ("t.csv.gz", gzip.compress(b"a,b\n1,2\n" * 999)[:40], "is damaged"),
    "a JSON array": ("t.json", '[{"a": 1}]', "is a JSON array"),
    "a broken JSON line": ("t.jsonl", '{"a": 1}\n\n{"a": 2\n', "line 3"),
    "a JSON value of another type": ("t.jsonl", '{"a": 1}\n{"a": "x"}\n', "line 2"),
    "a JSON key twice": ("t.jsonl", '{"a": 1, "a": 2}\n', "line 1"),
    "JSON that is not UTF-8": ("t.jsonl", '{"a": "x"}\n{"a": "é"}\n'.encode("latin-1"), "at line 2"),
    "JSON without objects": ("t.jsonl", "\n\n", "no JSON object"),
    "JSON of scalars": ("t.jsonl", "1\n2\n", "line 1"),
}


@pytest.mark.parametrize("case", sorted(BAD_FILES))
def test_a_bad_file_is_refused_in_one_sentence_that_names_it(tmp_path, case):
    name, content, said = BAD_FILES[case]
    path = bad_file(tmp_path, name, content)
    sentence = refusal(path)
    assert said in sentence
    assert str(path) in sentence


def test_a_truncated_parquet_file_is_refused(tmp_path):
    pq.write_table(TABLE, tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(whole[: len(whole) // 2])
    assert "t.parquet is damaged" in refusal(tmp_path / "t.parquet")


def test_a_parquet_file_damaged_inside_is_refused_while_it_is_read(tmp_path):
    pq.write_table(TABLE, tmp_path / "t.parquet", compression="zstd")
    whole = bytearray((tmp_path / "t.parquet").read_bytes())
    whole[1_000:60_000] = bytes(59_000)
    (tmp_path / "t.parquet").write_bytes(whole)
    assert "t.parquet is damaged" in refusal(tmp_path / "t.parquet")


def test_a_missing_path_is_refused(tmp_path):
    assert "there is no file or folder" in refusal(tmp_path / "none.parquet")


def _open_as_nobody(path, queue):
    os.setgid(65534)
    os.setuid(65534)
    try:
        open_source(path)
        queue.put("opened")
    except UserError as error:
        queue.put(str(error))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = bad_file(tmp_path, "t.csv", "a\n1\n")
    path.chmod(0o600)
    for parent in (tmp_path, *list(tmp_path.parents)[:3]):
        if parent != Path("/tmp"):
            parent.chmod(0o755)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_open_as_nobody, args=(path, queue))
    process.start()
    assert "may not be read by this user" in queue.get(timeout=60)
    process.join()


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "_logs").mkdir()
    assert "holds no data files" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("a,c\n1,2\n", "has no column 'b'"),
        ("a,b,c\n1,2,3\n", "has an extra column 'c'"),
        ("a,b\n1,x\n", "has column 'b' as string instead of int64"),
    ],
)
def test_a_folder_of_mixed_schemas_is_refused_and_the_file_named(tmp_path, other, said):
    bad_file(tmp_path, "1.csv", "a,b\n1,2\n")
    bad_file(tmp_path, "2.csv", other)
    sentence = refusal(tmp_path)
    assert said in sentence
    assert "2.csv" in sentence


def test_integers_and_floats_of_one_folder_become_floats(tmp_path):
    bad_file(tmp_path, "1.csv", "a\n1\n")
    bad_file(tmp_path, "2.csv", "a\n1.5\n")
    assert pa.Table.from_batches(open_source(tmp_path).stream()).column("a").to_pylist() == [1.0, 1.5]


def test_a_folder_of_mixed_formats_is_refused(tmp_path):
    bad_file(tmp_path, "1.csv", "a\n1\n")
    bad_file(tmp_path, "2.jsonl", '{"a": 1}\n')
    assert "keep one format" in refusal(tmp_path)
    for name in ("dataset_info.json", "state.json"):
        (tmp_path / name).write_text("{}")
    assert "datasets.load_from_disk" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("encoding", "name"), [("utf-16", "t.csv"), ("gb18030", "t.csv"), ("gb18030", "t.jsonl")]
)
def test_text_in_another_encoding_that_can_be_told_is_refused_with_the_command(tmp_path, encoding, name):
    text = {"t.csv": "城市,b\n北京,1\n", "t.jsonl": '{"城市": "北京"}\n'}[name]
    said = refusal(bad_file(tmp_path, name, text.encode(encoding)))
    assert "at line 1" in said
    assert said.endswith(
        f"(it looks like {encoding.upper()}: iconv -f {encoding.upper()} -t UTF-8 {name} > utf8-copy)"
    )


def test_a_csv_that_is_not_utf8_and_ragged_prints_nothing_of_its_own(tmp_path, capfd):
    path = bad_file(tmp_path, "latin.csv", b"a,b\n1,2\n\xe9,\xe9,\xe9\n")
    assert refusal(path).endswith("is not UTF-8 at line 3 (byte 8); convert it to UTF-8")
    assert capfd.readouterr().err == ""


def test_a_stray_file_in_a_folder_is_refused(tmp_path):
    bad_file(tmp_path, "1.csv", "a\n1\n")
    assert "notes.txt" in refusal(bad_file(tmp_path, "notes.txt", "hello").parent)


def test_a_reader_that_reads_once_is_refused():
    assert "read_all()" in refusal(TABLE.to_reader())


def test_a_lazy_polars_frame_is_refused():
    assert "collect()" in refusal(pl.LazyFrame({"a": [1]}))


def test_an_array_is_refused():
    assert "type ndarray cannot be read" in refusal(np.zeros(3))


def test_duplicate_columns_of_a_frame_are_refused():
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    assert "two columns named 'a'" in refusal(frame)


def test_a_frame_column_of_mixed_objects_is_refused():
    assert "one type" in refusal(pd.DataFrame({"a": [1, "x", object()]}))


def test_no_rows_are_allowed(tmp_path):
    pq.write_table(TABLE.slice(0, 0), tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet")
    assert (source.num_rows, list(source.batches())) == (0, [])


def test_an_unknown_column_is_refused(tmp_path):
    with pytest.raises(UserError, match="no column 'zz'"):
        list(open_source(TABLE).stream(columns=["zz"]))


def test_a_scan_decodes_on_its_own_thread_and_other_readers_on_several(tmp_path, monkeypatch):
    pq.write_table(pa.table({"a": [1, 2, 3]}), tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet")
    asked, real = [], pq.ParquetFile.iter_batches

    def spy(self, *args, use_threads=True, **rest):
        asked.append(use_threads)
        return real(self, *args, use_threads=use_threads, **rest)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    list(source.batches())
    with decoding_alone():
        list(source.batches())
    assert asked == [True, False]
