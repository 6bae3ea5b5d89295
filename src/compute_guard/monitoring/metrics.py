"""TrainGuard's own metrics, in Prometheus' text exposition format 0.0.4 (``trainguard compute metrics``).

Labels are bounded: tenants and queues are those of the policy data, everything else comes from fixed lists;
what is neither is counted as ``other``. Nothing a job chooses becomes a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from compute_guard.incidents.incident import Incident
    from guard_core.home import Home

OTHER: Final = "other"
NOBODY: Final = "unattributed"
RESOURCES: Final = ("jobs", "cpu_milli", "gpu_milli", "memory_bytes")
Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Family:
    """One metric: its samples by labels."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: dict[Labels, float] = field(default_factory=dict)

    def set(self, value: float, **labels: str) -> None:
        """Add ``value`` to the sample with ``labels``."""
        key = tuple(sorted(labels.items()))
        self.samples[key] = self.samples.get(key, 0.0) + value

    def lines(self) -> Iterator[str]:
        """The family's text."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in sorted(self.samples.items()):
            inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
            yield f"{self.name}{{{inside}}} {value:.17g}" if inside else f"{self.name} {value:.17g}"


def exposition(home: Home) -> str:
    """All metrics of ``home`` now. Raises Undecidable."""
    return "\n".join([*(line for family in families(home) for line in family.lines()), ""])


def families(home: Home) -> list[Family]:
    """The metrics of ``home``, each family once, also when it has no sample yet."""
    from compute_guard.incidents.store import Incidents
    from compute_guard.monitoring.live import read_status

    tenants = {*home.tenants(), NOBODY}
    usage = home.policy_data().get("usage", {})
    incidents, now = Incidents(home).list(), home.clock()
    return [
        *_incidents(incidents, now, tenants, int(usage.get("alert_budget_per_tenant_day", 20))),
        _notices(incidents, now, usage.get("notice_hours", {})),
        *_queues(home),
        *_detectors(usage.get("detectors")),
        *_monitor(read_status(home) or {}, tenants),
        *_drills(home),
        *_allowances(usage.get("gpu_hours_per_day", {}), read_status(home) or {}, tenants),
    ]


def kinds() -> frozenset[str]:
    """The kinds of incident there are."""
    from compute_guard.incidents.notices import KINDS

    return frozenset(KINDS)


def _incidents(incidents: Sequence[Incident], at: datetime, tenants: set[str], budget: int) -> list[Family]:
    opened = Family("compute_guard_incidents_opened_total", "counter", "Incidents ever opened.")
    now = Family("compute_guard_incidents_open", "gauge", "Incidents that are not resolved.")
    limit = Family("compute_guard_alert_budget_limit", "gauge", "Incidents a tenant may open in a UTC day.")
    spent = Family("compute_guard_alert_budget_spent", "gauge", "Incidents opened in this UTC day.")
    known, today = kinds(), at.date()
    limit.set(budget)
    for tenant in sorted(tenants):
        spent.set(0, tenant=tenant)
    for incident in incidents:
        tenant = incident.tenant if incident.tenant in tenants else OTHER
        kind = incident.kind if incident.kind in known else OTHER
        opened.set(1, tenant=tenant, kind=kind)
        if incident.closed_at is None:
            exercise = "true" if incident.synthetic else "false"
            now.set(1, tenant=tenant, kind=kind, severity=incident.severity, exercise=exercise)
        if incident.opened_at.date() == today:
            spent.set(1, tenant=tenant)
    return [opened, now, limit, spent]


def _notices(incidents: Sequence[Incident], at: datetime, hours: Mapping[str, int]) -> Family:
    from compute_guard.incidents.notices.deadlines import due

    found = Family("compute_guard_notices_due", "gauge", "Notices of incidents that have not left yet.")
    for incident in incidents:
        for notice in due(incident, hours):
            if notice.sent is None:
                overdue = "true" if notice.overdue(at) else "false"
                found.set(1, audience=notice.audience, overdue=overdue)
    return found


def _queues(home: Home) -> list[Family]:
    from compute_guard.admission.gateway import Gateway
    from compute_guard.admission.why import quota_table

    gateway = Gateway(home)
    quotas = gateway.quotas()
    names = ("nominal", "used", "available")
    amounts = {
        name: Family(f"compute_guard_quota_{name}", "gauge", text)
        for name, text in zip(
            names,
            (
                "What a queue always has.",
                "What is reserved.",
                "What may still be reserved; below 0 after a cut.",
            ),
            strict=True,
        )
    }
    waiting = Family("compute_guard_queue_waiting_jobs", "gauge", "Jobs that wait for quota or a hold.")
    held = Family("compute_guard_queue_on_hold", "gauge", "1 while nothing is admitted from the queue.")
    seen = set()
    for row in quota_table(quotas, gateway.ledger.snapshot(quotas)):
        queue = row["queue"]
        if queue not in seen:
            seen.add(queue)
            waiting.set(row["pending"], queue=queue, tenant=row["tenant"])
            held.set(row["hold"] is not None, queue=queue, tenant=row["tenant"])
        if row["resource"] in RESOURCES:
            for name in names:
                amounts[name].set(row[name], queue=queue, tenant=row["tenant"], resource=row["resource"])
    return [*amounts.values(), waiting, held]


def _detectors(config: Mapping[str, Mapping[str, Any]] | None) -> list[Family]:
    from compute_guard.usage.detectors import load_detectors

    family = Family("compute_guard_detector_enabled", "gauge", "Detectors in force.")
    for detector in load_detectors(config):
        family.set(1, detector=type(detector).__module__.rsplit(".", 1)[-1], kind=detector.kind)
    return [family]


def _monitor(status: Mapping[str, Any], tenants: set[str]) -> list[Family]:
    last = Family(
        "compute_guard_monitor_last_status_seconds", "gauge", "When the monitor last spoke (epoch)."
    )
    counts = {
        key: Family(f"compute_guard_monitor_{name}_total", "counter", text)
        for key, name, text in (
            ("scrapes", "scrapes", "Scrapes since the monitor started."),
            ("samples", "samples", "Samples taken since the monitor started."),
            ("scrape_failures", "scrape_failures", "Exporters that did not answer."),
            ("scrape_overruns", "scrape_overruns", "Scrapes that took longer than their interval."),
            ("look_failures", "look_failures", "Looks at the cluster that failed."),
            ("history_failures", "history_failures", "Telemetry files that could not be written."),
            ("activity_failures", "activity_failures", "Looks at submissions and records that failed."),
        )
    }
    odd = Family("compute_guard_telemetry_problems_total", "counter", "Samples refused or odd, by problem.")
    devices = Family("compute_guard_devices", "gauge", "Accelerators the monitor knows.")
    seconds = Family(
        "compute_guard_gpu_seconds_total", "counter", "GPU seconds by whom they were attributed to."
    )
    calibrated = Family(
        "compute_guard_calibration_hours",
        "gauge",
        "Device hours USAG016 has learned from.",
    )
    surprising = Family(
        "compute_guard_surprising_samples_total",
        "counter",
        "Samples over USAG016's threshold, also in shadow.",
    )
    letters = Family("compute_guard_route_letters_total", "counter", "Letters about incidents, by outcome.")
    if status:
        for outcome in ("delivered", "failures", "dead"):
            letters.set(float(status.get("routes", {}).get(outcome, 0)), outcome=outcome)
        learned = status.get("calibration", {})
        calibrated.set(sum(float(c["hours"]) for c in learned.get("classes", ()) if c["kind"] == "*"))
        surprising.set(float(learned.get("surprising_samples", 0)))
        last.set(datetime.fromisoformat(str(status["at"])).timestamp())
        devices.set(len(status.get("devices", ())))
        for key, family in counts.items():
            family.set(float(status.get(key, 0)))
        for problem, count in status.get("quality", {}).items():
            if problem not in ("samples", "accepted"):
                odd.set(count, problem=problem)
        for row in status.get("attribution", ()):
            tenant = row["tenant"] if row["tenant"] in tenants or not row["tenant"] else OTHER
            seconds.set(int(row["gpu_ms"]) / 1000, bucket=str(row["bucket"]), tenant=tenant)
    return [last, *counts.values(), odd, devices, seconds, calibrated, surprising, letters]


def _allowances(hours: Mapping[str, int], status: Mapping[str, Any], tenants: set[str]) -> list[Family]:
    allowed = Family(
        "compute_guard_allowance_gpu_seconds", "gauge", "GPU seconds a tenant may use in a UTC day."
    )
    spent = Family("compute_guard_allowance_spent_gpu_seconds", "gauge", "GPU seconds used in this UTC day.")
    today: Counter[str] = Counter()
    for tenant, spent_ms in status.get("spent_today", {}).get("gpu_ms", {}).items():
        today[tenant if tenant in tenants else OTHER] += spent_ms
    for tenant, each in sorted(hours.items()):
        if tenant in tenants:
            allowed.set(each * 3_600, tenant=tenant)
            spent.set(today[tenant] / 1000, tenant=tenant)
    return [allowed, spent]


def _drills(home: Home) -> list[Family]:
    from compute_guard.drills.schedule import planned

    age = Family("compute_guard_drill_age_seconds", "gauge", "Since a scheduled drill last ran; -1: never.")
    late = Family("compute_guard_drill_overdue", "gauge", "1 while a scheduled drill is due.")
    passed = Family("compute_guard_drill_passed", "gauge", "1 when the last run of a scheduled drill passed.")
    now = home.clock()
    for plan in planned(home):
        labels = {"drill": plan.name, "tenant": plan.tenant}
        age.set(-1 if plan.last is None else (now - plan.last).total_seconds(), **labels)
        late.set(plan.due(now), **labels)
        passed.set(plan.passed is True, **labels)
    return [age, late, passed]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
