"""A scan cut into passes, here or on Ray, says exactly what one pass says."""

import json
import shlex

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from check_kit import KEY, Registered

from dataset_guard.checks.base import CheckContext
from dataset_guard.hashing.fingerprint import BLOCK_ROWS
from dataset_guard.hashing.rowset import SetRoot
from dataset_guard.reading import open_source
from dataset_guard.scanning.identity import BlockRange
from dataset_guard.scanning.on_ray import passed_over
from dataset_guard.scanning.passing import Pass
from dataset_guard.scanning.plan import planned
from dataset_guard.scanning.result import Timer
from dataset_guard.scanning.scan import scan_source

ROWS = 2 * BLOCK_ROWS + 5_000
WORDS = np.array([f"w{i}" for i in range(500)])
SMALL = {"label_errors": {"row_budget": 1_500, "text_budget": 800}, "text_trigger": {"max_rows": 2_000}}
"""Models and searches see samples; what is tested here is that passes gather the same ones."""


def mixed(rows: int, seed: int) -> pa.Table:
    """Text with copies and mail addresses, numbers, times and a label that is sometimes wrong."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(p) for p in WORDS[rng.integers(0, 500, (rows, 9))]]
    for i in range(100, rows, 997):
        texts[i] = texts[i - 100] + " more"
    texts[50], texts[rows - 9] = "write to ann.lee@firm-mail.com", "or call 13812345678 now, please do"
    x = rng.normal(size=rows)
    label = np.where(rng.random(rows) < 0.02, 1 - (x > 0), x > 0).astype(np.int64)
    at = pa.array(rng.integers(10**15, 2 * 10**15, rows), pa.timestamp("us"))
    columns = {"text": texts, "x": x, "n": rng.integers(0, 9, rows), "at": at, "label": label}
    whole = pa.table(columns)
    return pa.concat_tables([whole.slice(0, rows - 40), whole.slice(10, 40)])


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return mixed(ROWS, 3)


@pytest.fixture(scope="module")
def context(table) -> CheckContext:
    test = Registered("acme/other@1", table.slice(60_000, 3_000), "label", split="test")
    trusted = Registered("acme/set@1", table.slice(0, 90_000), "label")
    suite = Registered("acme/quiz@1", pa.table({"q": table["text"].slice(70_000, 20)}))
    return CheckContext(
        schema=table.schema, label="label", split="train", tenant="acme", name="set",
        against=(test,), baseline=trusted, suites=(suite,), parameters=SMALL,
    )  # fmt: skip


def said(result) -> str:
    """All that a scan says, but for the time it took."""
    checks = [{k: v for k, v in c.items() if k != "seconds"} for c in result.checks]
    findings = [f.to_json() for f in result.findings]
    root = result.fingerprint.to_json()
    return json.dumps([root, findings, checks, result.profile], sort_keys=True, default=str)


@pytest.fixture(scope="module")
def alone(table, context):
    return scan_source(open_source(table), context, row_key=KEY)


def test_one_pass_finds_something_of_every_kind_here(alone):
    assert {"LEAK001", "LEAK002", "LEAK003", "LEAK004", "PRIV010"} <= {f.rule_id for f in alone.findings}
    assert not [f for f in alone.findings if f.rule_id == "QUAL099"]


def test_passes_over_ranges_merge_into_one_also_after_pickling(table, context, alone):
    pickle = pytest.importorskip("ray").cloudpickle  # what carries a pass to a task and back
    source = open_source(table)
    plan, lost = planned(source, context, row_key=KEY, checks=None, available=None, budget=None)
    whole, parts = Pass(plan, Timer()), []
    roots = SetRoot(table.schema.names)
    for blocks in (BlockRange(0, 1), BlockRange(1, 2), BlockRange(2, None)):
        sent = pickle.dumps(passed_over(source, pickle.loads(pickle.dumps(plan)), blocks))
        seen, part, public = pickle.loads(sent)
        whole.merge(seen)
        parts.append(part)
        roots.add(public)
    findings = whole.findings(lambda _: None)
    merged = whole.result(parts, roots, findings, lost)
    assert said(merged) == said(alone)
    assert np.array_equal(merged.rowhashes.rows, alone.rowhashes.rows)
    assert np.array_equal(merged.rowhashes.features, alone.rowhashes.features)


def test_a_budget_stops_the_costliest_check_and_says_so(table, context):
    result = scan_source(open_source(table.slice(0, 2_000)), context, row_key=KEY, budget=1e-9)
    stopped = [c for c in result.checks if "budget of 1e-09 CPU-seconds" in (c["skipped"] or "")]
    assert stopped
    assert not [f for f in result.findings if f.check in {c["name"] for c in stopped}]


JOB = """
import json, sys
import ray
from dataset_guard.checks.base import CheckContext
from dataset_guard.reading import open_source
from dataset_guard.scanning.scan import scan_source
from dataset_guard.scanning.on_ray import scan_on_ray

ray.init()
source = open_source(sys.argv[1])
context = CheckContext(
    schema=source.schema, label="label", tenant="acme", name="set", parameters=json.loads(sys.argv[2])
)
for kind, scan in (("RAY", scan_on_ray), ("ALONE", scan_source)):
    more = {"parallelism": 2} if kind == "RAY" else {}
    found = scan(source, context, row_key=bytes(32), **more)
    print(kind, json.dumps([found.fingerprint.to_json(), [f.to_json() for f in found.findings]]))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_two_ray_workers_find_what_one_process_finds(ray_cluster, table, tmp_path):
    path, program = tmp_path / "mixed.parquet", tmp_path / "job.py"
    pq.write_table(table.slice(0, BLOCK_ROWS + 4_000), path, row_group_size=30_000)
    program.write_text(JOB)
    client = ray_cluster.client("acme")
    words = f"python {program} {path} {shlex.quote(json.dumps(SMALL))}"
    job = client.submit_job(entrypoint=words, entrypoint_num_cpus=1)
    details = ray_cluster.wait(client, job)
    logs = client.get_job_logs(job)
    assert details.status == "SUCCEEDED", logs
    ray_said, alone_said = (
        next(line.split(" ", 1)[1] for line in logs.splitlines() if line.startswith(kind))
        for kind in ("RAY ", "ALONE ")
    )
    assert ray_said == alone_said
    assert len(json.loads(ray_said)[1]) >= 3
