"""The monitor as a real process on a real cluster: from a scrape to a stopped job."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from compute_guard.incidents import Incidents, State
from compute_guard.live import Fleet, exporters_of_cluster, read_status
from compute_guard.ray_plugin.collector import LiveBook
from compute_guard.testing import wait_until
from compute_guard.usage.sources.prometheus import fetch
from compute_guard.usage.sources.synthetic import Load, SyntheticSource

pytestmark = pytest.mark.ray

POOL = "stratum+tcp://pool.invalid:3333"
METRICS = {
    "DCGM_FI_DEV_GPU_UTIL": ("util_percent", 1.0),
    "DCGM_FI_DEV_FB_USED": ("memory_used_bytes", 2.0**-20),
    "DCGM_FI_DEV_POWER_USAGE": ("power_w", 1.0),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": ("tensor_active", 1.0),
    "DCGM_FI_PROF_PCIE_TX_BYTES": ("pcie_bytes_per_s", 1.0),
}


@contextmanager
def exporter(node: str, loads: list[Load]) -> Iterator[str]:
    """A real HTTP exporter in dcgm-exporter's words; each scrape is the next sample of the loads."""
    frames = iter(list(SyntheticSource(tuple(loads), 2_000, seed=5).frames()))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            frame, lines = next(frames), []
            for name, (metric, factor) in METRICS.items():
                for device, value in zip(frame.device, frame.metric(metric), strict=True):
                    labels = f'gpu="{device}",UUID="GPU-{device}",Hostname="{node}"'
                    lines.append(f"{name}{{{labels}}} {float(value) * factor}")
            body = ("\n".join(lines) + "\n").encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()


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


def test_rays_own_endpoint_is_scraped_on_every_node(ray_cluster):
    targets = exporters_of_cluster(ray_cluster.home)
    ((url, node),) = targets()
    wait_until(lambda: b"ray_resources" in fetch(url))  # the first export comes seconds after the start
    feed = Fleet(targets, 0.0, lambda _: None)
    frame, heard = feed.scrape()
    assert heard
    assert (feed.failures, feed.lines_malformed) == (0, 0)
    assert {device.node for device in frame.devices} <= {node}  # none on a machine without GPUs


def test_a_miner_is_stopped_by_the_running_monitor_its_neighbour_works_on_and_sigterm_ends_it(
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
    with exporter(node, loads) as url:
        process = start_monitor(ray_cluster, "--interval", "0.5", "--format", "json", url)
        try:
            wait_until(lambda: contained(home) & {("acme", job), ("beta", other)} == {("acme", job)})
            assert client.get_job_info(job).status == "STOPPED"
            assert neighbour.get_job_info(other).status == "RUNNING"
            (only,) = [i for i in Incidents(home).list() if i.job in (job, other) and i.kind == "mining"]
            assert only.channels == ("indicator", "telemetry")
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
    assert (process.returncode, words) == (0, "")
    report = json.loads(out)
    assert report["device_ms"] > 0
    assert {("tenant", "acme"), ("tenant", "beta")} <= {
        (row["bucket"], row["tenant"]) for row in report["attribution"]
    }
    gate.touch()
    assert ray_cluster.wait(neighbour, other).status == "SUCCEEDED"
