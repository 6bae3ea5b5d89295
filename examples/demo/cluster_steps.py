"""Step 5: a guarded Ray cluster, used through Ray's own job client. Step 6: a mining-like job is stopped."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import compute_guard
from guard_core.home import Home
from table import expect

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
JOBS = Path(__file__).parent / "jobs"


@dataclass(slots=True)
class ClusterSteps:
    """Two tenants on one cluster."""

    home: Home
    tracking_uri: str
    address: str = ""
    decisions: list[str] = field(default_factory=list)
    _clients: dict[str, Any] = field(default_factory=dict)

    def start(self) -> str:
        """Start the local head; nothing listens beyond this machine."""
        cluster = compute_guard.up(self.home, num_cpus=4, object_store_bytes=200_000_000, period_ms=500)
        self.address = cluster.dashboard
        return f"Ray head with admission at {cluster.dashboard}, observe-and-stop profile"

    def stop(self) -> None:
        """End the processes that :meth:`start` began."""
        compute_guard.down(self.home)

    def client(self, tenant: str) -> Any:
        """Ray's own client, with a credential of ``tenant``."""
        if tenant not in self._clients:
            from ray.job_submission import JobSubmissionClient

            token = self.home.credentials.issue(tenant=tenant, user=f"{tenant}-scientist", ttl_seconds=3600)
            headers = {"Authorization": f"Bearer {token}"}
            self._clients[tenant] = JobSubmissionClient(self.address, headers=headers)
        return self._clients[tenant]

    def submit(self, tenant: str, entrypoint: str, *, datasets: str = "") -> str:
        """Submit one job that asks for one CPU."""
        return str(
            self.client(tenant).submit_job(
                entrypoint=entrypoint,
                entrypoint_num_cpus=1,
                runtime_env={"working_dir": str(JOBS)},
                metadata={"datasets": datasets} if datasets else None,
            )
        )

    def wait(self, tenant: str, job: str, states: Collection[str] = ENDED, *, seconds: float = 90) -> str:
        """The job's status once it is in one of ``states``."""
        deadline = time.monotonic() + seconds
        while True:
            status = str(self.client(tenant).get_job_status(job).value)
            if status in states:
                return status
            expect(time.monotonic() < deadline, f"job {job} is still {status} after {seconds:.0f} s")
            time.sleep(0.25)

    def train(self, dataset: str) -> str:
        """Submit the training job on ``dataset``."""
        command = f"python train.py --dataset {dataset} --tracking-uri {self.tracking_uri}"
        return self.submit("acme", command, datasets=dataset)

    def admitted_and_finished(self) -> str:
        """``acme`` trains on ``digits@1``; MLflow knows which data the run read."""
        import mlflow

        job = self.train("digits@1")
        status = self.wait("acme", job)
        logs = self.client("acme").get_job_logs(job)
        expect(status == "SUCCEEDED", f"the job {status}: {logs[-1500:]}")
        line = next(text for text in logs.splitlines() if text.startswith("trained on"))
        client = mlflow.MlflowClient(self.tracking_uri)
        run = client.get_run(line.rsplit(" ", 1)[1])
        digests = [i.dataset.digest for i in run.inputs.dataset_inputs]
        expect(len(digests) == 1 and digests[0].startswith("dg1:"), f"the run's inputs are {digests}")
        return f"{line}; its lineage in MLflow: {digests[0]}"

    def denied(self, tenant: str, dataset: str, words: str) -> str:
        """A job that policy must refuse, with ``words`` among its reasons."""
        command = f"python train.py --dataset {dataset} --tracking-uri {self.tracking_uri}"
        try:
            job = self.submit(tenant, command, datasets=dataset)
        except RuntimeError as error:  # what Ray's client raises for an HTTP error, with the server's text
            text = " ".join(str(error).split())
        else:
            self.client(tenant).stop_job(job)
            expect(False, f"the job was accepted as {job}")
        expect(words in text, f"refused, but not for the expected reason: {text}")
        return text[:400]

    def waits_for_room(self) -> str:
        """``beta``'s quota is one CPU: its second job waits, says why, and runs when the first has ended."""
        first = self.submit("beta", "python compute.py 6")
        second = self.submit("beta", "python compute.py 1")
        info = self.client("beta").get_job_info(second)
        expect(info.status.value == "PENDING", f"the second job is {info.status.value}, not PENDING")
        why = " ".join((info.message or "").split())
        expect("cpu" in why.lower(), f"its message does not say why it waits: {why}")
        running = self.client("beta").get_job_status(first).value
        expect(running in ("PENDING", "RUNNING"), f"the first job is {running}")
        expect(self.wait("beta", first) == "SUCCEEDED", "the first job did not succeed")
        expect(self.wait("beta", second) == "SUCCEEDED", "the waiting job did not run")
        return f"waited ({why[:200]}), ran when the first job had ended"

    def stopped_at_the_block(self) -> str:
        """A job that reads the file changed in place ends at the block, with an error that names it."""
        job = self.train("digits@1")
        status = self.wait("acme", job)
        logs = self.client("acme").get_job_logs(job)
        expect(status == "FAILED", f"the job {status} although its data was changed")
        lines = [line.strip() for line in logs.splitlines() if "block 0" in line and "pixel_20" in line]
        expect(bool(lines), f"its log does not name block and column: {logs[-1500:]}")
        return lines[-1][-300:]

    def mining_is_stopped(self) -> str:
        """Synthetic telemetry of two real jobs; only the one that looks like mining is stopped."""
        from compute_guard.monitoring.monitor import STEP_NS, replay
        from compute_guard.ray_plugin.jobs import RayCluster
        from compute_guard.usage.attribution import Lease, LeaseBook
        from compute_guard.usage.sources.synthetic import Load, SyntheticSource
        from guard_core.clock import to_ns

        honest = self.submit("acme", "python compute.py 600")
        miner = self.submit("beta", "python compute.py 600")
        for tenant, job in (("acme", honest), ("beta", miner)):
            self.wait(tenant, job, ("RUNNING",))
        good = Load("training", node="syn-a", index=0)
        bad = Load("training", node="syn-b", after="mining-capped", onset=20, process=(4242, "xmrig"))
        book = LeaseBook.of(
            [
                Lease(good.device.key, "acme", honest, entrypoint="python compute.py 600"),
                Lease(bad.device.key, "beta", miner, entrypoint="python compute.py 600"),
            ]
        )
        start = to_ns(self.home.clock()) - 80 * STEP_NS
        source = SyntheticSource((good, bad), samples=80, seed=20261123, start_ns=start)
        seen = replay(self.home, source, book, RayCluster(self.home), synthetic_may_act=True)
        mining = [i for i in seen.incidents if i.kind == "mining"]
        expect(
            [(i.tenant, i.job) for i in mining] == [("beta", miner)],
            f"incidents: {[(i.kind, i.tenant, i.job) for i in seen.incidents]}",
        )
        stops = [a for a in seen.actions if a.name == "stop" and a.state == "done"]
        expect(len(stops) == 1, f"actions: {[(a.name, a.state) for a in seen.actions]}")
        expect(self.wait("beta", miner) == "STOPPED", "Ray does not say that the job was stopped")
        still = self.client("acme").get_job_status(honest).value
        expect(still == "RUNNING", f"the honest job of acme is {still}")
        touched = {a.result["target"]["job"] for a in seen.actions}
        expect(touched == {miner}, f"actions touched {touched}")
        self.client("acme").stop_job(honest)
        incident = mining[0]
        onset = start + bad.onset * STEP_NS
        minutes = (seen.acted_ns[stops[0].id] - onset) / 60e9
        return (
            f"incident {incident.id} for beta/{miner}; stopped {minutes:.1f} min of telemetry after onset "
            f"with the approval of playbook {stops[0].result['playbook']}; acme's job ran on"
        )
