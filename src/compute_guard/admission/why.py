"""Why a job is where it is: the rule, the numbers, who is ahead, and what would fit now. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from compute_guard.admission.assessment import Assessment, amounts_text, assess
from compute_guard.admission.gateway import Gateway
from compute_guard.admission.held_leases import held_leases, held_text
from compute_guard.admission.snapshot import Snapshot
from compute_guard.admission.workload import WorkloadState
from compute_guard.cluster.connection import load_cluster
from compute_guard.ledger.store import Entry
from compute_guard.quota.limits import HOUR_MS, Amounts, Quotas
from compute_guard.replay.forecast import forecast
from guard_core.clock import rfc3339, to_ns
from guard_core.counting import counted
from guard_core.errors import UserError

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.identity import Principal


def why(home: Home, job: str, principal: Principal) -> dict[str, Any]:
    """The story of one job, as JSON. Raises UserError for a job that is not the principal's."""
    gateway = Gateway(home)
    entry = gateway.ledger.get(job)
    mine = entry is not None and (principal.is_platform_admin or entry.workload.tenant == principal.tenant)
    if entry is None or not mine:
        raise UserError(f"there is no job {job!r}; see: trainguard compute status")
    story: dict[str, Any] = {
        "job": entry.id,
        "tenant": entry.workload.tenant,
        "queue": entry.workload.queue,
        "state": entry.state.value,
        "reason": entry.reason,
        "decision_id": entry.decision_id,
        "enforcement": "cooperative",
        "requests": dict(entry.workload.requests),
    }
    if entry.state is WorkloadState.PENDING:
        story |= _waiting(gateway, entry)
    if entry.state.holds_quota and (held := _held_at_gates(gateway, entry)):
        story["held_at_gates"] = held
    if entry.state.holds_quota and (incidents := _incidents(home, entry)):
        story["incidents"] = incidents
    if entry.eviction is not None:
        story["notice"] = {
            "cause": entry.eviction.cause,
            "reason": entry.eviction.reason,
            "stop_at": rfc3339(entry.eviction.stop_at),
            "requeue": entry.eviction.requeue,
            "decision_id": entry.eviction.decision_id,
        }
    return story


def _waiting(gateway: Gateway, entry: Entry) -> dict[str, Any]:
    quotas = gateway.quotas()
    if entry.workload.queue not in quotas.queues:
        return {
            "reasons": [{"rule": "queue-unknown", "msg": f"queue {entry.workload.queue} no longer exists"}]
        }
    snapshot = gateway.snapshot(quotas)
    assessment: Assessment = assess(snapshot, entry.workload)
    notices = gateway.ledger.evictions()
    stops = {name: to_ns(one.stop_at) // 1_000_000 for name, one in notices.items()}
    leaving = [one.stop_at for one in notices.values() if one.beneficiary == entry.id]
    start = forecast(snapshot, entry.workload, gateway.ledger.run_times(), stops)
    members = quotas.members(quotas.queues[entry.workload.queue])
    return {
        "reasons": [{"rule": rule, "msg": text} for rule, text in assessment.waits_for()],
        "status_message": gateway.explain([entry]).get(entry.id, ""),
        "flavor": assessment.way.flavor,
        "borrows": assessment.borrows,
        "fair_share": {queue.name: snapshot.share(queue.name) for queue in members},
        "estimate": {
            "starts_in_seconds": None if start.in_ms is None else start.in_ms // 1000,
            "basis": start.basis,
        },
        "numbers": {name: numbers.to_input() for name, numbers in assessment.resources.items()},
        "ahead": list(assessment.ahead),
        "would_fit_now": {n: max(0, r.available) for n, r in assessment.resources.items()},
        "held_by": _holders(gateway, snapshot, entry),
        "made_room_by": {"jobs": len(leaving), "until": rfc3339(max(leaving))} if leaving else None,
    }


def _incidents(home: Home, entry: Entry) -> list[dict[str, Any]]:
    """Open incidents of a job that runs."""
    from compute_guard.incidents.store import Incidents

    return [
        {"id": one.id, "kind": one.kind, "severity": one.severity}
        for one in Incidents(home).list(tenant=entry.workload.tenant, open_only=True)
        if one.job == entry.id
    ]


def _held_at_gates(gateway: Gateway, entry: Entry) -> dict[str, Any]:
    """Leases of a running job that wait: for what, since when, behind whom; empty when none does."""
    cluster = load_cluster(gateway.home.path("ray"))
    lines = held_leases(cluster.guard_folder if cluster is not None else "")
    own, quotas = lines.get(entry.id), gateway.quotas()
    queue = quotas.queues.get(entry.workload.queue)
    if own is None or queue is None:
        return {}
    members = {member.name for member in quotas.members(queue)}
    snapshot = gateway.snapshot(quotas)
    before = [held for held in lines.values() if held.since_ms < own.since_ms]
    known = {one.id: one for one in gateway.ledger.entries(states=[WorkloadState.RUNNING])}
    ahead = [
        # Another tenant's job ids are that tenant's business.
        known[held.workload].id
        if known[held.workload].workload.tenant == entry.workload.tenant
        else f"another tenant's job in queue {known[held.workload].workload.queue}"
        for held in sorted(before, key=lambda held: held.since_ms)
        if held.workload in known and known[held.workload].workload.queue in members
    ]
    return {
        "leases": own.count,
        "needs": dict(own.needs),
        "since": rfc3339(datetime.fromtimestamp(own.since_ms / 1000, UTC)),
        "sentence": own.sentence(to_ns(gateway.home.clock()) // 1_000_000),
        "reason": own.reason,
        "ahead": ahead,
        "would_fit_now": {
            name: max(0, quotas.available(queue.name, name, snapshot.usage)) for name in own.needs
        },
    }


def _holders(gateway: Gateway, snapshot: Snapshot, entry: Entry) -> list[dict[str, Any]]:
    """Whose reservations, in queues of the same cohort, take what this job asks for."""
    members = {queue.name for queue in snapshot.quotas.members(snapshot.quotas.queues[entry.workload.queue])}
    states = [WorkloadState.ADMITTED, WorkloadState.RUNNING]
    holders = [
        other
        for other in gateway.ledger.entries(states=states)
        if other.workload.queue in members and set(other.workload.requests) & set(entry.workload.requests)
    ]
    return [
        {
            # Another tenant's job ids are that tenant's business: only its queue is named.
            "job": other.id if other.workload.tenant == entry.workload.tenant else None,
            "queue": other.workload.queue,
            "requests": dict(other.workload.requests),
        }
        for other in holders
    ]


def why_text(story: Mapping[str, Any]) -> Iterator[str]:
    """The story for a person."""
    yield f"job {story['job']} of {story['tenant']}: {story['state']} in queue {story['queue']}"
    yield f"  asks for      {amounts_text(story['requests'])}"
    if story["state"] != WorkloadState.PENDING and story["reason"]:
        # Of a job that failed, Ray's reason may be a traceback.
        yield "  because       " + "\n                ".join(story["reason"].strip().splitlines())
    for reason in story.get("reasons", ()):
        yield f"  waits for     {reason['msg']} [{reason['rule']}]"
    if story.get("ahead"):
        yield f"  ahead         {', '.join(story['ahead'])}"
    for holder in story.get("held_by", ()):
        used = amounts_text(holder["requests"])
        yield f"  in use by     {holder['job'] or 'another tenant'} (queue {holder['queue']}): {used}"
    if story.get("made_room_by"):
        room = story["made_room_by"]
        until = f"{datetime.fromisoformat(room['until']):%H:%M:%S} UTC"
        yield f"  room is made  {counted(room['jobs'], 'job')} with notice, gone by {until}"
    if len(story.get("fair_share", {})) > 1 and story.get("borrows"):
        shares = sorted(story["fair_share"].items(), key=lambda item: item[1])
        most = max(1, shares[-1][1])
        text = ", ".join(f"{name} {100 * share // most}" for name, share in shares)
        yield f"  fair share    {text} (per cent of the most; less goes first when borrowing)"
    if "held_at_gates" in story:
        held = story["held_at_gates"]
        yield from held_text(held, held["ahead"], held["would_fit_now"])
    for incident in story.get("incidents", ()):
        told = f"{incident['id']} ({incident['kind']}, {incident['severity']})"
        yield f"  incident      {told}: trainguard incident show {incident['id']}"
    if "notice" in story:
        yield f"  has notice    {story['notice']['reason']}"
    if "estimate" in story:
        yield f"  starts        {_start(story['estimate'])}"
    if "would_fit_now" in story:
        yield f"  fits now      {amounts_text(story['would_fit_now'])}"
    if story["decision_id"]:
        yield f"  decision      {story['decision_id']} (trainguard policy why {story['decision_id']})"


def _start(estimate: Mapping[str, Any]) -> str:
    seconds = estimate["starts_in_seconds"]
    if seconds is None:
        return f"no estimate: {estimate['basis']}"
    hours, minutes = seconds // 3600, seconds // 60
    about = f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else f"{seconds} s"
    return f"in about {about}, {estimate['basis']}"


def quota_table(quotas: Quotas, snapshot: Snapshot) -> list[dict[str, Any]]:
    """One row for each queue and resource that has quota or is used.

    ``share_percent``: of what the queue of all its cohort's tree that had most had, for its weight.
    """
    rows = []
    shares = {name: snapshot.share(name) for name in quotas.queues}
    most: dict[str | None, int] = {}
    for name, share in shares.items():
        top = quotas.top_of(name)
        most[top] = max(most.get(top, 0), share)
    for name in sorted(quotas.queues):
        queue = quotas.queues[name]
        used: Amounts = snapshot.usage.get(name, Amounts())
        for resource in dict.fromkeys([*queue.resources, *used]):
            limits = queue.quota(resource)
            rows.append(
                {
                    "queue": name,
                    "tenant": queue.tenant,
                    "cohort": queue.cohort,
                    "resource": resource,
                    "nominal": limits.nominal,
                    "borrowing_limit": limits.borrowing_limit,
                    "lending_limit": limits.lending_limit,
                    "used": used[resource],
                    "borrowed": quotas.borrowed(name, resource, snapshot.usage),
                    "available": quotas.available(name, resource, snapshot.usage),
                    "pending": len(snapshot.waiting_in(name)),
                    "hold": snapshot.holds.get(name),
                    "weight": queue.weight,
                    "share": shares[name],
                    "share_percent": 100 * shares[name] // max(1, most[quotas.top_of(name)]),
                    "budget_gpu_hours": None if queue.budget is None else queue.budget.gpu_hours,
                    "budget_used_gpu_hours": snapshot.budget_used(name) // (1000 * HOUR_MS),
                }
            )
    return rows
