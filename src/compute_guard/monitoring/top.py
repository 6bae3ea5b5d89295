"""What ``compute top`` and ``compute metrics`` show: one picture of tenants, jobs, GPUs, quota and anomalies.

:func:`picture` reads the ledger, the cluster, the monitor's last status and the open incidents;
:func:`lines` and :func:`table` turn it into text. A part that cannot be read is named, never left blank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from guard_core.clock import rfc3339
from guard_core.errors import Undecidable, UserError
from guard_core.output.text import aligned

if TYPE_CHECKING:
    from rich.console import RenderableType

    from compute_guard.monitoring.holdings import Holding
    from guard_core.home import Home

HEAD_JOBS = ("tenant", "job", "state", "node", "GPUs", "reserved", "GPU %", "memory", "anomalies")
HEAD_QUEUES = ("queue", "resource", "nominal", "reserved", "available", "jobs", "waiting", "held")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One moment. ``notes`` say what could not be seen, and how old what is shown may be."""

    at: str
    jobs: tuple[Mapping[str, Any], ...]
    queues: tuple[Mapping[str, Any], ...]
    incidents: tuple[Mapping[str, Any], ...]
    devices: tuple[Mapping[str, Any], ...]
    monitor: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The documented JSON shape (docs/admin/monitoring.md)."""
        return {
            "at": self.at,
            "jobs": [dict(row) for row in self.jobs],
            "queues": [dict(row) for row in self.queues],
            "incidents": [dict(row) for row in self.incidents],
            "devices": [dict(row) for row in self.devices],
            "notes": list(self.notes),
        }


def picture(home: Home, held: tuple[Holding, ...] | None, *, tenant: str | None = None) -> Picture:
    """The home now. ``held`` is what Ray's jobs hold, None when that could not be seen.

    ``tenant``: this tenant's part only. Raises Undecidable.
    """
    from compute_guard.incidents.store import Incidents
    from compute_guard.monitoring.live import read_status

    notes = []
    if held is None:
        notes.append("the cluster was not seen: GPUs held are not shown")
    try:
        status = read_status(home) or {}
    except UserError as error:
        status = {}
        notes.append(str(error))
    if not status:
        notes.append("no monitor has run: utilisation is not shown; start one: trainguard compute monitor")
    else:
        notes.append(f"readings of {status['at']} by the monitor ({status['source']})")
        if status.get("synthetic"):
            notes.append("EXERCISE: some readings are made up")
    incidents = [i.to_json() for i in Incidents(home).list(tenant=tenant, open_only=True)]
    devices = {(d["node"], d["index"]): d for d in status.get("devices", ())}
    jobs = _jobs(home, held or (), devices, incidents)
    return Picture(
        at=rfc3339(home.clock()),
        jobs=tuple(row for row in jobs if tenant in (None, row["tenant"])),
        queues=tuple(row for row in _queues(home, held or ()) if tenant in (None, row["tenant"])),
        incidents=tuple(incidents),
        devices=tuple(devices.values()) if tenant is None else (),
        monitor=status,
        notes=tuple(notes),
    )


def look(home: Home) -> tuple[Holding, ...] | None:
    """What jobs hold on the home's cluster, None when there is no cluster or it does not answer."""
    from compute_guard.ray_plugin.collector import LiveBook

    book = LiveBook(home)
    try:
        book.look()
    except (UserError, Undecidable):
        return None
    finally:
        book.close()
    return book.held


def _jobs(
    home: Home,
    held: tuple[Holding, ...],
    devices: Mapping[tuple[str, int], Mapping[str, Any]],
    incidents: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    from compute_guard.admission.workload import WorkloadState
    from compute_guard.ledger.store import Ledger
    from compute_guard.quota.limits import GPU

    living = [WorkloadState.PENDING, WorkloadState.ADMITTED, WorkloadState.RUNNING]
    ledger = Ledger(home.storage, home.clock)
    rows = {
        entry.id: _row(
            entry.workload.tenant,
            entry.id,
            entry.state.value,
            entry.workload.requests[GPU],
            waits=entry.state is WorkloadState.PENDING,
        )
        for entry in ledger.entries(states=living)
    }
    for holding in held:
        row = rows.get(holding.job)
        if row is None:
            if not holding.gpus and not holding.cpu_milli:
                continue
            row = rows[holding.job] = _row(holding.tenant or "unattributed", holding.job, "not admitted", 0)
        row["nodes"].append(holding.node.hostname or holding.node.address)
        row["gpu_milli"] += sum(holding.gpus.values())
        row["cpu_milli"] += holding.cpu_milli
        for index in holding.gpus:
            readings = [devices[n, index] for n in holding.node.names if (n, index) in devices]
            row["readings"] += readings[:1]
    for row in rows.values():
        readings = row.pop("readings")
        busy = [r["util_percent"] for r in readings if r["util_percent"] is not None]
        memory = [r["memory_used_bytes"] for r in readings if r["memory_used_bytes"] is not None]
        row["util_percent"] = round(sum(busy) / len(busy), 1) if busy else None
        row["memory_bytes"] = sum(memory) if memory else None
        row["anomalies"] = [
            f"{i['severity']}: {i['kind']}"
            for i in incidents
            if (i["tenant"], i["job"]) == (row["tenant"], row["job"])
        ]
    return sorted(rows.values(), key=lambda row: (row["tenant"], row["job"]))


def _row(tenant: str, job: str, state: str, gpu_milli: int, *, waits: bool = False) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "job": job,
        "state": state,
        "nodes": [],
        "gpu_milli": 0,
        "gpu_milli_reserved": 0 if waits else gpu_milli,
        "gpu_milli_requested": gpu_milli,
        "cpu_milli": 0,
        "readings": [],
    }


def _queues(home: Home, held: tuple[Holding, ...]) -> list[dict[str, Any]]:
    from compute_guard.admission.gateway import Gateway
    from compute_guard.admission.why import quota_table
    from compute_guard.quota.limits import GPU, base_of

    gateway = Gateway(home)
    quotas = gateway.quotas()
    snapshot = gateway.ledger.snapshot(quotas)
    found = []
    for row in quota_table(quotas, snapshot):
        if base_of(row["resource"]) == GPU:
            own = [h for h in held if h.grant is not None and h.grant.queue == row["queue"]]
            jobs = snapshot.usage.get(row["queue"])
            found.append(
                {
                    **row,
                    "jobs": jobs["jobs"] if jobs is not None else 0,
                    "waiting": row["pending"],
                    "held": sum(sum(h.gpus.values()) for h in own),
                }
            )
    return found


def cells(now: Picture) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The two tables as text: jobs, queues."""
    jobs: list[tuple[str, ...]] = [
        (
            row["tenant"],
            row["job"],
            row["state"],
            ", ".join(sorted(set(row["nodes"]))) or "-",
            f"{row['gpu_milli'] / 1000:g}",
            _share(row["gpu_milli_reserved"], row["gpu_milli_requested"]),
            "-" if row["util_percent"] is None else f"{row['util_percent']:.0f}",
            "-" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 2**30:.1f} GiB",
            ", ".join(row["anomalies"]) or "-",
        )
        for row in now.jobs
    ]
    queues: list[tuple[str, ...]] = [
        (
            row["queue"] + (" (on hold)" if row["hold"] else ""),
            "GPUs",
            f"{row['nominal'] / 1000:g}",
            f"{row['used'] / 1000:g}",
            f"{max(0, row['available']) / 1000:g}",
            str(row["jobs"]),
            str(row["waiting"]),
            f"{row['held'] / 1000:g}",
        )
        for row in now.queues
    ]
    return jobs, queues


def _share(reserved: int, requested: int) -> str:
    """``1``, or ``0 of 1`` for a job that waits; GPUs."""
    return f"{reserved / 1000:g}" + ("" if reserved == requested else f" of {requested / 1000:g}")


def lines(now: Picture) -> list[str]:
    """Plain text, for pipes and files."""
    jobs, queues = cells(now)
    text = aligned([HEAD_JOBS, *jobs]) if jobs else ["no jobs"]
    text += ["", *aligned([HEAD_QUEUES, *queues])]
    apart = [i for i in now.incidents if not any(i["job"] == row["job"] for row in now.jobs)]
    if apart:
        shown = [f"{i['severity']}  {i['kind']}  {i['tenant']}/{i['job']}  {i['id']}" for i in apart]
        text += ["", *shown]
    return [*text, "", *now.notes]


def table(now: Picture) -> RenderableType:
    """The same for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(f"trainguard top  {now.at}")]
    for head, rows in zip((HEAD_JOBS, HEAD_QUEUES), cells(now), strict=True):
        drawn = Table(*head)
        for row in rows:
            # Text, not markup: names come from tenants.
            drawn.add_row(*(Text(cell) for cell in row), style="red" if "incident:" in row[-1] else None)
        parts.append(drawn)
    parts += [Text(note) for note in now.notes]
    return Group(*parts)
