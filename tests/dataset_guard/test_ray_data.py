"""Ray reads: whole blocks per task, checked in the task, recorded once, inside real submitted jobs."""

import pickle
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from registered import ROWS, reads, table, write_changed

from dataset_guard.hashing.fingerprint import BLOCK_ROWS
from dataset_guard.ray_data import plan_of
from dataset_guard.reading import open_source
from dataset_guard.reads.access import open_access
from dataset_guard.registration.register import register
from dataset_guard.scanning.identity import fingerprint
from guard_core.errors import Tampered, UserError


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.parquet"
    pq.write_table(table(), path, row_group_size=50_000)
    return path


@pytest.fixture
def plan(home, data):
    register(data, name="x", tenant="acme", label="label", home=home, checks=[])
    with open_access("acme/x@1", purpose="train", home=home) as access:
        return plan_of(access, None)


def tasks(plan, parallelism):
    return [
        pickle.loads(pickle.dumps(plan.task(i, first, end)))
        for i, (first, end) in enumerate(plan.ranges(parallelism))
    ]


@pytest.mark.parametrize("parallelism", [1, 2, 3, 64])
def test_tasks_cover_every_row_once_in_whole_blocks(plan, parallelism):
    made = tasks(plan, parallelism)
    assert len(made) == min(parallelism, 3)
    together = pa.concat_tables([block for task in made for block in task()])
    assert together.equals(table())
    assert all(task.check.leaves.nbytes == task.check.blocks * 3 * 32 for task in made)


def test_a_task_hands_out_good_blocks_and_stops_at_the_changed_one(plan, data):
    write_changed(data, BLOCK_ROWS + 1)
    first, second, third = tasks(plan, 3)
    assert sum(t.num_rows for t in first()) == BLOCK_ROWS
    assert sum(t.num_rows for t in third()) == 100
    with pytest.raises(Tampered, match=r"data\.parquet, block 1 .* column 'label'"):
        list(second())


@pytest.mark.parametrize("change", ["removed", "added"])
def test_the_last_task_finds_rows_removed_or_added_at_the_end(plan, data, change):
    now = table().slice(0, ROWS - 100) if change == "removed" else pa.concat_tables([table(), table(5)])
    pq.write_table(now, data)
    # The job opens the data after the change.
    last = tasks(replace(plan, source=open_source(data)), 3)[-1]
    with pytest.raises(Tampered, match="block 2"):
        list(last())


def test_what_tasks_handed_out_becomes_one_record_and_a_retried_task_counts_once(home, plan):
    first, second, third = tasks(plan, 3)
    for task in (first, second, second, third):
        list(task())
    assert plan.spool.collect(problem=None)
    assert plan.spool.collect(problem=None) is None
    [event] = reads(home)
    assert event["subject"] == "acme/x@1"
    assert (event["data"]["rows"], event["data"]["blocks"], event["data"]["complete"]) == (ROWS, 3, True)
    assert [t["rows"] for t in event["data"]["tasks"]] == [BLOCK_ROWS, BLOCK_ROWS, 100]


def test_a_read_that_did_not_finish_says_so(home, plan):
    first, *_ = tasks(plan, 3)
    list(first())
    plan.spool.collect(problem="KeyError")
    [event] = reads(home)
    assert (event["data"]["rows"], event["data"]["complete"]) == (BLOCK_ROWS, False)
    assert event["data"]["problem"] == "KeyError"


def test_chosen_columns_are_read_and_unknown_ones_refused(home, plan):
    with open_access("acme/x@1", purpose="train", home=home) as access:
        chosen = plan_of(access, ["label"])
        with pytest.raises(UserError, match="'nope'"):
            plan_of(access, ["nope"])
    assert chosen.schema.names == ["label"]
    assert pa.concat_tables([b for t in tasks(chosen, 2) for b in t()]).equals(table().select(["label"]))


def test_text_is_not_split_within_a_file(home, tmp_path):
    from pyarrow import csv

    folder = tmp_path / "parts"
    folder.mkdir()
    for i in range(2):
        csv.write_csv(table(BLOCK_ROWS, seed=i), folder / f"{i}.csv")
    register(folder, name="c", tenant="acme", home=home, checks=[])
    with open_access("acme/c@1", purpose="train", home=home) as access:
        made = tasks(plan_of(access, None), 8)
    assert len(made) == 2
    assert [sum(b.num_rows for b in task()) for task in made] == [BLOCK_ROWS, BLOCK_ROWS]


@pytest.mark.parametrize(("cpus", "made"), [(1, 1), (2, 2), (8, 3), (None, 3)])
def test_there_are_no_more_tasks_than_pay_for_decoding_a_row_group_twice(plan, cpus, made):
    assert len(plan.ranges(64, cpus=cpus)) == made  # 3 row groups of 50,000 rows, 3 blocks of 65,536


def test_ray_gets_one_read_task_per_range_with_its_size(plan):
    from dataset_guard.reads.ray_datasource import VerifiedDatasource

    source = VerifiedDatasource(plan)
    made = source.get_read_tasks(2)
    assert [task.metadata.num_rows for task in made] == [BLOCK_ROWS, BLOCK_ROWS + 100]
    assert sum(block.num_rows for task in made for block in task()) == ROWS
    assert source.get_name() == "Verified(acme/x@1)"


# --- inside jobs submitted to a real, guarded cluster -------------------------------------------------


@pytest.fixture(scope="module")
def shared(ray_cluster, tmp_path_factory):
    """Versions good@1, secret@1 and bad@1 (changed after it was registered) in the cluster's home."""
    folder = tmp_path_factory.mktemp("ray-data")
    for name in ("good", "bad", "secret"):
        path = folder / f"{name}.parquet"
        pq.write_table(table(), path)
        register(path, name=name, tenant="acme", home=ray_cluster.home, checks=[])
    write_changed(folder / "bad.parquet", BLOCK_ROWS + 9)
    return folder


JOB = """
import sys

import pyarrow.parquet as pq
import ray
import dataset_guard
from dataset_guard import ray_data
from guard_core.errors import Denied

path = sys.argv[1]
data = ray_data.read("good@1", columns=["x", "label"], override_num_blocks=3)
print("SUM", data.sum("label"))
try:
    ray_data.read("secret@1")
except Denied as error:
    print("DENIED", error)

split = ray_data.read("good@1", columns=["label"], override_num_blocks=3).streaming_split(2)


@ray.remote(num_cpus=0)
def consume(shard):
    return sum(batch.num_rows for batch in shard.iter_batches(batch_size=None, batch_format="pyarrow"))


print("SPLIT", sum(ray.get([consume.remote(shard) for shard in split])))

print("PATH", ray_data.fingerprint(path, parallelism=3).to_json())
rows = ray.data.from_arrow([pq.read_table(path).slice(at, 50_000) for at in range(0, 150_000, 50_000)])
same = rows.map_batches(lambda batch: batch, batch_format="pyarrow", batch_size=None)
print("DATASET", ray_data.fingerprint(same, parallelism=2).to_json())
print("SERIAL", dataset_guard.fingerprint(rows).to_json())

print(ray_data.read("bad@1", override_num_blocks=3).sum("label"))
"""


@pytest.fixture(scope="module")
def ran(ray_cluster, shared):
    """What one job printed, how it ended, and the records of its reads."""
    program = shared / "job.py"
    program.write_text(JOB)
    client = ray_cluster.client("acme")
    job = client.submit_job(
        entrypoint=f"python {program} {shared / 'good.parquet'}",
        metadata={"datasets": "good@1,bad@1"},
        entrypoint_num_cpus=1,
    )
    details = ray_cluster.wait(client, job, seconds=240)
    events = [e for e in reads(ray_cluster.home) if e["data"]["workload"] == job]
    return client.get_job_logs(job), details, events


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_reads_what_it_declared_and_a_changed_block_fails_it(ran):
    logs, details, events = ran
    assert f"SUM {sum(table()['label'].to_pylist())}" in logs
    assert "DENIED acme/secret@1 may not be used" in logs
    assert details.status == "FAILED"
    assert "bad.parquet, block 1 (rows 65,536 to 131,071) differs in column 'label'" in logs

    good, _, bad = events
    assert (good["subject"], good["data"]["rows"], good["data"]["complete"]) == ("acme/good@1", ROWS, True)
    assert sorted(t["first_block"] for t in good["data"]["tasks"]) == [0, 1, 2]
    assert good["data"]["columns"] == ["x", "label"]
    assert (bad["subject"], bad["data"]["complete"]) == ("acme/bad@1", False)
    assert "differs in column 'label'" in bad["data"]["problem"]


@pytest.mark.ray
@pytest.mark.slow
def test_ray_tasks_give_the_roots_of_one_process_for_files_and_for_ray_datasets(ran):
    expected = str(fingerprint(table()).to_json())
    for kind in ("PATH", "DATASET", "SERIAL"):
        assert f"{kind} {expected}" in ran[0]


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_share_a_read_as_ray_train_splits_it_and_it_is_one_record(ran):
    logs, _, events = ran
    assert f"SPLIT {ROWS}" in logs
    event = events[1]
    assert (event["subject"], event["data"]["rows"], event["data"]["complete"]) == ("acme/good@1", ROWS, True)
    assert event["data"]["columns"] == ["label"]
