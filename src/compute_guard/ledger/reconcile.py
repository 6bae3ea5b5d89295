"""What the ledger says against what Ray says. Pure: both in, the steps that bring them together out.

Label `detective`: a driver that joined the cluster beside the gateway is seen and stopped within about one
period, after it started.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from compute_guard.admission.workload import WorkloadState
from compute_guard.ledger.store import Entry

INTERNAL_NAMESPACE = "_ray_internal_"
ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
STOPPING_SECONDS = 30.0
"""How long a job that we ended may take to be gone: Ray sends SIGTERM, waits, then SIGKILL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A driver in Ray's job table. ``submission_id`` is what the driver claims; ``origin`` is what was seen.

    ``origin``: True when the process is one that Ray started for that submission (or a process of Ray's own,
    for an internal namespace), False when it certainly is not, None when it cannot be seen from here.
    """

    job_id: str
    submission_id: str
    namespace: str
    pid: int
    node_ip: str
    entrypoint: str
    is_dead: bool
    origin: bool | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """A record of Ray's Job API."""

    status: str
    message: str = ""
    ended_ms: int | None = None

    def is_of_before(self, entry: Entry) -> bool:
        """Whether this is the record of an earlier run, which ended before ``entry`` was admitted (again)."""
        return (
            self.status in ENDED
            and self.ended_ms is not None
            and entry.admitted_ms is not None
            and self.ended_ms < entry.admitted_ms
        )


class Step(StrEnum):
    """What to do."""

    RUN = "run"  # Ray runs it: say so
    FINISH = "finish"  # Ray ended it: give its quota back
    SUBMIT = "submit"  # admitted, but Ray never got it
    STOP_SUBMISSION = "stop_submission"  # Ray has a submission that was not admitted, or that was ended
    STOP_DRIVER = "stop_driver"  # a driver that was not admitted
    STOP_EVICTED = "stop_evicted"  # a job with notice whose time is up
    TAKE_OUT = "take_out"  # a job with notice has stopped: it waits again, or has ended


@dataclass(frozen=True, slots=True)
class Correction:
    """One step. ``target`` is a submission id, or a Ray job id for STOP_DRIVER.

    ``ours``: it belongs to a job that we have just ended ourselves, and is no intrusion.
    """

    step: Step
    target: str
    reason: str = ""
    ray_job_id: str | None = None
    ours: bool = False


def reconcile(
    entries: Iterable[Entry],
    submissions: Mapping[str, Submission],
    drivers: Iterable[Driver],
    *,
    being_submitted: Collection[str] = (),
    now: datetime | None = None,
) -> tuple[Correction, ...]:
    """The corrections for one moment, in a stable order. ``being_submitted`` are on their way to Ray.

    ``now`` is needed to stop those whose notice has run out.
    """
    by_id = {entry.id: entry for entry in entries}
    alive = sorted((driver for driver in drivers if not driver.is_dead), key=lambda driver: driver.job_id)
    latest = {driver.submission_id: driver.job_id for driver in alive if driver.submission_id}
    found: list[Correction] = []
    for entry in by_id.values():
        found += _own(
            entry, submissions.get(entry.id), latest.get(entry.id), entry.id in being_submitted, now
        )
    for submission_id in sorted(submissions):
        status = submissions[submission_id].status
        if submission_id not in by_id and status not in ENDED:
            found.append(
                Correction(Step.STOP_SUBMISSION, submission_id, "it did not pass the admission gateway")
            )
    for driver in alive:
        if why := _intruder(driver, by_id):
            claimed = by_id.get(driver.submission_id)
            ours = claimed is not None and driver.origin is not False and _stopping(claimed, now)
            found.append(Correction(Step.STOP_DRIVER, driver.job_id, why, ours=ours))
    return tuple(found)


def _stopping(entry: Entry, now: datetime | None) -> bool:
    """Whether we ended this job so short a time ago that it may still be on its way out."""
    return (
        entry.state in (WorkloadState.EVICTED, WorkloadState.PREEMPTED)
        and entry.finished_ms is not None
        and now is not None
        and now.timestamp() - entry.finished_ms / 1000 < STOPPING_SECONDS
    )


def _own(
    entry: Entry, seen: Submission | None, ray_job_id: str | None, underway: bool, now: datetime | None
) -> list[Correction]:
    if seen is not None and entry.state is WorkloadState.ADMITTED and seen.is_of_before(entry):
        seen = None
    if entry.state.holds_quota:
        leaving = _leaving(entry, seen, now)
        if leaving is not None:
            return [leaving]
        if seen is None:
            if underway:
                return []
            if entry.state is WorkloadState.ADMITTED:
                return [Correction(Step.SUBMIT, entry.id)]
            return [Correction(Step.FINISH, entry.id, "Ray no longer knows this job")]
        if seen.status in ENDED:
            return [Correction(Step.FINISH, entry.id, f"{seen.status}: {seen.message}", ray_job_id)]
        if seen.status == "RUNNING" and entry.state is WorkloadState.ADMITTED:
            return [Correction(Step.RUN, entry.id, "", ray_job_id)]
        if ray_job_id is not None and entry.ray_job_id != ray_job_id:
            return [Correction(Step.RUN, entry.id, "", ray_job_id)]
        return []
    if seen is not None and seen.status not in ENDED:
        why = "it is waiting" if entry.state is WorkloadState.PENDING else f"it was {entry.state.value}"
        return [Correction(Step.STOP_SUBMISSION, entry.id, why, ours=_stopping(entry, now))]
    return []


def _leaving(entry: Entry, seen: Submission | None, now: datetime | None) -> Correction | None:
    """The next step of a job with notice, or None while its time runs or when it ended by itself."""
    notice = entry.eviction
    if notice is None or now is None:
        return None
    due = now >= notice.stop_at
    if seen is None:
        return Correction(Step.TAKE_OUT, entry.id, notice.reason) if due else None
    if seen.status in ENDED:
        stopped = seen.status == "STOPPED" or (seen.status == "FAILED" and due)
        return Correction(Step.TAKE_OUT, entry.id, notice.reason) if stopped else None
    return Correction(Step.STOP_EVICTED, entry.id, notice.reason) if due else None


def _intruder(driver: Driver, by_id: Mapping[str, Entry]) -> str:
    """Why a living driver must be stopped, or nothing."""
    if driver.namespace.startswith(INTERNAL_NAMESPACE) and not driver.submission_id:
        return "" if driver.origin is not False else "it uses a namespace of Ray's own processes"
    if not driver.submission_id:
        return "it did not pass the admission gateway"
    entry = by_id.get(driver.submission_id)
    if entry is None:
        return f"it claims submission {driver.submission_id}, which was never admitted"
    if not entry.state.holds_quota:
        return f"it claims submission {driver.submission_id}, which is {entry.state.value}"
    if driver.origin is False:
        return f"it claims submission {driver.submission_id}, but was not started by it"
    return ""
