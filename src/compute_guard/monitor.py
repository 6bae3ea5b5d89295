"""From telemetry to a verified response: source -> window -> detectors -> attribution -> incident -> ladder.

:class:`Monitor` takes one scrape at a time; :func:`replay` runs a whole recording through it. Time is the
telemetry's own, so a recording of an hour is judged as an hour however fast it is read; incidents and actions
carry the home's clock. A store that is full does not blind the monitor: history is given up, counted, and
detection goes on. An audit log that cannot be written stops it: nothing happens off the record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from compute_guard.actions import Action
from compute_guard.casefile import CaseFile
from compute_guard.incidents import Hysteresis, Incident, Incidents, Key, Observation, merge
from compute_guard.quota import GPU, Quotas, base_of
from compute_guard.response import Responder
from compute_guard.usage.activity import NOTHING, Activity, Flows
from compute_guard.usage.attribution import IDLE, NOT_ADMITTED, LeaseBook, Ledger, Use, attribute
from compute_guard.usage.calibration import Calibration
from compute_guard.usage.detectors import Detector, View, load_detectors
from compute_guard.usage.detectors.atypical_load import AtypicalLoad
from compute_guard.usage.detectors.base import Entitlement
from compute_guard.usage.history import History
from compute_guard.usage.rolling import NEVER, Rolling, Window
from compute_guard.usage.roster import NOT_GIVEN, Roster, roster, sums
from compute_guard.usage.samples import Frame, Ints, concat, to_table
from compute_guard.usage.sources import Source
from compute_guard.usage.typicality import Typicality
from guard_core.errors import UserError
from guard_core.identity import Principal

if TYPE_CHECKING:
    from compute_guard.ray_plugin.jobs import ClusterActions
    from guard_core.home import Home

STEP_NS: Final = 15_000_000_000
CELLS: Final = 48
_DAY_NS: Final = 86_400 * 1_000_000_000
FLUSH_TICKS: Final = 20  # scrapes per history file: five minutes at 15 s
CALIBRATION: Final = ("telemetry", "calibration.npz")
SUSPECT: Final = frozenset(
    {"mining", "atypical_load", "telemetry_contradiction", "unattributed_process", "cross_tenant"}
)
"""Kinds whose devices teach the calibration nothing while they are seen."""
Attribution = LeaseBook | Callable[[int], LeaseBook]
"""Who holds which device: a book, or a function from a time (ns) to the book of that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorReport:
    """What a run saw and did. Times of detection are telemetry time, in nanoseconds since the epoch."""

    ticks: int
    samples: int
    devices: int
    synthetic: bool
    quality: Mapping[str, int]
    attribution: Sequence[Mapping[str, str | int]]
    device_ms: int
    incidents: Sequence[Incident]
    actions: Sequence[Action]
    first_signal_ns: Mapping[str, int]
    opened_ns: Mapping[str, int]
    acted_ns: Mapping[str, int]
    alert_budget: Mapping[str, int]
    history_failures: int

    def to_json(self) -> dict[str, Any]:
        """The documented JSON shape (docs/admin/incidents.md)."""
        return {
            "ticks": self.ticks,
            "samples": self.samples,
            "devices": self.devices,
            "synthetic": self.synthetic,
            "quality": dict(self.quality),
            "attribution": [dict(row) for row in self.attribution],
            "device_ms": self.device_ms,
            "incidents": [incident.to_json() for incident in self.incidents],
            "actions": [action.to_json() for action in self.actions],
            "alert_budget": dict(self.alert_budget),
            "history_failures": self.history_failures,
        }


@dataclass(slots=True)
class Monitor:
    """Watches one stream of frames for one home. Not thread-safe; one process at a time should respond."""

    home: Home
    attribution: Attribution
    cluster: ClusterActions | None = None
    principal: Principal | None = None
    synthetic_may_act: bool = False
    step_ns: int = STEP_NS
    cells: int = CELLS
    respond: bool = True
    record: bool = True  # False: judge only; nothing is stored, opened or done (a dry run)
    activity: Callable[[int, Mapping[str, str]], Activity] = lambda _now, _libraries: NOTHING
    _flows: Flows = field(default_factory=Flows)
    _rolling: Rolling = field(init=False)
    _detectors: tuple[Detector, ...] = field(init=False)
    _typicality: Typicality = field(init=False)
    _hysteresis: Hysteresis = field(init=False)
    _incidents: Incidents = field(init=False)
    _responder: Responder = field(init=False)
    _history: History = field(init=False)
    _recent: deque[Frame] = field(init=False)
    _who: Principal = field(init=False)
    _uses: dict[str, tuple[Use, ...]] = field(default_factory=dict)
    _last_ns: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _window: Window | None = None
    _roster: Roster = NOT_GIVEN
    _roster_of: LeaseBook | None = None
    _whole_ns: Ints = field(default_factory=lambda: np.zeros(1, dtype=np.int64))  # by job; last: nobody's
    _ledger: Ledger = field(default_factory=Ledger)
    _opened: dict[Key, str] = field(default_factory=dict)
    _first_ns: dict[Key, int] = field(default_factory=dict)
    _first_signal: dict[str, int] = field(default_factory=dict)
    _opened_ns: dict[str, int] = field(default_factory=dict)
    _acted_ns: dict[str, int] = field(default_factory=dict)
    _ticks: int = 0
    _day: int = 0
    _spent: dict[str, int] = field(default_factory=dict)
    _limits: Mapping[str, int] = field(default_factory=dict)
    _daily_ms: Mapping[str, int] = field(default_factory=dict)
    _history_failures: int = 0
    _unsaved: list[Frame] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.home.policy_data().get("usage", {})
        self._rolling = Rolling(self.step_ns, self.cells)
        self._detectors = load_detectors(config.get("detectors"))
        step_seconds = self.step_ns / 1e9
        self._typicality = Typicality(
            Calibration.load(
                self.home.path(*CALIBRATION),
                step_seconds=step_seconds,
                shadow_hours=float(config.get("shadow_hours", 100)),
            ),
            doubtful=next((d.surprise for d in self._detectors if isinstance(d, AtypicalLoad)), 7.5),
        )
        self._typicality.calibration.frozen = bool(config.get("freeze_calibration", False))
        self._limits = gpu_limits(self.home.policy_data().get("quotas", {}))
        self._daily_ms = {t: int(h) * 3_600_000 for t, h in config.get("gpu_hours_per_day", {}).items()}
        self._hysteresis = Hysteresis(int(config.get("raise_after", 2)), int(config.get("clear_after", 8)))
        self._incidents = Incidents(
            self.home, budget_per_day=int(config.get("alert_budget_per_tenant_day", 20))
        )
        self._history = History(self.home.path("telemetry"))
        self._recent = deque(maxlen=self.cells + 40)
        self._who = self.principal or self.home.principal()
        self._responder = Responder(
            self.home,
            self.cluster,
            incidents=self._incidents,
            case_file=CaseFile(self.home, telemetry=self._window_of),
            synthetic_may_act=self.synthetic_may_act,
        )

    def start(self) -> list[Action]:
        """Finish what a process before us left half done, answer what it opened, undo what has expired."""
        if not self.record:
            return []
        done = [*self._responder.recover(), *self._responder.expire(self._who)]
        for incident in self._incidents.list(open_only=True) if self.respond else ():
            done += self._responder.respond(incident, self._who)
        return done

    def take(self, frame: Frame, now_ns: int) -> tuple[Incident, ...]:
        """One scrape, received at ``now_ns``: the incidents that are raised now, after responding to them."""
        raised, cleared = self.judge(frame, now_ns)
        incidents = []
        for observation in raised if self.record else ():
            incident = self._incidents.observe(observation)
            if incident.id not in self._opened_ns:
                self._opened_ns[incident.id] = now_ns
                self._first_signal[incident.id] = self._first_ns[observation.key]
            self._opened[observation.key] = incident.id
            if self.respond:
                for action in self._responder.respond(incident, self._who):
                    if action.state == "done":
                        self._acted_ns.setdefault(action.id, now_ns)
            incidents.append(self._incidents.get(incident.id))
        self._clear(cleared)
        return tuple(incidents)

    def tend(self) -> list[Action]:
        """Undo the steps whose time is over, try failed ones again. For a monitor that runs for long."""
        if not (self.record and self.respond):
            return []
        return [*self._responder.expire(self._who), *self._responder.retry(self._who)]

    def judge(self, frame: Frame, now_ns: int) -> tuple[tuple[Observation, ...], tuple[Key, ...]]:
        """One scrape: what is raised now and what has cleared, with nothing opened or done about it."""
        self._ticks += 1
        self._recent.append(frame)
        if self.record:
            self._store(frame)
        self._rolling.push(frame, now_ns=now_ns)
        self._see_processes(frame)
        book = self.attribution(now_ns) if callable(self.attribution) else self.attribution
        held = self._rostered(book)
        self._account(frame, book, held)
        self._flows.call(holding.node.names for holding in getattr(self.attribution, "held", ()))
        self._flows.take(frame.egress, now_ns)
        self._window = window = self._rolling.snapshot()
        view = View(
            window,
            book,
            dict(self._uses),
            self._entitlements(now_ns),
            self.activity(now_ns, frame.libraries),
            self._flows,
            self._typicality.judge(window, held),
            held,
        )
        signals = [signal for detector in self._detectors for signal in detector.detect(view)]
        self._typicality.learn(window, {s.device for s in signals if s.kind in SUSPECT})
        observed = merge(signals, book, now_ns)
        for observation in observed:
            self._first_ns.setdefault(observation.key, now_ns)
        return self._hysteresis.step(observed)

    def report(self) -> MonitorReport:
        """What was seen and done so far."""
        self._settle()
        incidents = [self._incidents.get(incident_id) for incident_id in self._opened_ns]
        spent: dict[str, int] = {}
        for incident in incidents:
            spent[incident.tenant] = spent.get(incident.tenant, 0) + 1
        steps = [a for i in incidents for a in self._responder.steps(i)]
        return MonitorReport(
            ticks=self._ticks,
            samples=self._rolling.quality.samples,
            devices=len(self._rolling.devices),
            synthetic=any(device.synthetic for device in self._rolling.devices),
            quality=self._rolling.quality.to_json(),
            attribution=list(self._ledger.rows()),
            device_ms=self._ledger.device_ns // 1_000_000,
            incidents=incidents,
            actions=steps,
            first_signal_ns=dict(self._first_signal),
            opened_ns=dict(self._opened_ns),
            acted_ns=dict(self._acted_ns),
            alert_budget=spent,
            history_failures=self._history_failures,
        )

    def spent(self) -> dict[str, Any]:
        """GPU-milliseconds by tenant since the beginning of the UTC day ``day`` (days since the epoch)."""
        return {"day": self._day, "gpu_ms": {t: ns // 1_000_000 for t, ns in sorted(self._spent.items())}}

    def restore_spent(self, spent: Mapping[str, Any]) -> None:
        """Go on from what the monitor before this one had counted."""
        self._day = int(spent.get("day", 0))
        self._spent = {str(t): int(ms) * 1_000_000 for t, ms in spent.get("gpu_ms", {}).items()}

    def _entitlements(self, now_ns: int) -> dict[str, Entitlement]:
        today = now_ns // _DAY_NS == self._day
        return {
            tenant: Entitlement(
                limit_milli=self._limits.get(tenant),
                daily_ms=self._daily_ms.get(tenant),
                spent_ms=self._spent.get(tenant, 0) // 1_000_000 if today else 0,
            )
            for tenant in {*self._limits, *self._daily_ms}
        }

    def calibration(self) -> dict[str, Any]:
        """How long each class was watched, and what was or would have been told about loads."""
        found = self._typicality.calibration
        return {
            "shadow_hours": found.shadow_hours,
            "classes": [
                {"kind": kind, "model": model, "hours": round(hours, 1)}
                for (kind, model), hours in found.classes().items()
            ],
            "surprising_samples": self._typicality.would_signal,
        }

    def devices_now(self) -> dict[str, list[Any]]:
        """The newest reading of every device seen in the last cells, as columns, for people to look at."""
        devices = () if self._window is None else self._window.devices
        found: dict[str, list[Any]] = {
            name: [getattr(device, name) for device in devices]
            for name in ("node", "uuid", "index", "model", "synthetic")
        }
        for name in ("util_percent", "memory_used_bytes", "power_w", "temperature_c"):
            newest = () if self._window is None else self._window.mean(name, 2)
            last = np.asarray(newest, dtype=np.float64).round(1).tolist()
            found[name] = [None if value != value else value for value in last]
        return found

    def flush(self) -> None:
        """Write what is not yet in the history. A disk that refuses is counted, and detection goes on."""
        if self._unsaved:
            frame, self._unsaved = concat(self._unsaved), []
            try:
                self._history.append(frame)
                self._history.expire(self.home.clock())
                self._typicality.calibration.save(self.home.path(*CALIBRATION))
            except (UserError, OSError):
                self._history_failures += 1

    def _store(self, frame: Frame) -> None:
        self._unsaved.append(frame)
        if len(self._unsaved) >= FLUSH_TICKS:
            self.flush()

    def _rostered(self, book: LeaseBook) -> Roster:
        """The book as columns; made anew when jobs or devices have come or gone."""
        devices = len(self._rolling.devices)
        if self._roster_of is not book or len(self._roster.count) != devices:
            self._settle()
            self._roster, self._roster_of = roster(book, self._rolling.columns, devices), book
            self._whole_ns = np.zeros(len(self._roster.jobs) + 1, dtype=np.int64)
        return self._roster

    def _see_processes(self, frame: Frame) -> None:
        """Remember the processes of the newest sample of each device; none seen means none there."""
        if self._uses:
            spoken_of = {frame.devices[index].key for index in np.unique(frame.device).tolist()}
            self._uses = {key: uses for key, uses in self._uses.items() if key not in spoken_of}
        seen: dict[int, list[Use]] = {}
        for _, device, pid, memory, share, name in frame.processes.rows():
            weight = None if share != share else int(share * 1000)
            seen.setdefault(device, []).append(Use(pid, name, weight, memory))
        for index, uses in seen.items():
            self._uses[frame.devices[index].key] = tuple(uses)

    def _account(self, frame: Frame, book: LeaseBook, held: Roster) -> None:
        """Attribute the time since each device's previous sample. A gap is attributed by its leases too."""
        columns = self._rolling.columns_of(frame.devices)
        extra = len(self._rolling.devices) - len(self._last_ns)
        self._last_ns = np.concatenate([self._last_ns, np.full(extra, NEVER, dtype=np.int64)])
        now_ns = np.full(len(self._last_ns), NEVER, dtype=np.int64)
        np.maximum.at(now_ns, columns[frame.device], frame.ts_ns)
        now_ns[self._rolling.copies()] = NEVER  # one GPU under two names ran once
        going_on = np.flatnonzero((self._last_ns != NEVER) & (now_ns > self._last_ns))
        before, now = self._last_ns[going_on], now_ns[going_on]
        self._last_ns = np.maximum(self._last_ns, now_ns)
        whole, row = held.sole(going_on, before, now)
        in_use = [column for key in self._uses if (column := self._rolling.columns.get(key)) is not None]
        whole &= ~np.isin(going_on, in_use)
        for place in np.flatnonzero(~whole).tolist():
            key = self._rolling.devices[int(going_on[place])].key
            shares = attribute(key, int(before[place]), int(now[place]), book, self._uses.get(key, ()))
            self._ledger.add(shares)
            for share in shares:
                self._spend(share.owner.tenant, share.ns, int(now[place]) // _DAY_NS)
        self._account_whole(held, row[whole], now[whole] // _DAY_NS, (now - before)[whole])

    def _account_whole(self, held: Roster, row: Ints, days: Ints, elapsed: Ints) -> None:
        """Devices that one owner had to itself, nearly all of them: summed by job until :meth:`_settle`."""
        job = np.append(held.job, len(held.jobs))[row]  # row -1, nobody's, is the one appended
        np.add.at(self._whole_ns, job, elapsed)
        tenant = np.append(held.tenant, -1)[job]
        for day in np.unique(days).tolist():
            counted = (days == day) & (tenant >= 0)
            ns = sums(tenant[counted], elapsed[counted], len(held.tenants))
            for number in np.flatnonzero(ns).tolist():
                self._spend(held.tenants[number], int(ns[number]), day)

    def _settle(self) -> None:
        """Put the whole devices' time into the ledger: one entry per job that held any."""
        *of_jobs, of_nobody = self._whole_ns.tolist()
        for (tenant, job), ns in zip(self._roster.jobs, of_jobs, strict=True):
            if ns:
                self._ledger.count(("tenant", tenant, job) if tenant else NOT_ADMITTED.key, ns)
        if of_nobody:
            self._ledger.count(IDLE.key, of_nobody)
        self._whole_ns[:] = 0

    def _spend(self, tenant: str, ns: int, day: int) -> None:
        """Count against the day's allowance; an interval over midnight counts for the day it ends in."""
        if day > self._day:
            self._day, self._spent = day, {}
        if tenant and day == self._day:
            self._spent[tenant] = self._spent.get(tenant, 0) + ns

    def _clear(self, keys: Sequence[Key]) -> None:
        for key in keys:
            self._first_ns.pop(key, None)
            incident_id = self._opened.pop(key, None)
            if incident_id is not None and self._incidents.get(incident_id).severity != "incident":
                self._incidents.resolve(incident_id, by=None, note="no longer observed")

    def _window_of(self, incident: Incident) -> pa.Table:
        """The recent samples of the incident's devices: evidence does not depend on the store."""
        frame = concat(self._recent)
        wanted = set(incident.evidence["devices"])
        keep = np.asarray([device.key in wanted for device in frame.devices], dtype=np.bool_)
        return to_table(frame.take(np.flatnonzero(keep[frame.device])))


def gpu_limits(config: Mapping[str, Any]) -> dict[str, int]:
    """Thousandths of a GPU that each tenant's queues could hold at most, their cohorts idle."""
    limits: dict[str, int] = {}
    if not config:
        return limits
    quotas = Quotas.from_config(config)
    for queue in quotas.queues.values():
        gpus = [name for name in queue.resources if base_of(name) == GPU]  # one for each flavor
        most = sum(quotas.potential(queue.name, name) for name in gpus)
        limits[queue.tenant] = limits.get(queue.tenant, 0) + most
    return limits


def replay(
    home: Home,
    source: Source,
    attribution: Attribution,
    actions: ClusterActions | None,
    *,
    principal: Principal | None = None,
    synthetic_may_act: bool = False,
    step_ns: int = STEP_NS,
    on_incident: Callable[[Incident], None] | None = None,
    until: Callable[[Incident], bool] | None = None,
) -> MonitorReport:
    """Run ``source`` through a monitor and respond for real through ``actions``.

    ``until``: stop reading when it is true of an incident (a demonstration ends when the job is contained).
    Raises Undecidable when the audit log or the storage fails, UserError when the source cannot be read.
    """
    monitor = Monitor(
        home,
        attribution,
        actions,
        principal,
        synthetic_may_act=synthetic_may_act,
        step_ns=step_ns,
    )
    monitor.start()
    for frame in source.frames():
        if not len(frame):
            continue
        raised = monitor.take(frame, int(np.median(frame.ts_ns)))
        for incident in raised:
            if on_incident is not None:
                on_incident(incident)
        if until is not None and any(until(incident) for incident in raised):
            break
    monitor.flush()
    return monitor.report()
