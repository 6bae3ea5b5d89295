"""Replay: what recorded decisions would have been under a candidate policy.

Three steps: read the log into distinct questions (`recorded`), ask the candidate once for each, compare.
Two questions are one when they agree in everything the candidate can read of them (`input_use`). The clock
is another one in every record, so a question is first asked without regard to it, by an engine that tells
which lines it executed; only when one that reads the clock was among them are its records told apart by time.
A record whose masked field the candidate reads is *undecidable*: nobody guesses what stood there.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from guard_core.audit.record import BadRecord
from guard_core.clock import rfc3339
from guard_core.errors import Undecidable
from guard_core.policy.bundle import Bundle
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.lifecycle.input_use import CLOCK, input_use
from guard_core.policy.lifecycle.outcome import REASONS, UNCHANGED, UNDECIDABLE, Outcome, change
from guard_core.policy.lifecycle.question_key import Question, QuestionKey
from guard_core.policy.lifecycle.recorded import (
    EXAMPLES,
    Gathered,
    Old,
    Piece,
    Place,
    Reading,
    Tally,
    gather,
    pieces,
    question_at,
    separated,
)
from guard_core.policy.lifecycle.traced import TracedEngine
from guard_core.policy.rego_ast import parse

if TYPE_CHECKING:
    from guard_core.storage import Storage

POOL_BYTES = 16 << 20
"""A log smaller than this is read in this process: starting others would take longer."""
BATCH = 256

Asked = tuple[Question, Outcome, int, bool]
"""A question's new outcome, the CPU nanoseconds it took, and whether it depends on the clock's value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Decisions of one tenant that change in one way for the same rules.

    ``gpu_hours`` ran under allows. For undecidable ones, ``rules`` holds the masked field's JSON pointer.
    """

    kind: str
    tenant: str
    path: str
    rules: tuple[str, ...]
    count: int
    gpu_hours: float
    message: str
    examples: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The documented JSON shape."""
        return {
            "class": self.kind,
            "tenant": self.tenant,
            "path": self.path,
            "rules": list(self.rules),
            "count": self.count,
            "gpu_hours": round(self.gpu_hours, 3),
            "message": self.message,
            "examples": list(self.examples),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The result. ``classes`` counts decisions by class; ``changes`` holds every group that changes."""

    since: str
    candidate: str
    revisions: Mapping[str, int]
    decisions: int
    allows: int
    distinct: int
    classes: Mapping[str, int]
    changes: tuple[Change, ...]
    unreadable: int
    eval_cpu_ns: Mapping[str, int]
    seconds: float
    processes: int
    gpu_hours: float = field(default=0.0)

    def count(self, *kinds: str) -> int:
        """Decisions in these classes."""
        return sum(self.classes.get(kind, 0) for kind in kinds)

    def to_json(self) -> dict[str, Any]:
        """The documented JSON shape."""
        return {
            "since": self.since,
            "candidate": self.candidate,
            "revisions": dict(self.revisions),
            "decisions": self.decisions,
            "allows": self.allows,
            "distinct": self.distinct,
            "classes": dict(self.classes),
            "gpu_hours_affected": round(self.gpu_hours, 3),
            "changes": [item.to_json() for item in self.changes],
            "unreadable": self.unreadable,
            "eval_cpu_ns": dict(self.eval_cpu_ns),
            "seconds": round(self.seconds, 3),
            "processes": self.processes,
        }


def replay(
    audit: Path,
    candidate: Bundle,
    *,
    since: datetime | None = None,
    processes: int = 1,
    gpu_hours: Mapping[str, float] | None = None,
    pool_bytes: int = POOL_BYTES,
) -> Replay:
    """Re-decide the decisions recorded in the folder ``audit`` since ``since`` under ``candidate``.

    ``gpu_hours`` maps the decision that admitted a workload to the GPU-hours it used (`gpu_hours_of`).
    Raises UserError for a candidate that does not compile, Undecidable when a worker process dies.
    """
    started = time.perf_counter()
    earliest = rfc3339(since) if since is not None else ""
    work = pieces(audit, since=earliest)
    setup = (
        dict(candidate.modules),
        candidate.data_json,
        candidate.revision,
        dict(gpu_hours or {}),
        earliest,
    )
    EmbeddedEngine(candidate)  # a candidate that does not compile is the user's mistake, told before all else
    size = sum(piece.last - piece.first for piece in work)
    many = processes > 1 and size > pool_bytes
    with _Workers(processes if many else 1, setup) as workers:
        found = Gathered()
        for part in workers.map(_gather, [(piece, None) for piece in work]):
            found.add(part)
        outcomes: dict[Question, Outcome] = {}
        spent: list[int] = []
        timed = _ask_all(workers, found, found.timeless, outcomes, spent)
        if timed:
            decisions, allows, revisions = found.decisions, found.allows, found.revisions.copy()
            separated(found, timed)
            again = Gathered()
            for part in workers.map(_gather, [(piece, timed) for piece in work]):
                again.add(part)
            _ask_all(workers, again, set(), outcomes, spent)
            found.add(again)
            found.decisions, found.allows, found.revisions = decisions, allows, revisions
    classes, changes = _compared(found, outcomes)
    return Replay(
        since=earliest,
        candidate=candidate.revision,
        revisions=dict(found.revisions.most_common()),
        decisions=found.decisions,
        allows=found.allows,
        distinct=len(spent),
        classes=classes,
        changes=changes,
        unreadable=found.unreadable,
        eval_cpu_ns=_percentiles(spent),
        seconds=time.perf_counter() - started,
        processes=processes if many else 1,
        gpu_hours=sum(item.gpu_hours for item in changes),
    )


def _ask_all(
    workers: _Workers,
    found: Gathered,
    timeless: set[Question],
    outcomes: dict[Question, Outcome],
    spent: list[int],
) -> frozenset[Question]:
    """Ask every question of ``found``; returns those of ``timeless`` that depend on the clock after all."""
    asked = sorted(
        ((place, question, path, question in timeless) for question, (path, place) in found.places.items()),
        key=lambda item: item[0],
    )
    timed = set()
    for answers in workers.map(_ask, [asked[at : at + BATCH] for at in range(0, len(asked), BATCH)]):
        for question, outcome, cpu_ns, reads_clock in answers:
            outcomes[question] = outcome
            spent.append(cpu_ns)
            if reads_clock:
                timed.add(question)
    return frozenset(timed)


def gpu_hours_of(storage: Storage, *, now: datetime) -> dict[str, float]:
    """GPU-hours (GPUs requested x hours held) of each workload that ran, by the decision that admitted it."""
    from sqlalchemy import select

    from guard_core.storage.tables import WorkloadRow

    found: dict[str, float] = {}
    columns = (
        WorkloadRow.decision_id,
        WorkloadRow.requests,
        WorkloadRow.admitted_at,
        WorkloadRow.finished_at,
    )
    with storage.reading() as session:
        query = select(*columns).where(WorkloadRow.admitted_at.is_not(None)).execution_options(yield_per=1000)
        for decision_id, requests, admitted, finished in session.execute(query):
            gpu_milli = requests.get("gpu_milli", 0)
            if gpu_milli and admitted is not None:
                hours = max(((finished or now) - admitted).total_seconds(), 0.0) / 3600
                found[decision_id] = gpu_milli / 1000 * hours
    return found


def _compared(
    found: Gathered, outcomes: Mapping[Question, Outcome]
) -> tuple[dict[str, int], tuple[Change, ...]]:
    classes: dict[str, int] = {}
    groups: dict[tuple[str, str, str, tuple[str, ...]], tuple[Tally, str]] = {}

    def note(kind: str, old: Old, path: str, rules: tuple[str, ...], message: str, tally: Tally) -> None:
        classes[kind] = classes.get(kind, 0) + tally.count
        if kind != UNCHANGED:
            group, _ = groups.setdefault((kind, old[3], path, rules), (Tally(), message))
            group.add(tally)

    for (question, old), tally in found.tallies.items():
        before = Outcome(old[0], old[1], old[2])
        new = outcomes[question]
        kind = change(before, new)
        rules = before.rules if new.kind == "allow" and before.kind != "allow" else new.rules
        said = f"until now by [{', '.join(before.rules) or '-'}]" if kind == REASONS else new.message
        note(kind, old, found.places[question][0], rules, said, tally)
    for (path, pointer, old), tally in found.masked.items():
        note(UNDECIDABLE, old, path, (pointer,), f"{pointer} was masked, and the candidate reads it", tally)
    changes = [
        Change(
            kind=kind,
            tenant=tenant,
            path=path,
            rules=rules,
            count=tally.count,
            gpu_hours=tally.gpu_hours,
            message=message,
            examples=tuple(tally.examples[:EXAMPLES]),
        )
        for (kind, tenant, path, rules), (tally, message) in groups.items()
    ]
    ordered = sorted(changes, key=lambda c: (-c.count, c.kind, c.tenant, c.path, c.rules))
    return dict(sorted(classes.items(), key=lambda item: -item[1])), tuple(ordered)


def _percentiles(spent: list[int]) -> dict[str, int]:
    ordered = sorted(spent)
    if not ordered:
        return {"p50": 0, "p99": 0}
    return {
        name: ordered[min(int(len(ordered) * q), len(ordered) - 1)]
        for name, q in (("p50", 0.5), ("p99", 0.99))
    }


# --- worker processes -----------------------------------------------------------------------------------

Setup = tuple[dict[str, str], str, str, dict[str, float], str]


class _Worker:
    """What one process knows: the candidate, compiled once, and what each rule path reads."""

    def __init__(self, setup: Setup) -> None:
        modules, data_json, revision, self.gpu_hours, self.since = setup
        bundle = Bundle(
            revision=revision, modules=modules, tests=MappingProxyType({}), config={}, data_json=data_json
        )
        self.engine = EmbeddedEngine(bundle)
        self._bundle = bundle
        self._parsed = [parse(name, text) for name, text in modules.items()]
        self._config = json.loads(data_json).get("guard", {}).get("config", {})
        self._readings: dict[str, Reading] = {}

    @cached_property
    def traced(self) -> TracedEngine:
        """An engine that tells which lines it executed, made when a policy reads the clock."""
        return TracedEngine(self._bundle)

    def reading_of(self, path: str) -> Reading:
        """How questions to ``path`` are told apart."""
        found = self._readings.get(path)
        if found is None:
            use = input_use(self._parsed, path, config=self._config)
            timeless = None
            if CLOCK in use.whole and not use.everything:
                timeless = QuestionKey(path, use.without_clock())
            found = self._readings[path] = Reading(use, QuestionKey(path, use), timeless)
        return found


_worker: _Worker | None = None


def _begin(setup: Setup) -> None:
    global _worker
    _worker = _Worker(setup)


def _gather(work: tuple[Piece, frozenset[Question] | None]) -> Gathered:
    assert _worker is not None
    return gather(
        work[0],
        reading_of=_worker.reading_of,
        gpu_hours=_worker.gpu_hours,
        since=_worker.since,
        timed=work[1],
    )


def _ask(batch: Sequence[tuple[Place, Question, str, bool]]) -> list[Asked]:
    assert _worker is not None
    answered: list[Asked] = []
    for place, question, path, timeless in batch:
        try:
            asked = question_at(place)
        except (OSError, BadRecord) as error:
            failed = Outcome("error", message=f"the record cannot be read: {error}")
            answered.append((question, failed, 0, False))
            continue
        engine = _worker.traced if timeless else _worker.engine
        before = time.thread_time_ns()
        answer = engine.evaluate(path, asked)
        spent = time.thread_time_ns() - before
        outcome = Outcome.of(answer.value, defined=answer.defined, error=answer.error)
        reads_clock = timeless and _worker.traced.came_by(_worker.reading_of(path).use.clock_places)
        answered.append((question, outcome, spent, reads_clock))
    return answered


class _Workers:
    """``map`` over processes, or in this one when there is only one."""

    def __init__(self, count: int, setup: Setup) -> None:
        self._count = count
        self._setup = setup
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Workers:
        if self._count > 1:
            self._pool = ProcessPoolExecutor(
                self._count,
                mp_context=multiprocessing.get_context("spawn"),  # engines and threads do not survive a fork
                initializer=_begin,
                initargs=(self._setup,),
            )
        else:
            _begin(self._setup)
        return self

    def __exit__(self, *exc: object) -> None:
        global _worker
        _worker = None
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        if self._pool is None:
            yield from map(function, items)
            return
        try:
            yield from self._pool.map(function, items)
        except BrokenProcessPool:
            raise Undecidable(
                "a replay worker died (out of memory?); run it again with --processes 1"
            ) from None
