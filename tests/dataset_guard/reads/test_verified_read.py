"""A reader hands out rows only to whom policy allows, only as signed, and writes down what it handed out."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from registered import ROWS, reads, table, write_changed

from dataset_guard.hashing.fingerprint import BLOCK_ROWS
from dataset_guard.reads.verified_read import read
from dataset_guard.registration.register import register
from guard_core.config import load_settings
from guard_core.errors import Denied, Tampered, Undecidable, UserError
from guard_core.home import Home


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.parquet"
    pq.write_table(table(), path, row_group_size=50_000)
    return path


@pytest.fixture
def registered(home, data):
    register(data, name="x", tenant="acme", label="label", home=home, checks=[])
    return home


def as_tenant(home, tenant, **credential):
    token = home.credentials.issue(tenant=tenant, user="lin", **credential)
    return Home.open(load_settings(home=home.settings.home, token=token))


def test_the_rows_read_are_the_rows_registered(registered):
    reader = read("acme/x@1", home=registered)
    assert reader.to_table().equals(table())
    assert [b.num_rows for b in reader.batches()] == [BLOCK_ROWS, BLOCK_ROWS, 100]
    assert (len(reader), reader.num_rows, reader.ref) == (3, ROWS, "acme/x@1")
    assert reader.report.name == "x"


def test_a_changed_cell_stops_the_read_before_its_block_and_names_file_block_and_column(registered, data):
    write_changed(data, BLOCK_ROWS + 7)
    handed = []
    with pytest.raises(Tampered, match=r"data\.parquet, block 1 .* differs in column 'label'"):
        handed.extend(read("acme/x@1", home=registered).batches())
    assert [b.num_rows for b in handed] == [BLOCK_ROWS]
    [event] = reads(registered)
    assert event["data"]["rows"] == BLOCK_ROWS
    assert event["data"]["complete"] is False
    assert "block 1" in event["data"]["problem"]


@pytest.mark.parametrize("change", ["removed", "added"])
def test_rows_removed_or_added_at_the_end_are_found(registered, data, change):
    now = table().slice(0, 2 * BLOCK_ROWS) if change == "removed" else pa.concat_tables([table(), table(5)])
    pq.write_table(now, data)
    with pytest.raises(Tampered, match="block 2"):
        read("acme/x@1", home=registered).to_table()


def test_a_file_that_is_no_longer_data_is_tampering_not_a_users_mistake(registered, data):
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(Tampered, match="acme/x@1 was changed after it was registered"):
        read("acme/x@1", home=registered).to_table()


def test_data_that_is_gone_says_where_it_was(registered, data):
    data.unlink()
    with pytest.raises(UserError, match=r"the data of acme/x@1 is not there any more at .*data\.parquet"):
        read("acme/x@1", home=registered)


def test_some_columns_are_read_and_checked_alone(registered, data):
    assert (
        read("acme/x@1", columns=["label", "x"], home=registered)
        .to_table()
        .equals(table().select(["label", "x"]))
    )
    write_changed(data, 3, "label")
    read("acme/x@1", columns=["x"], home=registered).to_table()
    with pytest.raises(Tampered, match="'label'"):
        read("acme/x@1", columns=["label"], home=registered).to_table()


@pytest.mark.parametrize(("columns", "said"), [(["x", "nope"], "'nope'"), ([], "no column")])
def test_unknown_or_no_columns_are_the_users_mistake(registered, columns, said):
    with pytest.raises(UserError, match=said):
        read("acme/x@1", columns=columns, home=registered)


def test_who_read_how_much_is_on_record_with_the_decision(registered):
    with as_tenant(registered, "acme") as home:
        nbytes = sum(b.nbytes for b in read("x", columns=["x"], home=home).batches())
    [event] = reads(registered)
    assert event["subject"] == "acme/x@1"
    assert event["enforcement"] == "cooperative"
    kept = {k: event["data"][k] for k in ("tenant", "user", "rows", "bytes", "blocks", "complete", "columns")}
    assert kept == {
        "tenant": "acme",
        "user": "lin",
        "rows": ROWS,
        "bytes": nbytes,
        "blocks": 3,
        "complete": True,
        "columns": ["x"],
    }
    assert nbytes >= ROWS * 8
    decision = registered.decision_record(event["decision_id"])
    assert decision["path"].endswith("dataset/use/decision")
    assert decision["result"]["allow"] is True


@pytest.mark.parametrize("shards", [1, 2, 3, 5])
def test_shards_are_the_version_between_them_and_each_is_checked_and_recorded(registered, data, shards):
    reader = read("acme/x@1", home=registered)
    parts = [reader.shard(shards, i) for i in range(shards)]
    assert sum(p.num_rows for p in parts) == ROWS
    assert pa.concat_tables([p.to_table() for p in parts]).equals(table())
    events = reads(registered)
    assert sum(e["data"]["rows"] for e in events) == ROWS
    assert [e["data"]["complete"] for e in events] == [shards == 1] * shards
    write_changed(data, BLOCK_ROWS + 7)
    stopped = 0
    for part in (read("acme/x@1", home=registered).shard(shards, i) for i in range(shards)):
        try:
            part.to_table()
        except Tampered as error:
            assert "block 1" in str(error)
            stopped += 1
    assert stopped == 1


def test_rows_added_at_the_end_are_found_by_the_last_shard(registered, data):
    pq.write_table(pa.concat_tables([table(), table(5)]), data)
    reader = read("acme/x@1", home=registered)
    reader.shard(3, 0).to_table()
    with pytest.raises(Tampered, match="block 2"):
        reader.shard(3, 2).to_table()
    with pytest.raises(UserError, match="shard 3 of 3 does not exist"):
        reader.shard(3, 3)


def test_a_read_that_stops_early_is_on_record_too(registered):
    batches = read("acme/x@1", home=registered).batches()
    next(batches)
    batches.close()
    [event] = reads(registered)
    assert (event["data"]["rows"], event["data"]["complete"]) == (BLOCK_ROWS, False)


def test_every_pass_is_checked_and_recorded_anew(registered, data):
    reader = read("acme/x@1", home=registered)
    reader.to_table()
    write_changed(data, 0)
    with pytest.raises(Tampered, match="block 0"):
        reader.to_table()
    assert [e["data"]["complete"] for e in reads(registered)] == [True, False]


def test_another_tenant_is_refused_and_nothing_is_read(registered):
    with (
        as_tenant(registered, "beta") as home,
        pytest.raises(Denied, match="acme/x@1 may not be used") as refused,
    ):
        read("acme/x@1", home=home)
    assert registered.decision_record(refused.value.decision_id)["result"]["allow"] is False
    assert reads(registered) == []


def test_a_job_reads_only_what_it_declared(registered):
    job = {"kind": "job", "workload": "raysubmit_1"}
    with as_tenant(registered, "acme", datasets=("acme/x@1",), **job) as home:
        assert read("acme/x@1", home=home).to_table().num_rows == ROWS
    assert reads(registered)[0]["data"]["workload"] == "raysubmit_1"
    elsewhere = as_tenant(registered, "acme", datasets=("acme/y@1",), **job)
    with elsewhere as home, pytest.raises(Denied, match="did not declare"):
        read("acme/x@1", home=home)


def test_without_a_policy_engine_nothing_is_read(registered, tmp_path):
    server = {"engine": "server", "server_url": "http://127.0.0.1:1"}
    blind = Home.open(load_settings(home=registered.settings.home, policy=server))
    with blind as home, pytest.raises(Undecidable):
        read("acme/x@1", home=home)
    assert reads(registered) == []


def test_a_touched_record_or_leaf_is_found_before_any_data_is_read(registered):
    folder = registered.path("datasets", "acme", "x", "1")
    record = json.loads((folder / "record.json").read_text())
    leaves = (folder / "leaves.arrow").read_bytes()
    (folder / "leaves.arrow").write_bytes(leaves[:-300] + b"\1" + leaves[-299:])
    with pytest.raises((Tampered, Denied)):
        read("acme/x@1", home=registered)
    (folder / "leaves.arrow").write_bytes(leaves)
    (folder / "record.json").write_text(json.dumps({**record, "verdict": "allow!"}))
    with pytest.raises((Tampered, Denied)):
        read("acme/x@1", home=registered)
    assert reads(registered) == []


def test_a_dataset_that_does_not_exist_says_what_there_is(registered):
    with pytest.raises(UserError, match="the newest version of x is 1"):
        read("acme/x@7", home=registered)
    with pytest.raises(UserError, match="purpose"):
        read("acme/x@1", purpose="play", home=registered)


def test_a_training_loop_gets_numpy_blocks(registered):
    blocks = list(read("acme/x@1", columns=["x", "label"], home=registered))
    assert [sorted(b) for b in blocks] == [["label", "x"]] * 3
    assert np.concatenate([b["x"] for b in blocks]).tolist() == table()["x"].to_pylist()


@pytest.mark.parametrize("kind", ["csv", "arrow"])
def test_other_formats_are_read_alike(home, tmp_path, kind):
    small = table(BLOCK_ROWS + 10)
    path = tmp_path / f"data.{kind}"
    if kind == "csv":
        from pyarrow import csv

        csv.write_csv(small, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, small.schema) as writer:
            writer.write_table(small)
    register(path, name="y", tenant="acme", home=home, checks=[])
    assert read("acme/y", home=home).to_table().to_pydict() == small.to_pydict()


def test_data_registered_from_memory_is_read_from_the_home(home):
    register(table(10), name="m", tenant="acme", home=home, checks=[])
    assert read("acme/m@1", home=home).to_pandas().equals(table(10).to_pandas())
