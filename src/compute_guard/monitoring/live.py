"""The monitor as a process: scrapes, looks at the cluster, judges, responds, and leaves a status.

One process at a time watches a home for real (a file lock, given back by the kernel when the process dies);
dry runs may run beside it. A scrape or a look that fails is counted and tried again; an audit log or a
storage that fails ends the process with exit code 3, because nothing may happen off the record.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from compute_guard.incidents.incident import Incident
from compute_guard.incidents.observations import Observation
from compute_guard.monitoring.monitor import Attribution, Monitor
from compute_guard.usage.attribution import Lease, LeaseBook
from compute_guard.usage.history import write
from compute_guard.usage.samples import Device, Frame, concat
from compute_guard.usage.sources import Source, until_next
from compute_guard.usage.sources.prometheus import PrometheusSource
from guard_core.clock import rfc3339, to_ns
from guard_core.errors import GuardError, UserError

if TYPE_CHECKING:
    from compute_guard.routes.courier import Post
    from guard_core.home import Home

STATUS: Final = ("telemetry", "monitor.json")
LOCK: Final = ("telemetry", "monitor.lock")
Targets = Callable[[], Sequence[tuple[str, str]]]
"""Gives the exporters to scrape now: ``(url, node name where its labels name none)``."""


@dataclass(slots=True)
class Fleet:
    """Several exporters as one source: one frame per interval with what those that answered said.

    Raises UserError when none answers the first scrape; later, ``failures`` counts and ``problem`` says why.
    ``overruns`` counts scrapes that, judging and responding included, took longer than the interval: readings
    are missing then, and detectors that want several in a row may never have them. ``pace`` says so.
    """

    targets: Targets
    interval_s: float
    pause: Callable[[float], None]
    now_ns: Callable[[], int] = time.time_ns
    name: str = "prometheus"
    failures: int = 0
    problem: str = ""
    overruns: int = 0
    pace: str = ""
    lines_malformed: int = 0
    _readers: dict[str, PrometheusSource] = field(default_factory=dict)

    def frames(self) -> Iterator[Frame]:
        """One frame per interval, perhaps empty, for ever."""
        answered = False
        while True:
            begun_ns = self.now_ns()
            frame, heard = self.scrape()
            if not heard and not answered:
                raise UserError(self.problem or "there is no exporter to scrape; give its address")
            answered = answered or heard
            yield frame
            self._keep_pace((self.now_ns() - begun_ns) / 1e9)
            self.pause(until_next(self.interval_s, self.now_ns()))

    def _keep_pace(self, took_s: float) -> None:
        late = took_s > self.interval_s
        self.overruns += late
        text = (
            f"a scrape took {took_s:.1f} s, longer than its interval; raise --interval ({self.interval_s:g})"
        )
        self.pace = (self.pace or text) if late else ""

    def scrape(self) -> tuple[Frame, bool]:
        """One scrape of every exporter, and whether any answered."""
        parts, heard, self.problem = [], False, ""
        for url, node in self._targets():
            reader = self._readers.setdefault(url, PrometheusSource(url, node=node))
            try:
                parts.append(reader.parse(reader.fetch(url), reader.now_ns()))
                heard = True
            except UserError as error:
                self.failures += 1
                self.problem = str(error)
        self.lines_malformed = sum(reader.malformed for reader in self._readers.values())
        return concat(parts), heard

    def _targets(self) -> Sequence[tuple[str, str]]:
        try:
            return self.targets()
        except GuardError as error:  # a head that restarts; the next scrape asks again
            self.failures += 1
            self.problem = str(error)
            return ()


def exporters_of_cluster(home: Home) -> Targets:
    """The metrics endpoints of the nodes that the home's cluster has at each moment."""
    from compute_guard.cluster.connection import load_cluster
    from compute_guard.ray_plugin.gcs import Gcs

    def targets() -> list[tuple[str, str]]:
        cluster = load_cluster(home.path("ray"))
        if cluster is None:
            raise UserError("there is no cluster of this home; start one: trainguard compute up")
        gcs = Gcs(cluster.gcs_address, lambda: cluster.token)
        try:
            return [(f"http://{n.address}:{n.metrics_port}/metrics", n.address) for n in gcs.nodes()]
        finally:
            gcs.close()

    return targets


def read_leases(path: Path) -> LeaseBook:
    """Leases of a recording: a JSON list of objects with the fields of ``Lease``. Raises UserError."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return LeaseBook.of(Lease(**{**row, "pids": frozenset(row.get("pids", ()))}) for row in rows)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"leases {path} cannot be read ({error}); "
            "write a JSON list of objects with device, tenant, job, start_ns, end_ns"
        ) from error


@contextmanager
def only_one(home: Home) -> Iterator[None]:
    """Hold the home's monitor lock. Raises UserError when another monitor of this home runs."""
    path = home.path(*LOCK)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError("another monitor of this home runs; end it first, or add --dry-run") from error
        yield


@dataclass(slots=True)
class HostNames:
    """Devices under their node's host name, whatever their exporter calls the node.

    Ray's endpoint names nodes by address, dcgm-exporter by host name: under one name, two exporters' readings
    of one GPU are compared with each other, and its time counts once. A device keeps the name it got first.
    """

    _known: dict[Device, Device] = field(default_factory=dict)
    _given: tuple[Device, ...] = ()
    _named: tuple[Device, ...] = ()

    def applied(self, frame: Frame, names: Mapping[str, str]) -> Frame:
        """The same readings, of devices under host names."""
        if frame.devices != self._given:  # scrape after scrape names the same objects
            known = self._known
            for device in frame.devices:
                if device not in known:
                    known[device] = replace(device, node=names.get(device.node, device.node))
            self._given, self._named = frame.devices, tuple(known[device] for device in frame.devices)
        return replace(frame, devices=self._named)


@dataclass(slots=True)
class Watch:
    """One run. ``stopped`` is asked after each scrape; ``say`` gets what is new, each once."""

    monitor: Monitor
    source: Source
    attribution: Attribution
    stopped: Callable[[], bool]
    say: Callable[[str], None]
    on_incident: Callable[[Incident], None] = lambda _: None
    on_observation: Callable[[Observation], None] = lambda _: None
    live: bool = True
    post: Post | None = None
    scrapes: int = 0
    status_failures: int = 0
    _names: HostNames = field(default_factory=HostNames)
    _said: dict[str, str] = field(default_factory=dict)
    _known: dict[str, tuple[str, str]] = field(default_factory=dict)
    _seen: set[tuple[str, str, str]] = field(default_factory=set)

    def run(self, *, once: bool = False) -> None:
        """Until the source ends or it is told to stop. Raises UserError, Undecidable."""
        self.monitor.start()
        if self.live and callable(self.attribution):
            self.attribution(to_ns(self.monitor.home.clock()))  # nodes have names before the first reading
        if self.live and self.monitor.record and (before := read_status(self.monitor.home)) is not None:
            self.monitor.gpu_time.restore(before.get("spent_today", {}))
        if self.post is not None:
            self.post.start()
        try:
            for frame in self.source.frames():
                self.step(frame)
                if once or self.stopped():
                    break
        finally:
            self.monitor.flush()
            if self.post is not None:
                self.post.stop()

    def step(self, frame: Frame) -> None:
        """One scrape."""
        self.scrapes += 1
        if self.live:
            frame = self._names.applied(frame, getattr(self.attribution, "host_names", {}))
            see = getattr(self.attribution, "see", None)
            if see is not None:
                see(frame.devices)
            self.monitor.tend()
        if len(frame):
            now_ns = int(np.median(frame.ts_ns))
            if self.monitor.record:
                self._tell(self.monitor.take(frame, now_ns))
            else:
                raised, _ = self.monitor.judge(frame, now_ns)
                self._mention(raised)
        self._once("routes", "" if self.post is None else self.post.problem)
        self._once("pace", str(getattr(self.source, "pace", "")))
        parts = (("scrape", self.source), ("look", self.attribution), ("activity", self.monitor.activity))
        for topic, part in parts:
            self._once(topic, str(getattr(part, "problem", "")))
        self._once("empty", "" if len(frame) else "the exporters answered, but named no GPU")
        if self.live and self.monitor.record:
            self._leave_status()

    def _tell(self, incidents: Sequence[Incident]) -> None:
        for incident in incidents:
            state = (incident.severity, incident.state.value)
            if self._known.get(incident.id) != state:
                self._known[incident.id] = state
                self.on_incident(incident)

    def _mention(self, raised: Sequence[Observation]) -> None:
        for observation in raised:
            if observation.key not in self._seen:
                self._seen.add(observation.key)
                self.on_observation(observation)

    def _once(self, topic: str, problem: str) -> None:
        if problem and self._said.get(topic) != problem:
            self.say(problem)
        self._said[topic] = problem

    def _leave_status(self) -> None:
        """What ``compute top`` and ``compute metrics`` read. A disk that refuses does not stop detection."""
        try:
            write(self.monitor.home.path(*STATUS), json.dumps(self.status()).encode())
        except UserError:
            self.status_failures += 1

    def status(self) -> dict[str, Any]:
        """The monitor's own numbers and every device's newest reading."""
        report = self.monitor.report()
        return {
            "at": rfc3339(self.monitor.home.clock()),
            "source": self.source.name,
            "scrapes": self.scrapes,
            "samples": report.samples,
            "quality": dict(report.quality),
            "attribution": [dict(row) for row in report.attribution],
            "device_ms": report.device_ms,
            "spent_today": self.monitor.gpu_time.spent(),
            "calibration": self.monitor.calibration(),
            "history_failures": report.history_failures,
            "status_failures": self.status_failures,
            "scrape_failures": int(getattr(self.source, "failures", 0)),
            "scrape_overruns": int(getattr(self.source, "overruns", 0)),
            "look_failures": int(getattr(self.attribution, "failures", 0)),
            "activity_failures": int(getattr(self.monitor.activity, "failures", 0)),
            "routes": {} if self.post is None else self.post.status(),
            "synthetic": report.synthetic,
            "devices": self.monitor.devices_now(),
        }


def read_status(home: Home) -> dict[str, Any] | None:
    """The last status a monitor left, None when there is none. Raises UserError for a damaged file."""
    path = home.path(*STATUS)
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        columns = found.get("devices", {})  # kept as columns: a large fleet's status is written every scrape
        found["devices"] = [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it and start the monitor") from error
    return found
