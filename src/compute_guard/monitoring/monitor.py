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

from compute_guard.incidents.casefile import CaseFile
from compute_guard.incidents.incident import Incident
from compute_guard.incidents.observations import Hysteresis, Key, Observation, merge
from compute_guard.incidents.store import Incidents
from compute_guard.monitoring.report import MonitorReport
from compute_guard.quota.gpu_time import GpuTime, gpu_limits
from compute_guard.response.actions import Action
from compute_guard.response.responder import Responder
from compute_guard.usage.activity import NOTHING, Activity, Flows
from compute_guard.usage.attribution import LeaseBook
from compute_guard.usage.calibration import Calibration
from compute_guard.usage.courses import Courses
from compute_guard.usage.detectors import Detector, View, load_detectors
from compute_guard.usage.detectors.atypical_load import AtypicalLoad
from compute_guard.usage.detectors.unusual_course import UnusualCourse
from compute_guard.usage.history import History
from compute_guard.usage.rolling import Rolling
from compute_guard.usage.samples import Frame, concat, to_table
from compute_guard.usage.sources import Source
from compute_guard.usage.typicality import Typicality
from compute_guard.usage.window import Window
from guard_core.errors import UserError
from guard_core.identity import Principal

if TYPE_CHECKING:
    from compute_guard.ray_plugin.jobs import ClusterActions
    from guard_core.home import Home

STEP_NS: Final = 15_000_000_000
CELLS: Final = 48
FLUSH_TICKS: Final = 20  # scrapes per history file: five minutes at 15 s
CALIBRATION: Final = ("telemetry", "calibration.npz")
COURSES: Final = ("telemetry", "courses.npz")
SUSPECT: Final = frozenset(
    {"mining", "atypical_load", "telemetry_contradiction", "unattributed_process", "cross_tenant"}
)
"""Kinds whose devices teach the calibration nothing while they are seen."""
Attribution = LeaseBook | Callable[[int], LeaseBook]
"""Who holds which device: a book, or a function from a time (ns) to the book of that time."""


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
    gpu_time: GpuTime = field(init=False)
    _rolling: Rolling = field(init=False)
    _detectors: tuple[Detector, ...] = field(init=False)
    _typicality: Typicality = field(init=False)
    _courses: Courses = field(init=False)
    _hysteresis: Hysteresis = field(init=False)
    _incidents: Incidents = field(init=False)
    _responder: Responder = field(init=False)
    _history: History = field(init=False)
    _recent: deque[Frame] = field(init=False)
    _who: Principal = field(init=False)
    _window: Window | None = None
    _opened: dict[Key, str] = field(default_factory=dict)
    _first_ns: dict[Key, int] = field(default_factory=dict)
    _first_signal: dict[str, int] = field(default_factory=dict)
    _opened_ns: dict[str, int] = field(default_factory=dict)
    _acted_ns: dict[str, int] = field(default_factory=dict)
    _ticks: int = 0
    _history_failures: int = 0
    _unsaved: list[Frame] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.home.policy_data().get("usage", {})
        self._rolling = Rolling(self.step_ns, self.cells)
        daily_ms = {t: int(h) * 3_600_000 for t, h in config.get("gpu_hours_per_day", {}).items()}
        limits = gpu_limits(self.home.policy_data().get("quotas", {}))
        self.gpu_time = GpuTime(self._rolling, limits, daily_ms)
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
        told = next((d for d in self._detectors if isinstance(d, UnusualCourse)), UnusualCourse())
        self._courses = Courses(told.quiet_days, told.limit)
        self._courses.load(self.home.path(*COURSES))
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
        """Undo steps whose time is over, renew those that last, try failed ones again."""
        if not (self.record and self.respond):
            return []
        done = [*self._responder.expire(self._who), *self._responder.retry(self._who)]
        self._responder.renew()
        return done

    def judge(self, frame: Frame, now_ns: int) -> tuple[tuple[Observation, ...], tuple[Key, ...]]:
        """One scrape: what is raised now and what has cleared, with nothing opened or done about it."""
        self._ticks += 1
        self._recent.append(frame)
        if self.record:
            self._store(frame)
        set_back = self._rolling.quality.clock_set_back
        self._rolling.push(frame, now_ns=now_ns)
        if self._rolling.quality.clock_set_back != set_back:
            self.gpu_time.follow_back(now_ns)
            self._flows.follow_back()
        book = self.attribution(now_ns) if callable(self.attribution) else self.attribution
        held = self.gpu_time.take(frame, book)
        self._flows.call(holding.node.names for holding in getattr(self.attribution, "held", ()))
        self._flows.take(frame.egress, now_ns)
        self._window = window = self._rolling.snapshot()
        view = View(
            window,
            book,
            dict(self.gpu_time.uses),
            self.gpu_time.entitlements(now_ns),
            self.activity(now_ns, frame.libraries),
            self._flows,
            self._typicality.judge(window, held),
            held,
            self._courses.take(window, held),
        )
        signals = [signal for detector in self._detectors for signal in detector.detect(view)]
        self._typicality.learn(window, {s.device for s in signals if s.kind in SUSPECT})
        observed = merge(signals, book, now_ns)
        for observation in observed:
            self._first_ns.setdefault(observation.key, now_ns)
        return self._hysteresis.step(observed)

    def report(self) -> MonitorReport:
        """What was seen and done so far."""
        ledger = self.gpu_time.settled()
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
            attribution=list(ledger.rows()),
            device_ms=ledger.device_ns // 1_000_000,
            incidents=incidents,
            actions=steps,
            first_signal_ns=dict(self._first_signal),
            opened_ns=dict(self._opened_ns),
            acted_ns=dict(self._acted_ns),
            alert_budget=spent,
            history_failures=self._history_failures,
        )

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

    def devices_seen(self) -> frozenset[str]:
        """Keys of all devices that readings were of."""
        return frozenset(self._rolling.columns)

    def unseen(self) -> list[str]:
        """Devices of a book of leases that no reading was of, sorted: misspelt, most likely."""
        leases = self.attribution.leases if isinstance(self.attribution, LeaseBook) else ()
        return sorted({lease.device for lease in leases} - self.devices_seen())

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
                self._courses.save(self.home.path(*COURSES))
            except (UserError, OSError):
                self._history_failures += 1

    def _store(self, frame: Frame) -> None:
        self._unsaved.append(frame)
        if len(self._unsaved) >= FLUSH_TICKS:
            self.flush()

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
