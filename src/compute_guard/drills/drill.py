"""Drills: an incident that is made up, on a tenant that exists for it, with everything else real.

A drill submits a harmless job for a canary tenant (when a cluster runs), feeds labelled telemetry about it to
a real monitor, and measures the time to detect, to notify and to contain; then it restores everything and
writes a report. A drill never touches a tenant that policy data does not flag ``canary``.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from compute_guard.incidents.incident import Incident, State
from compute_guard.incidents.notices import AUDIENCES
from compute_guard.incidents.store import Incidents
from compute_guard.monitoring.monitor import STEP_NS, replay
from compute_guard.monitoring.report import MonitorReport
from compute_guard.response.actions import Action, Actions
from compute_guard.response.clearance import is_canary
from compute_guard.response.responder import Responder
from compute_guard.usage.attribution import Lease, LeaseBook
from compute_guard.usage.history import write
from compute_guard.usage.sources.synthetic import Load, SyntheticSource
from guard_core.clock import new_id, to_ns
from guard_core.errors import Denied, GuardError, Undecidable, UserError
from guard_core.findings import Enforcement
from guard_core.identity import Principal

if TYPE_CHECKING:
    from compute_guard.ray_plugin.jobs import ClusterActions
    from guard_core.home import Home

HARMLESS: Final = "sleep 600  # TrainGuard drill, stratum+tcp://drill.invalid:3333"
"""What the drill's job runs: nothing, under a command that looks like a miner's."""
Submit = Callable[[str], str]
"""Submits the command for the canary tenant and gives the submission id."""


@dataclass(frozen=True, slots=True)
class Drill:
    """What is rehearsed: a device goes from ``before`` to ``after`` at sample ``onset`` of ``samples``."""

    name: str
    title: str
    kind: str
    before: str
    after: str
    onset: int = 20
    samples: int = 60
    faked_util: float | None = None


DRILLS: Final[Mapping[str, Drill]] = {
    drill.name: drill
    for drill in (
        Drill(
            "mining-capped", "a miner held at 40-70 % of the device", "mining", "idle-hold", "mining-capped"
        ),
        Drill("mining-full", "a miner at full speed", "mining", "inference", "mining-full"),
        Drill(
            "faked-utilisation",
            "a driver library that reports 0 % while the device works",
            "telemetry_contradiction",
            "idle-hold",
            "mining-full",
            faked_util=0.0,
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillReport:
    """What a drill measured. Seconds count from the onset; None: it did not happen (see ``notes``).

    ``detect``: until the severity ``incident``. ``notify``: until the owner was asked to acknowledge it.
    """

    id: str
    drill: str
    tenant: str
    job: str
    seed: int
    incident: str
    synthetic: bool
    detect_seconds: float | None
    notify_seconds: float | None
    contain_seconds: float | None
    contained_verified: bool | None
    notices: tuple[str, ...]
    notices_ok: bool
    touched_others: tuple[str, ...]
    restored: bool
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Detected, notified, contained where a cluster runs, nobody else touched, everything restored."""
        answered = self.detect_seconds is not None and self.notify_seconds is not None
        answered = answered and self.notices_ok
        return answered and self.contained_verified is not False and not self.touched_others and self.restored

    def to_json(self) -> dict[str, Any]:
        """All fields, and ``passed``."""
        return {**asdict(self), "passed": self.passed}


def run(
    home: Home,
    name: str,
    tenant: str,
    *,
    cluster: ClusterActions | None,
    submit: Submit | None = None,
    seed: int = 1,
    principal: Principal | None = None,
) -> DrillReport:
    """Run a drill and write ``<home>/drills/<id>.json``.

    Raises UserError for a drill or tenant that does not exist, Denied for a tenant that is no canary.
    """
    if name not in DRILLS:
        raise UserError(f"there is no drill {name!r}; there are {', '.join(sorted(DRILLS))}")
    if tenant not in home.tenants():
        raise UserError(f"there is no tenant {tenant!r} in the policy data; add it to tenants.yaml")
    if not is_canary(home, tenant):
        raise Denied(
            f"tenant {tenant} is not flagged `canary: true` in tenants.yaml, so no drill may touch it"
        )
    who = principal or home.principal()
    drill, drill_id = DRILLS[name], new_id("drill")
    job = submit(HARMLESS) if submit is not None and cluster is not None else drill_id
    _record(home, "drill.started", drill_id, {"drill": name, "tenant": tenant, "job": job, "seed": seed})
    load = Load(
        drill.before,
        node=f"drill-{drill_id[-8:]}",
        after=drill.after,
        onset=drill.onset,
        faked_util=drill.faked_util,
    )
    source = SyntheticSource((load,), drill.samples, seed, start_ns=to_ns(home.clock()) - 300 * STEP_NS)
    lease = Lease(
        load.device.key, tenant, job, entrypoint=HARMLESS if drill.kind == "mining" else "sleep 600"
    )
    seen: list[str] = []

    def mark(incident: Incident) -> None:
        if incident.id not in seen:
            seen.append(incident.id)
            Incidents(home).annotate(incident.id, drill=drill_id)

    monitored = replay(
        home,
        source,
        LeaseBook.of([lease]),
        cluster,
        principal=who,
        on_incident=mark,
        until=lambda incident: incident.state is State.CONTAINED,
    )
    restored, notes = _restore(home, seen, job, cluster, who)
    onset_ns = source.start_ns + drill.onset * STEP_NS
    done = _Run(drill_id, drill, tenant, job, seed, onset_ns, monitored)
    report = _measured(done, restored, notes, _notices_ok(home, done))
    body = json.dumps(report.to_json(), indent=1, ensure_ascii=False)
    write(home.path("drills", f"{drill_id}.json"), body.encode())
    _record(home, "drill.finished", drill_id, report.to_json())
    return report


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of a drill, as far as it got."""

    id: str
    drill: Drill
    tenant: str
    job: str
    seed: int
    onset_ns: int
    monitored: MonitorReport


def _notices_ok(home: Home, done: _Run) -> bool:
    """Both audiences in both languages, each told to be an exercise and with its deadline."""
    found = next((i for i in done.monitored.incidents if i.kind == done.drill.kind), None)
    if found is None:
        return False
    folder = home.path("incidents", found.id, "notices")
    for audience in AUDIENCES:
        for language, words in (("en", "EXERCISE"), ("zh", "演练")):
            try:
                text = (folder / f"{audience}.{language}.md").read_text(encoding="utf-8")
            except OSError:
                return False
            if words not in text.splitlines()[0] or found.id not in text:
                return False
    return True


def _measured(done: _Run, restored: bool, notes: list[str], notices_ok: bool) -> DrillReport:
    matching = (i for i in done.monitored.incidents if (i.kind, i.tenant) == (done.drill.kind, done.tenant))
    found = next(matching, None)
    steps = {a.level: a for a in done.monitored.actions if found is not None and a.incident_id == found.id}
    since = None if found is None else found.evidence.get("incident_since")
    stop = steps.get(5)
    unreachable = stop is not None and "there is no cluster" in str(stop.result.get("error", ""))
    verified = None if stop is None or unreachable else stop.state == "done" and bool(stop.result["verified"])
    touched = {
        str(action.result.get("target", {}).get("tenant"))
        for action in done.monitored.actions
        if action.level >= 3 and action.state == "done"
    }
    return DrillReport(
        id=done.id,
        drill=done.drill.name,
        tenant=done.tenant,
        job=done.job,
        seed=done.seed,
        incident="" if found is None else found.id,
        synthetic=True,
        detect_seconds=None if since is None else round((_ns(since) - done.onset_ns) / 1e9, 3),
        notify_seconds=_seconds(done, steps.get(2)),
        contain_seconds=_seconds(done, stop),
        contained_verified=verified,
        notices=tuple(name for action in steps.values() for name in action.result.get("notices", [])),
        notices_ok=notices_ok,
        touched_others=tuple(sorted(touched - {done.tenant})),
        restored=restored,
        notes=(*notes, *_why_not_contained(done.drill, stop)),
    )


def _seconds(done: _Run, action: Action | None) -> float | None:
    """Seconds from the onset to a step's end: telemetry time until it was asked for, the clock's after."""
    if action is None or action.state != "done" or action.executed_at is None:
        return None
    took = (action.executed_at - action.requested_at) / timedelta(seconds=1)
    return round((done.monitored.acted_ns[action.id] - done.onset_ns) / 1e9 + took, 3)


def _why_not_contained(drill: Drill, stop: Action | None) -> list[str]:
    if drill.kind != "mining":
        return ["this kind is not contained without a person"]
    if stop is None:
        return ["not contained: no step was asked for"]
    if stop.state == "done":
        return []
    reasons = [reason["msg"] for reason in stop.result.get("reasons", [])]
    return [f"not contained, step {stop.state}: {'; '.join(reasons or [str(stop.result.get('error', ''))])}"]


def _ns(moment: str) -> int:
    return to_ns(datetime.fromisoformat(moment))


def _restore(
    home: Home, incidents: list[str], job: str, cluster: ClusterActions | None, who: Principal
) -> tuple[bool, list[str]]:
    """Undo what can be undone, end the drill's job, close its incidents."""
    actions, store, problems = Actions(home.storage, home.clock), Incidents(home), []
    responder = Responder(home, cluster, incidents=store)
    for incident_id in incidents:
        for action in actions.of(incident_id, states=["done"]):
            if action.name in ("throttle", "suspend", "quarantine"):
                responder.undo(action.id, who)
        store.resolve(incident_id, by=who, note="drill over")
    if cluster is not None and not job.startswith("drill-"):
        try:
            if not cluster.stop_job(job, reason="drill over").verified:
                problems.append(f"the drill's job {job} could not be seen to have ended")
        except GuardError as error:
            problems.append(str(error))
    return not problems, problems


def submit_over_http(home: Home, tenant: str, dashboard: str) -> Submit:
    """Submits through the cluster's own job API with a short-lived credential of the tenant."""

    def submit(command: str) -> str:
        token = home.credentials.issue(tenant=tenant, user="drill", ttl_seconds=600)
        body = {"entrypoint": command, "metadata": {"name": "TrainGuard drill"}}
        request = urllib.request.Request(  # noqa: S310 - our own http address
            f"{dashboard}/api/jobs/",
            data=json.dumps(body).encode(),
            method="POST",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:300]
            raise Undecidable(f"the drill's job was not accepted ({error.code}): {said}") from error
        except OSError as error:
            raise Undecidable(f"the cluster's job API {dashboard} cannot be reached: {error}") from error
        return str(answer["submission_id"])

    return submit


def _record(home: Home, kind: str, drill_id: str, data: Mapping[str, Any]) -> None:
    home.audit.event(
        kind, subject=drill_id, data={**data, "synthetic": True}, enforcement=Enforcement.DETECTIVE
    )
