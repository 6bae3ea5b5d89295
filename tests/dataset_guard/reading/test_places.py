"""Data on object stores and other filesystems: a real S3 server (moto) on loopback, and fsspec's memory."""

import logging
import pickle

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as pads
import pyarrow.feather
import pyarrow.fs
import pyarrow.orc
import pyarrow.parquet as pq
import pytest

import dataset_guard
from dataset_guard.reading import open_source, place_of
from guard_core.cli import main
from guard_core.errors import UserError

TABLE = pa.table(
    {"id": list(range(3_000)), "s": [None if i % 7 == 0 else f"v{i % 50}" for i in range(3_000)]}
)
EXPECTED = dataset_guard.fingerprint(TABLE, set_root=False).fingerprint


def root_of(data):
    return dataset_guard.fingerprint(data, set_root=False).fingerprint


@pytest.fixture(scope="module")
def s3_url():
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_url, monkeypatch):
    """A filesystem on the server, with the environment that finds it; files under the bucket ``data``."""
    variables = {
        "AWS_ENDPOINT_URL": s3_url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    filesystem = pa.fs.S3FileSystem(
        endpoint_override=s3_url.removeprefix("http://"),
        scheme="http",
        region="us-east-1",
        allow_bucket_creation=True,
    )
    filesystem.create_dir("data")
    return filesystem


def write(filesystem, path, table=TABLE):
    with filesystem.open_output_stream(path) as sink:
        kind = path.removesuffix(".gz").rpartition(".")[2]
        if kind == "parquet":
            pq.write_table(table, sink, row_group_size=1_000)
        elif kind == "orc":
            pa.orc.write_table(table, sink)
        elif kind == "arrow":
            pa.feather.write_feather(table, sink)
        elif kind == "csv":
            pa.csv.write_csv(table, sink)
        else:
            sink.write(table.to_pandas().to_json(orient="records", lines=True).encode())


@pytest.mark.parametrize("name", ["t.parquet", "t.orc", "t.arrow", "t.csv", "t.csv.gz", "t.jsonl"])
def test_every_format_on_s3_has_the_fingerprint_of_the_table(s3, name):
    write(s3, f"data/formats/{name}")
    assert root_of(f"s3://data/formats/{name}") == EXPECTED


def test_a_folder_and_a_partitioned_folder_on_s3_read_as_on_disk(s3):
    for i in range(3):
        write(s3, f"data/folder/part-{i}.parquet", TABLE.slice(i * 1_000, 1_000))
        write(s3, f"data/hive/day={i}/part.parquet", TABLE.slice(i * 1_000, 1_000))
    write(s3, "data/folder/_SUCCESS.csv")
    assert root_of("s3://data/folder") == root_of("s3://data/folder/") == EXPECTED
    days = pa.array([i // 1_000 for i in range(3_000)], pa.int32())
    assert root_of("s3://data/hive") == root_of(TABLE.append_column("day", days))
    source = open_source("s3://data/folder")
    assert [source.name_of(f) for f in source.files] == [f"part-{i}.parquet" for i in range(3)]
    assert str(source.files[0]) == "s3://data/folder/part-0.parquet"
    assert [b.num_rows for b in pickle.loads(pickle.dumps(source)).stream(first_row=2_500)] == [500]


def test_a_version_on_s3_is_registered_verified_read_and_its_tampering_found(s3, home):
    for i in range(3):
        write(s3, f"data/set/part-{i}.parquet", TABLE.slice(i * 1_000, 1_000))
    report = dataset_guard.register("s3://data/set", name="set", home=home, checks=["schema"])
    assert report.fingerprint == EXPECTED
    found = dataset_guard.verify("set@1", home=home)
    assert found.ok
    assert not found.decoded
    assert dataset_guard.read("set@1", home=home).to_table().equals(TABLE)
    write(s3, "data/set/part-1.parquet", TABLE.slice(0, 1_000))
    found = dataset_guard.verify("set@1", home=home)
    assert not found.ok
    assert {change.file for change in found.changes} == {"part-1.parquet"}
    s3.delete_file("data/set/part-2.parquet")
    assert "part-2.parquet is missing" in dataset_guard.verify("set@1", home=home).problems
    s3.delete_dir("data/set")
    assert dataset_guard.verify("set@1", home=home).problems == ("s3://data/set is missing",)


def test_the_command_line_takes_urls(s3, home_dir, capsys):
    write(s3, "data/cli/t.parquet")
    assert main(["dataset", "fingerprint", "--no-set-root", "s3://data/cli/t.parquet"]) == 0
    assert capsys.readouterr().out.strip() == EXPECTED


def test_a_dataset_of_pyarrow_on_s3_keeps_its_place_instead_of_being_copied(s3):
    write(s3, "data/arrow/part.parquet")
    source = open_source(pads.dataset("data/arrow", filesystem=s3, format="parquet"))
    assert str(source.files[0]) == "s3://data/arrow/part.parquet"


def test_filesystems_of_fsspec_are_read_by_url_and_by_object():
    memory = fsspec.filesystem("memory")
    with memory.open("/box/t.parquet", "wb") as sink:
        pq.write_table(TABLE, sink)
    for data in ("memory://box/t.parquet", place_of("/box/t.parquet", memory), place_of("box", memory)):
        assert root_of(data) == EXPECTED
    assert str(open_source("memory://box/t.parquet").files[0]).endswith("/box/t.parquet")


def test_a_local_filesystem_object_is_a_path(tmp_path):
    pq.write_table(TABLE, tmp_path / "t.parquet")
    local = pa.fs.SubTreeFileSystem(str(tmp_path), pa.fs.LocalFileSystem())
    for filesystem, path in (
        (local, "t.parquet"),
        (fsspec.filesystem("file"), str(tmp_path / "t.parquet")),
        (None, f"file://{tmp_path}/t.parquet"),
    ):
        assert place_of(path, filesystem) == tmp_path / "t.parquet"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://data/none.parquet", "there is no file or folder s3://data/none.parquet"),
        ("s3://key:secret@data/t.parquet", "carries credentials"),
        ("s3://data/t.parquet?secret_key=x", "carries credentials"),
        ("nosuch://data/t.parquet", "nosuch://data/t.parquet cannot be opened"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_in_one_sentence(s3, url, said):
    with pytest.raises(UserError) as refused:
        open_source(url)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_damaged_file_on_s3_is_named(s3):
    with s3.open_output_stream("data/bad/t.parquet") as sink:
        sink.write(b"PAR1 and nothing else PAR1")
    with pytest.raises(UserError, match=r"s3://data/bad/t\.parquet (is damaged|cannot be read)"):
        open_source("s3://data/bad")
