"""What a client is shown: the ledger's workloads in the Job API's shape, Ray's answers cut to one tenant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from compute_guard.admission.workload import WorkloadState
from compute_guard.ledger.store import Entry

_STATUS = {
    WorkloadState.PENDING: "PENDING",
    WorkloadState.ADMITTED: "PENDING",
    WorkloadState.RUNNING: "RUNNING",
    WorkloadState.DENIED: "FAILED",
    WorkloadState.EVICTED: "STOPPED",
    WorkloadState.PREEMPTED: "STOPPED",
}
HIDDEN = "<hidden>"


def message_of(entry: Entry, waiting: str = "") -> str:
    """The job's status message: which rule holds it, the numbers, who is ahead (``waiting``, as of now)."""
    if entry.state is WorkloadState.PENDING:
        reason = waiting or entry.reason or "waiting for the next admission round"
        return f"{reason} (trainguard compute why {entry.id})"
    if entry.eviction is not None:
        return f"TrainGuard: has notice: {entry.eviction.reason}"
    if entry.state is WorkloadState.ADMITTED:
        return "admitted; being handed to Ray"
    if entry.state is WorkloadState.DENIED:
        return f"TrainGuard denied this job: {entry.reason} (decision {entry.decision_id})"
    if entry.state in (WorkloadState.EVICTED, WorkloadState.PREEMPTED):
        return f"TrainGuard: {entry.state.value}: {entry.reason}"
    return entry.reason


def details_of(entry: Entry, waiting: str = "") -> dict[str, Any]:
    """``JobDetails`` of a workload that Ray does not know (yet, or any more)."""
    spec = entry.workload.spec
    ended = entry.reason.partition(":")[0]
    status = ended if ended in ("SUCCEEDED", "FAILED", "STOPPED") else "FAILED"
    return {
        "type": "SUBMISSION",
        "job_id": entry.ray_job_id,
        "submission_id": entry.id,
        "driver_info": None,
        "status": _STATUS.get(entry.state, status),
        "entrypoint": entry.workload.entrypoint,
        "message": message_of(entry, waiting),
        "error_type": None,
        "start_time": entry.created_ms,
        "end_time": entry.finished_ms,
        "metadata": dict(spec.get("metadata") or {}),
        "runtime_env": without_token(spec.get("runtime_env") or {}),
        "driver_agent_http_address": None,
        "driver_node_id": None,
        "driver_exit_code": None,
    }


def without_token(environment: Mapping[str, Any]) -> dict[str, Any]:
    """A runtime environment with the job's own credential hidden."""
    variables = environment.get("env_vars")
    if not isinstance(variables, Mapping) or "TRAINGUARD_TOKEN" not in variables:
        return dict(environment)
    return {**environment, "env_vars": {**variables, "TRAINGUARD_TOKEN": HIDDEN}}


def shown(details: Mapping[str, Any], entry: Entry | None, held: str = "") -> dict[str, Any]:
    """Ray's details of one job, without its credential, and with our reason where we ended it.

    ``held``: what its leases wait for at the gates.
    """
    answer = dict(details)
    answer["runtime_env"] = without_token(answer.get("runtime_env") or {})
    ended_by_us = entry is not None and entry.state in (WorkloadState.EVICTED, WorkloadState.PREEMPTED)
    if entry is not None and (ended_by_us or entry.eviction is not None):
        answer["message"] = message_of(entry)
    elif entry is not None and held and entry.state.holds_quota:
        answer["message"] = f"TrainGuard: {held} (trainguard compute why {entry.id})"
    return answer


def listed(
    of_ray: Iterable[Mapping[str, Any]],
    entries: Iterable[Entry],
    *,
    everything: bool,
    waiting: Mapping[str, str] | None = None,
    held: Mapping[str, str] | None = None,
) -> list[Any]:
    """Ray's job list cut to the workloads in ``entries``, with those that Ray does not know added.

    ``everything`` keeps what is not in the ledger too: for a platform admin. ``waiting``: reasons as of now;
    ``held``: what leases of running jobs wait for.
    """
    by_id = {entry.id: entry for entry in entries}
    waits = {entry.id for entry in by_id.values() if entry.state is WorkloadState.PENDING}
    # Of a job that waits again Ray still shows the earlier run: the ledger's word counts.
    known = {
        details.get("submission_id"): details
        for details in of_ray
        if details.get("submission_id") not in waits
    }
    answer = [
        shown(details, by_id.get(name), (held or {}).get(name, ""))
        for details in known.values()
        for name in [details.get("submission_id") or ""]
        if everything or name in by_id
    ]
    # Ray forgets a job that was deleted; only what still says something of its own is added.
    missing = (e for e in by_id.values() if e.id not in known and e.state is not WorkloadState.FINISHED)
    return answer + [details_of(entry, (waiting or {}).get(entry.id, "")) for entry in missing]
