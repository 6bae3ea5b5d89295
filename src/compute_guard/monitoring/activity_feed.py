"""Gathers what happened besides computing: the effectful half of :mod:`compute_guard.usage.activity`.

Submissions come from the ledger's table, reads and refusals from the audit log (record by record, each
checked), shells from the process table of this machine, pools from policy data. Dataset reads are turned
into facts by the package that writes them (entry point ``trainguard.dataset_reads``), so that neither guard
knows the other. What cannot be had is counted and left out: detection goes on with the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from compute_guard.admission import refusals
from compute_guard.usage.activity import (
    DAY_NS,
    HOUR_NS,
    Activity,
    DatasetRead,
    Refusal,
    Shell,
    Submission,
    program_of,
)
from guard_core.clock import to_ns
from guard_core.errors import GuardError
from guard_core.plugins import offered

if TYPE_CHECKING:
    from compute_guard.monitoring.holdings import Holding
    from guard_core.audit.shipping.source import Cursor
    from guard_core.home import Home

READS_GROUP: Final = "trainguard.dataset_reads"
MOST_SUBMISSIONS: Final = 50_000
_BATCH: Final = 5_000
_PROBED: Final = ("guard/compute/", "guard/dataset/use/", "guard/dataset/export/")
"""Decisions whose refusals count as probing when there are many of them."""


@dataclass(slots=True)
class ActivityFeed:
    """Renewed each time it is asked. ``failures`` counts, ``problem`` says what could not be had."""

    home: Home
    held: Callable[[], Iterable[Holding]] = tuple
    days: int = 30
    failures: int = 0
    problem: str = ""
    _submissions: deque[Submission] = field(default_factory=lambda: deque(maxlen=MOST_SUBMISSIONS))
    _known: set[str] = field(default_factory=set)
    _newest: datetime | None = None
    _cursor: Cursor | None = None
    _reads: deque[DatasetRead] = field(default_factory=lambda: deque(maxlen=10_000))
    _refusals: deque[Refusal] = field(default_factory=lambda: deque(maxlen=10_000))
    _as_read: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] | None = None
    _libraries: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = sorted(offered(READS_GROUP), key=lambda e: e.name)
        self._as_read = found[0].load() if found else None

    def __call__(self, now_ns: int, libraries: Mapping[str, str] | None = None) -> Activity:
        """Everything known at ``now_ns``. ``libraries``: node -> SHA-256 that the source read through."""
        self.problem = ""
        for part in (self._see_submissions, self._follow_audit):
            try:
                part(now_ns)
            except (GuardError, OSError) as error:
                self.failures += 1
                self.problem = str(error)
        return Activity(
            submissions=tuple(self._submissions),
            reads=tuple(self._reads),
            refusals=tuple(self._refusals),
            shells=self._shells(),
            reserved=self._reserved(),
            libraries=self._changed(libraries or {}),
        )

    def _see_submissions(self, now_ns: int) -> None:
        from sqlalchemy import select

        from guard_core.storage.tables import WorkloadRow

        moment = datetime.fromtimestamp(now_ns / 1e9, UTC)
        # Rows are committed a little after the time they carry, so the last minute is read again.
        since = moment - timedelta(days=self.days) if self._newest is None else self._newest
        query = (
            select(WorkloadRow)
            .where(WorkloadRow.created_at >= since - timedelta(minutes=1))
            .order_by(WorkloadRow.created_at.desc(), WorkloadRow.id)
            .limit(MOST_SUBMISSIONS)
        )
        with self.home.storage.reading() as session:
            rows = [
                (r.id, r.tenant, r.user, r.created_at, str(r.spec.get("entrypoint", "")))
                for r in session.scalars(query)
            ]
        off = off_hours(self.home.policy_data().get("calendars", {}))
        for job, tenant, user, created, command in reversed(rows):
            if job not in self._known:
                self._known.add(job)
                self._submissions.append(
                    Submission(job, tenant, user, to_ns(created), program_of(command), off(created))
                )
        oldest = now_ns - self.days * DAY_NS
        while self._submissions and self._submissions[0].at_ns < oldest:
            self._known.discard(self._submissions.popleft().id)
        if rows:
            self._newest = max(rows[0][3], self._newest or rows[0][3])

    def _follow_audit(self, now_ns: int) -> None:
        from guard_core.audit.shipping.source import next_batch

        audit = self.home.audit
        head = audit.head()
        cursor = self._cursor or self._begin(now_ns)
        while cursor is not None:
            batch = next_batch(audit.directory, head, cursor, events=_BATCH, size=64 << 20)
            for record in batch.records:
                self._learn(record)
            if batch.after.records == cursor.records:
                break
            cursor = batch.after
        self._cursor = cursor

    def _begin(self, now_ns: int) -> Cursor:
        """Where the last two hours begin, as near as whole segments allow."""
        from guard_core.audit import record
        from guard_core.audit.segments import lines, segments
        from guard_core.audit.shipping.source import Cursor

        since = datetime.fromtimestamp((now_ns - 2 * HOUR_NS) / 1e9, UTC)
        begin = Cursor("usage monitor", "all")
        for path in segments(self.home.audit.directory):
            first = next(lines(path), b"")
            if not first.endswith(b"\n"):
                continue
            _, prev, number = record.frame(first)
            if number and datetime.fromisoformat(str(record.decode(first)["timestamp"])) > since:
                break
            genesis = self.home.audit.head().genesis if number else begin.genesis
            begin = Cursor("usage monitor", "all", genesis, prev, path.name, 0, number)
        return begin

    def _learn(self, record: Mapping[str, Any]) -> None:
        kind = str(record.get("kind", ""))
        at_ns = to_ns(datetime.fromisoformat(str(record["timestamp"])))
        data = record.get("data", {})
        if kind == refusals.KIND:
            self._refusals.append(
                Refusal("credentials", "", "authentication", at_ns, int(data.get("count", 1)))
            )
        elif kind == "workload.unadmitted":
            # What was evicted or denied here and is stopped once more never came past admission.
            if not str(data.get("reason", "")).startswith("it was "):
                self._refusals.append(Refusal(str(record.get("subject", "")), "", "unadmitted", at_ns))
        elif kind == "decision":
            path, result = str(record.get("path", "")), record.get("result") or {}
            refused = result.get("allow") is False
            waits = bool(result.get("hold")) and not result.get("deny")  # waiting for quota is no refusal
            if refused and not waits and path.startswith(_PROBED):
                who = record.get("input", {}).get("principal", {})
                self._refusals.append(
                    Refusal(str(who.get("user", "")), str(who.get("tenant", "")), path.split("/")[2], at_ns)
                )
        elif self._as_read is not None and (fact := self._as_read(record)) is not None:
            self._reads.append(
                DatasetRead(
                    str(fact["ref"]),
                    str(fact["tenant"]),
                    str(fact["job"]),
                    str(fact["purpose"]),
                    int(fact["bytes"]),
                    at_ns,
                )
            )

    def _shells(self) -> tuple[Shell, ...]:
        from compute_guard.monitoring.shells import below_workers

        try:
            return below_workers(self.held())
        except ImportError:  # psutil comes with Ray; without it there are no workers to look below
            return ()

    def _reserved(self) -> dict[str, frozenset[str]]:
        """Nodes of pools that are not everybody's, by every name telemetry may use for them."""
        found: dict[str, frozenset[str]] = {}
        pools = self.home.policy_data().get("nodes", {}).get("pools", {})
        for holding in self.held():
            labels = holding.node.labels
            for pool in pools.values():
                wanted, tenants = pool.get("labels", {}), pool.get("tenants", ["*"])
                if wanted and "*" not in tenants and wanted.items() <= labels.items():
                    found.update(dict.fromkeys(holding.node.names, frozenset(map(str, tenants))))
        return found

    def _changed(self, now: Mapping[str, str]) -> dict[str, str]:
        """``before>now`` where a library changed since it was first seen here, else ``now``."""
        found = {}
        for node, digest in now.items():
            first = self._libraries.setdefault(node, digest)
            found[node] = digest if first == digest else f"{first}>{digest}"
        return found


def off_hours(calendar: Mapping[str, Any]) -> Callable[[datetime], bool]:
    """Whether a moment lies outside ``working_hours`` of ``calendars.yaml`` (policy's own reading of it)."""
    hours, holidays = calendar.get("working_hours"), set(calendar.get("holidays", ()))
    try:
        zone = ZoneInfo(str(calendar.get("time_zone", "UTC")))
    except (ZoneInfoNotFoundError, ValueError):
        zone = ZoneInfo("UTC")
    if not hours:
        return lambda _: False

    def off(moment: datetime) -> bool:
        local = moment.astimezone(zone)
        working = (
            f"{local:%A}" in hours["days"]
            and hours["from_hour"] <= local.hour < hours["to_hour"]
            and f"{local:%Y-%m-%d}" not in holidays
        )
        return not working

    return off
