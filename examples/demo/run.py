"""The main job of TrainGuard, end to end, on embedded defaults. Run it with ``trainguard demo``.

Real: the digits, Ray, MLflow, Great Expectations, the Rego policies, every signature. Planted by the demo,
and said so: the poison in ``digits@2``, one value changed in a file, a synthetic GPU telemetry series.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from table import Steps, expect, say  # the demo's own modules lie beside this file

MARK = ".trainguard-demo"


def prepare(into: Path) -> None:
    """An empty folder of our own. Refuses a folder with something else in it."""
    if into.exists() and any(into.iterdir()):
        if not (into / MARK).exists():
            sys.exit(f"error: {into} holds files the demo did not make; choose another folder with --into")
        shutil.rmtree(into)
    into.mkdir(parents=True, exist_ok=True)
    (into / MARK).write_text("made by `trainguard demo`, which may delete this folder\n")


def trainguard(*words: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a user would call it."""
    command = [str(Path(sys.executable).parent / "trainguard"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=Path(".demo"))
    parser.add_argument("--keep-cluster", action="store_true")
    arguments = parser.parse_args()
    into: Path = arguments.into.resolve()
    home_dir = into / "home"
    if (home_dir / "ray" / "cluster.json").exists():
        os.environ["TRAINGUARD_HOME"] = str(home_dir)
        trainguard("compute", "down")  # a cluster that an earlier demo left running
    prepare(into)
    os.environ["TRAINGUARD_HOME"] = str(home_dir)
    tracking_uri = f"sqlite:///{into / 'mlflow.db'}"
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri
    os.chdir(into)  # MLflow keeps artifacts beside the place it is used from

    from cluster_steps import ClusterSteps
    from dataset_steps import DatasetSteps
    from guard_core.home import Home
    from planted import build

    say(f"everything the demo makes goes to {into}")
    say("real: scikit-learn's handwritten digits, Ray, MLflow, Great Expectations, the shipped Rego policies")
    say("planted: poison in digits@2, one value changed in a file, a synthetic GPU telemetry series")
    steps = Steps()
    with Home.open() as home:
        data = build(into / "data")
        sets = DatasetSteps(home, data, tracking_uri)
        compute = ClusterSteps(home, tracking_uri)
        steps.run(
            "1",
            "tenants acme and beta with quotas; shipped policies pass their tests",
            "enforced",
            lambda: policies(home),
        )
        steps.run(
            "2",
            "digits@1 (real data) is registered, allowed, signed, in MLflow",
            "cooperative",
            sets.register_clean,
        )
        steps.run(
            "3",
            "digits@2 (planted poison) is quarantined; findings name the rows",
            "cooperative",
            sets.catch_poison,
        )
        steps.run(
            "4",
            "a file changed in place, size and mtime kept, fails verify",
            "detective",
            sets.verify_names_the_change,
        )
        try:
            if steps.run("5", "a local Ray cluster starts with the plugin", "cooperative", compute.start):
                on_the_cluster(steps, compute, sets)
        finally:
            if not arguments.keep_cluster:
                compute.stop()
        steps.run(
            "7",
            "the audit log proves every decision; one changed byte is noticed",
            "detective",
            lambda: audit(home, into, sets.decisions),
        )
    steps.show()
    print(f"report       {sets.report_path}")
    print(f"MLflow       {into / 'mlflow.db'}   (mlflow ui --backend-store-uri {tracking_uri})")
    print(f"audit log    {home_dir / 'audit'}   (trainguard --home {home_dir} audit verify)")
    return 0 if steps.all_as_expected else 1


def policies(home: object) -> str:
    """The two tenants, their quotas, and the tests of the shipped Rego."""
    from guard_core.home import Home

    assert isinstance(home, Home)
    config = home.policy_data()
    queues = config["quotas"]["queues"]
    expect({"acme", "beta"} <= set(home.tenants()), f"tenants are {sorted(home.tenants())}")
    done = trainguard("policy", "test")
    expect(done.returncode == 0, f"policy test: {done.stdout[-500:]}{done.stderr[-500:]}")
    cpu = {name: queues[name]["resources"]["cpu_milli"]["nominal"] for name in ("acme", "beta")}
    last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-1]
    return (
        f"quota in milli-CPU {cpu}, revision {home.policy.revision[:12]}, engine {home.policy.name}; {last}"
    )


def on_the_cluster(steps: Steps, compute: "ClusterSteps", sets: "DatasetSteps") -> None:  # noqa: F821, UP037  # imported late, in main
    """Steps 5 and 6 on a running cluster."""
    label = "cooperative"
    steps.run(
        "5a", "acme trains on digits@1 through the verified reader", label, compute.admitted_and_finished
    )
    steps.run(
        "5b",
        "the same job on digits@2 is denied, with reasons",
        label,
        lambda: compute.denied("acme", "digits@2", "quarantine"),
    )
    steps.run(
        "5c",
        "a job of beta on acme's dataset is denied",
        label,
        lambda: compute.denied("beta", "acme/digits@1", "acme"),
    )
    steps.run("5d", "a job over beta's quota waits, then runs", label, compute.waits_for_room)

    def tampered() -> str:
        sets.tamper()
        try:
            return compute.stopped_at_the_block()
        finally:
            sets.restore()

    steps.run("5e", "reading the changed file stops the job at the block", label, tampered)
    steps.run(
        "6",
        "mining-like telemetry (synthetic): incident, job stopped, nothing else touched",
        "detective",
        compute.mining_is_stopped,
    )


def audit(home: object, into: Path, decisions: list[str]) -> str:
    """``audit verify`` passes, the log holds the demo's decisions, and a copy with one byte changed fails."""
    from guard_core.home import Home

    assert isinstance(home, Home)
    done = trainguard("audit", "verify")
    expect(done.returncode == 0, f"audit verify failed: {done.stdout}{done.stderr}")
    logged = {r["decision_id"] for r in home.audit.records() if r.get("kind") == "decision"}
    missing = [d for d in decisions if d not in logged]
    expect(not missing and len(logged) > len(decisions), f"decisions missing from the log: {missing}")
    copy = into / "audit-copy"
    shutil.copytree(home.path("audit"), copy)
    segment = min(copy.glob("*.jsonl"))
    raw = bytearray(segment.read_bytes())
    middle = len(raw) // 2
    while not chr(raw[middle]).isalnum():
        middle += 1
    raw[middle] ^= 1
    segment.write_bytes(raw)
    changed = trainguard("audit", "verify", str(copy))
    expect(changed.returncode == 1, f"a changed byte was not noticed (exit {changed.returncode})")
    problem = " ".join((changed.stderr or changed.stdout).split())[:160]
    return f"{len(logged)} decisions proved; copy with one byte changed: {problem}"


if __name__ == "__main__":
    sys.exit(main())
