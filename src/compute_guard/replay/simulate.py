"""What-if: a trace under other quotas. Who would have waited how long, and what would have stood idle.

Decides with the same cycle as live admission (:mod:`compute_guard.replay.loop`). What is not replayed: Rego
(it may refuse more), nodes (quota is counted, not placement), and people who would have done something else.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from compute_guard.admission.board import Board, Work, scratch_for
from compute_guard.admission.round import terms_of
from compute_guard.quota.limits import GPU, STORAGE_LIMIT, Amounts, Quotas, Way, base_of, total
from compute_guard.quota.tree import Tree
from compute_guard.replay.agenda import Agenda
from compute_guard.replay.compiled import compiled
from compute_guard.replay.course import ABSENT, ENDED, REJECTED, Budgets, Course, Grace
from compute_guard.replay.loop import INTERPRETED
from compute_guard.replay.traces import Trace, TraceJob
from guard_core.errors import UserError

if TYPE_CHECKING:
    import numpy as np

ENGINES = ("auto", "interpreted", "compiled")
COMPILE_FROM = 2_000
"""From so many jobs on compiling pays (its result is kept for the next time)."""
SAFE = 1 << 52
"""Amounts and sums below this leave the compiled 64-bit integers room for every product."""


_QUEUES_NAMED: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOutcome:
    """What became of one queue's jobs. Waits in seconds, over jobs that began; use in per cent of nominal."""

    queue: str
    jobs: int
    finished: int
    rejected: int
    unfinished: int
    taken_out: int
    wait_mean_s: float
    wait_p50_s: float
    wait_p90_s: float
    wait_max_s: float
    use_percent: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a trace. ``use_percent`` is over the time until the last job ended."""

    source: str
    engine: str
    jobs: int
    finished: int
    rejected: int
    taken_out: int
    wait_mean_s: float
    wait_p50_s: float
    wait_p90_s: float
    makespan_s: float
    use_percent: dict[str, float]
    cycles: int
    seconds: float
    """The replay itself: reading the trace and compiling are not in it."""
    jobs_per_second: float
    queues: tuple[QueueOutcome, ...]
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """Jobs that neither ended nor were refused: what they wait for never comes."""
        return self.jobs - self.finished - self.rejected

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


class Stage:
    """A trace laid out for the loop, as lists. ``keeps``: a job that is taken out keeps the work it has
    done."""

    def __init__(self, jobs: Sequence[TraceJob], quotas: Quotas, *, keeps: bool = True) -> None:
        unknown = sorted({job.queue for job in jobs} - set(quotas.queues))
        if unknown:
            rest = len(unknown) - _QUEUES_NAMED
            named = ", ".join(unknown[:_QUEUES_NAMED]) + (f" and {rest:,} more" if rest > 0 else "")
            raise UserError(f"the trace has jobs of queues that the quotas do not have: {named}; add them")
        self.jobs, self.quotas = jobs, quotas
        self.tree: Tree = quotas.tree
        queues = list(quotas.queues.values())
        count = len(jobs)
        zeros = [0] * count
        caps = sorted({name for queue in queues for name in queue.per_user})
        rows: list[tuple[int, ...]] = []
        shapes: dict[tuple[str, Amounts, tuple[str, ...]], tuple[int, int, list[int]]] = {}
        self.ways: list[Way] = []
        first, ways, asked, spends = [], [], [], []
        for job in jobs:
            key = (job.queue, job.requests, job.flavors)
            shape = shapes.get(key)
            if shape is None:
                found = quotas.ways(*key)
                shape = (len(rows), len(found), [total(job.requests, name) for name in caps])
                rows += [way.vector for way in found]
                self.ways += found
                shapes[key] = shape
            first.append(shape[0])
            ways.append(shape[1])
            asked.append(shape[2])
            spends.append(int(job.requests[GPU] > 0))
        users: dict[tuple[str, str], int] = {}
        user = [users.setdefault((job.queue, job.user), len(users)) for job in jobs]
        serial = zeros.copy()
        for rank, place in enumerate(sorted(range(count), key=lambda i: jobs[i].id)):
            serial[place] = rank
        arrival = [job.arrival_ms for job in jobs]
        self.work = Work(
            queue=[quotas.nodes[job.queue] for job in jobs],
            user=user,
            priority=[job.priority for job in jobs],
            created=arrival,
            serial=serial,
            first=first,
            ways=ways,
            requests=rows,
            asked=asked,
            spends=spends,
            way=first.copy(),
            admitted=zeros.copy(),
            evicting=zeros.copy(),
            protected=zeros.copy(),
        )
        lengths = [0] * len(queues)
        for job in jobs:
            lengths[quotas.nodes[job.queue]] += 1
        self.board = Board(
            usage=quotas.usage_of({}),
            user_used=[[0] * len(caps) for _ in users] or [[0] * len(caps)],
            value=[0] * len(queues),
            rate=[0] * len(queues),
            at=[0] * len(queues),
            closed=[0] * len(queues),
            lines=[[0] * length for length in lengths],
            front=[0] * len(queues),
            length=[0] * len(queues),
            running=zeros.copy(),
        )
        self.terms = terms_of(quotas, caps)
        self.scratch = scratch_for(len(queues), count)
        self.course = Course(
            order=sorted(range(count), key=arrival.__getitem__),
            arrival=arrival.copy(),
            left=[job.run_ms for job in jobs],
            state=[ABSENT] * count,
            began=zeros.copy(),
            first=[-1] * count,
            end=zeros.copy(),
            done=[-1] * count,
            ran=zeros.copy(),
            stops=zeros.copy(),
        )
        self.agenda = Agenda(zeros.copy(), zeros.copy(), zeros.copy())
        self.grace = Grace(
            [queue.preemption.grace_seconds * 1000 for queue in queues],
            [int(keeps) for _ in queues],
            [int(queue.preemption.then == "requeue") for queue in queues],
        )
        self.budgets = Budgets(
            limit=[-1 if queue.budget is None else queue.budget.limit for queue in queues],
            half_life=[1 if queue.budget is None else queue.budget.half_life_ms for queue in queues],
            value=[0] * len(queues),
            rate=[0] * len(queues),
            at=[0] * len(queues),
            gpu=[int(base_of(name) == GPU) for name in quotas.resources],
        )
        self.idle = quotas.usage_of({})

    def run(self, *, fast: bool, events: int = 0, until: int = -1, now: int = 0) -> tuple[int, int]:
        """Run the loop: (cycles, the last moment). The lists hold what happened afterwards."""
        dirty, picks = [0] * len(self.tree.parent), [0] * max(1, len(self.jobs))
        limits = [events, until, now]
        parts = [self.tree, self.work, self.board, self.terms, self.scratch, self.course]
        parts += [self.agenda, self.grace, self.budgets]
        rest = [self.idle, dirty, picks, picks.copy(), picks.copy(), limits]
        if not fast:
            return INTERPRETED.replay(*parts, *rest), limits[2]
        arrays = [_as_arrays(part) for part in parts]
        more = [_array(item) for item in rest]
        cycles = compiled().replay(*arrays, *more)
        self.course = Course(*(column.tolist() for column in arrays[5]))
        return cycles, int(more[-1][2])


def _array(value: Any) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.asarray(value, dtype=np.int64)


def _as_arrays(part: Any) -> Any:
    """A tuple of lists as the same tuple of 64-bit arrays; lines have lengths of their own."""
    import numba

    def one(name: str, value: Any) -> Any:
        if name == "lines":
            return numba.typed.List([_array(line) for line in value])
        if isinstance(value, int):
            return value
        found = _array(value)
        return found.reshape(len(value), -1) if name in ("cap", "asked", "user_used", "requests") else found

    return type(part)(*(one(name, value) for name, value in zip(part._fields, part, strict=True)))


def simulate(trace: Trace, quotas: Quotas, *, engine: str = "auto", keeps: bool = True) -> Outcome:
    """Replay ``trace`` under ``quotas``. Raises UserError when a queue of the trace has no quota.

    ``engine`` ``auto`` compiles for long traces, unless an amount is too large for 64-bit products.
    """
    stage = Stage(trace.jobs, quotas, keeps=keeps)
    fast = engine == "compiled" or (engine == "auto" and len(trace.jobs) >= COMPILE_FROM and _is_safe(stage))
    if fast:
        if not _is_safe(stage):
            raise UserError("amounts are too large for the compiled engine; use --engine interpreted")
        Stage(trace.jobs[:1], quotas).run(fast=True)  # compiles, or loads what was compiled before
    begun = time.perf_counter()
    cycles, _ = stage.run(fast=fast)
    seconds = time.perf_counter() - begun
    return _outcome(trace, stage, "compiled" if fast else "interpreted", cycles, seconds)


def _is_safe(stage: Stage) -> bool:
    most = max((max(row) for row in stage.tree.subtree), default=0)
    longest = max(stage.course.arrival, default=0) + sum(stage.course.left)
    rate = sum(
        cost * max(row[place] for row in stage.tree.subtree) for place, cost in enumerate(stage.terms.cost)
    )
    share = rate * max(stage.terms.half_life, 1) * 4
    return most < SAFE and share < STORAGE_LIMIT and longest < STORAGE_LIMIT


def _outcome(trace: Trace, stage: Stage, engine: str, cycles: int, seconds: float) -> Outcome:
    import numpy as np

    course, quotas = stage.course, stage.quotas
    state, queue = np.asarray(course.state), np.asarray(stage.work.queue)
    first, arrival, stops = (np.asarray(column) for column in (course.first, course.arrival, course.stops))
    ran = np.asarray(course.ran, dtype=np.int64)
    start = int(arrival.min())
    makespan = max(1, int(max(course.done)) - start)
    waits = (first - arrival) / 1000
    # Kept in floats from here on: these are figures for people, no longer quota.
    held = np.asarray(stage.work.requests, dtype=float)[np.asarray(stage.work.way)] * ran[:, None]
    outcomes = []
    for node, name in enumerate(quotas.queues):
        mine = queue == node
        begun = waits[mine & (first >= 0)]
        outcomes.append(
            QueueOutcome(
                queue=name,
                jobs=int(mine.sum()),
                finished=int((state[mine] == ENDED).sum()),
                rejected=int((state[mine] == REJECTED).sum()),
                unfinished=int(((state[mine] != ENDED) & (state[mine] != REJECTED)).sum()),
                taken_out=int(stops[mine].sum()),
                wait_mean_s=_of(begun, "mean"),
                wait_p50_s=_of(begun, 50),
                wait_p90_s=_of(begun, 90),
                wait_max_s=_of(begun, 100),
                use_percent=_use(quotas, held[mine].sum(axis=0), stage.tree.nominal[node], makespan),
            )
        )
    tops = [node for node, parent in enumerate(stage.tree.parent) if parent < 0]
    capacity = [sum(stage.tree.subtree[node][r] for node in tops) for r in range(len(quotas.resources))]
    begun = waits[first >= 0]
    return Outcome(
        source=trace.source,
        engine=engine,
        jobs=len(trace.jobs),
        finished=sum(one.finished for one in outcomes),
        rejected=sum(one.rejected for one in outcomes),
        taken_out=sum(one.taken_out for one in outcomes),
        wait_mean_s=_of(begun, "mean"),
        wait_p50_s=_of(begun, 50),
        wait_p90_s=_of(begun, 90),
        makespan_s=makespan / 1000,
        use_percent=_use(quotas, held.sum(axis=0), capacity, makespan),
        cycles=cycles,
        seconds=round(seconds, 4),
        jobs_per_second=round(len(trace.jobs) / max(seconds, 1e-9)),
        queues=tuple(outcomes),
        left_out=dict(trace.left_out),
    )


def _of(waits: np.ndarray[Any, Any], what: float | str) -> float:
    import numpy as np

    if not len(waits):
        return 0.0
    return round(float(waits.mean() if what == "mean" else np.percentile(waits, float(what))), 3)


def _use(quotas: Quotas, held: Any, capacity: Sequence[int], makespan: int) -> dict[str, float]:
    return {
        name: round(100 * float(held[place]) / (capacity[place] * makespan), 2)
        for place, name in enumerate(quotas.resources)
        if capacity[place]
    }
