"""The monitor as a real process on a real cluster: from a scrape to a stopped job."""

import json
import re
import signal
import subprocess
import sys
from collections import Counter

import pytest

from compute_guard.incidents.incident import State
from compute_guard.incidents.store import Incidents
from compute_guard.ledger.store import Ledger
from compute_guard.monitoring.live import Fleet, exporters_of_cluster, read_status
from compute_guard.ray_plugin.collector import LiveBook
from compute_guard.testing import exporter, exposition, wait_until
from compute_guard.usage.sources.prometheus import fetch
from compute_guard.usage.sources.synthetic import Load, SyntheticSource

pytestmark = pytest.mark.ray

INTERVAL = "1.5"
"""Seconds: at half a second a busy machine misses so many that three flat samples in a row never come."""
BUSY = "longer than its interval|did not answer"
"""What a monitor says on a machine that is slow to answer; it goes on."""
POOL = "stratum+tcp://pool.invalid:3333"


def start_monitor(cluster, *args):
    command = [sys.executable, "-c", "from guard_core.cli import main; raise SystemExit(main())"]
    settings = cluster.home.settings
    return subprocess.Popen(
        [*command, "--home", str(settings.home), "compute", "monitor", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def contained(home):
    return {(i.tenant, i.job) for i in Incidents(home).list() if i.state is State.CONTAINED}


def who_stopped(home, job, message):
    """What the ledger, the incidents and the audit log say of a job that should be running."""
    entry = Ledger(home.storage).get(job)
    told = [r for r in home.audit.records() if job in json.dumps([r.get("subject"), r.get("data")])]
    seen = [(i.kind, i.tenant, i.job, i.channels, i.evidence["devices"]) for i in Incidents(home).list()]
    return "\n".join(map(str, [message, entry, *seen, *told]))


def test_rays_own_endpoint_is_scraped_on_every_node(ray_cluster):
    targets = exporters_of_cluster(ray_cluster.home)
    ((url, node),) = targets()
    wait_until(lambda: b"ray_resources" in fetch(url))  # the first export comes seconds after the start
    feed = Fleet(targets, 0.0, lambda _: None)
    frame, heard = feed.scrape()
    assert heard
    assert (feed.failures, feed.lines_malformed) == (0, 0)
    assert {device.node for device in frame.devices} <= {node}  # none on a machine without GPUs


def killed_in_mid_incident(cluster, job, url):
    """A monitor that has opened an incident about ``job`` and is killed before anything completes it."""
    process = start_monitor(cluster, "--interval", INTERVAL, url)
    try:
        wait_until(lambda: [i for i in Incidents(cluster.home).list() if i.job == job])
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_a_miner_is_stopped_once_though_a_monitor_is_killed_its_neighbour_works_on_and_sigterm_ends_it(
    ray_cluster, gated
):
    home, client, neighbour = ray_cluster.home, ray_cluster.client("acme"), ray_cluster.client("beta")
    entrypoint, gate = gated()
    job = client.submit_job(entrypoint=f"{entrypoint} # {POOL}", entrypoint_num_gpus=1)
    ray_cluster.wait(client, job, ["RUNNING"])
    other = neighbour.submit_job(entrypoint=entrypoint, entrypoint_num_gpus=1)
    ray_cluster.wait(neighbour, other, ["RUNNING"])
    book = LiveBook(home)
    book.look()
    held = {h.job: (h.node.hostname, *h.gpus) for h in book.held if h.gpus}
    book.close()
    node, miners = held[job]
    loads = [Load("training", index=0), Load("training", index=1)]
    loads[miners] = Load("mining-capped", index=miners)
    frames = SyntheticSource(tuple(loads), 2_000, seed=5).frames()
    with exporter(lambda: exposition(next(frames), node)) as url:
        killed_in_mid_incident(ray_cluster, job, url)
        process = start_monitor(ray_cluster, "--interval", INTERVAL, "--format", "json", url)
        try:
            wait_until(lambda: contained(home) & {("acme", job), ("beta", other)} == {("acme", job)})
            assert client.get_job_info(job).status == "STOPPED"
            spared = neighbour.get_job_info(other)
            assert spared.status == "RUNNING", who_stopped(home, other, spared.message)
            (only,) = [i for i in Incidents(home).list() if i.job in (job, other) and i.kind == "mining"]
            assert only.channels == ("indicator", "telemetry")
            steps = Counter(
                (record["data"]["level"], record["data"]["phase"])
                for record in home.audit.records(kind="response.action")
                if record["data"]["incident"] == only.id
            )
            assert (steps[5, "executing"], steps[5, "done"]) == (1, 1), who_stopped(home, job, "twice?")
            rival = start_monitor(ray_cluster, "--once", url)
            _, words = rival.communicate(timeout=60)
            assert rival.returncode == 2
            assert words.strip() == (
                "error: another monitor of this home runs; end it first, or add --dry-run"
            )
            assert read_status(home)["scrape_failures"] == 0
        finally:
            process.send_signal(signal.SIGTERM)
            out, words = process.communicate(timeout=60)
    assert process.returncode == 0
    assert all(re.search(BUSY, line) for line in words.splitlines()), words
    report = json.loads(out)
    assert report["device_ms"] > 0
    assert {("tenant", "acme"), ("tenant", "beta")} <= {
        (row["bucket"], row["tenant"]) for row in report["attribution"]
    }
    gate.touch()
    assert ray_cluster.wait(neighbour, other).status == "SUCCEEDED"
