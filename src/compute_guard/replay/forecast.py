"""When would a waiting job start? The replay loop, begun at what the ledger says now.

An estimate, said as such: running jobs are taken to run as long as their submitters said, else as long as
the last jobs of their queue did (median), and nobody else is taken to come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from types import MappingProxyType
from typing import Final

from compute_guard.admission.assessment import open_ways
from compute_guard.admission.board import NO_GPUS, SHUT
from compute_guard.admission.fair_meter import charge
from compute_guard.admission.snapshot import NO_METER, Snapshot
from compute_guard.admission.workload import Workload
from compute_guard.quota.tree import take_all
from compute_guard.replay.course import RUNNING
from compute_guard.replay.simulate import Stage
from compute_guard.replay.traces import TraceJob
from guard_core.counting import counted

NO_STOPS: Final[Mapping[str, int]] = MappingProxyType({})
EVENTS: Final = 20_000
"""Moments looked at before giving up: a second or two."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """When a job would start, in ms from now; None when nothing can be said. ``basis``: on what ground."""

    in_ms: int | None
    basis: str


def forecast(
    snapshot: Snapshot,
    workload: Workload,
    run_times: Mapping[str, Sequence[int]],
    stops: Mapping[str, int] = NO_STOPS,
) -> Estimate:
    """Estimate the start of ``workload``, waiting in ``snapshot``.

    ``run_times``: past runs by queue, ms. ``stops``: when who has notice is stopped, by id, as in ``now_ms``.
    """
    quotas = snapshot.quotas
    members = {queue.name for queue in quotas.members(quotas.queues[workload.queue])}
    line = snapshot.waiting_in(workload.queue)
    before = line[: next((place + 1 for place, w in enumerate(line) if w.id == workload.id), 0)]
    if any(open_ways(snapshot, w)[0].flavor in snapshot.shut for w in before):
        return Estimate(None, "it waits for the end of a maintenance, or behind a job that does")
    if workload.queue in snapshot.holds:
        return Estimate(None, "nothing starts in its queue until the hold ends")
    holders = [h for h in snapshot.holders if h.workload.queue in members]
    waiting = [w for w in snapshot.pending if w.queue in members]
    seen = [run for name in sorted(members) for run in run_times.get(name, ())]
    said = any(h.workload.expected_seconds for h in holders)
    leaving = {h.workload.id: stops[h.workload.id] for h in holders if h.workload.id in stops}
    if not seen and not said and not leaving:
        return Estimate(None, "no job of these queues has ended yet, so there is nothing to go by")

    def lasts(one: Workload) -> int:
        if one.expected_seconds:
            return one.expected_seconds * 1000
        return median_low(run_times.get(one.queue) or seen or [0])

    now = snapshot.now_ms
    stage = Stage(
        [_job(h.workload, lasts(h.workload)) for h in holders] + [_job(w, lasts(w)) for w in waiting], quotas
    )
    course, work, board, budgets = stage.course, stage.work, stage.board, stage.budgets
    for name, node in quotas.nodes.items():
        meter = snapshot.used.get(name, NO_METER)
        # Its rate comes back below, with what each running job holds.
        board.value[node] = meter.shown(now, quotas.fair_share.half_life_ms)
        board.at[node] = now
        if name in snapshot.holds:
            board.closed[node] = SHUT
        elif snapshot.budget_spent(name):
            board.closed[node] = NO_GPUS
        if budgets.limit[node] >= 0:
            spent = snapshot.budgets.get(name, NO_METER)
            budgets.value[node] = spent.shown(now, budgets.half_life[node])
            budgets.at[node], budgets.rate[node] = now, spent.rate
            if name in snapshot.holds:
                budgets.limit[node] = -1  # a budget opens no queue that is on hold
    for place, holder in enumerate(holders):
        ways = range(work.first[place], work.first[place] + work.ways[place])
        work.way[place] = next((w for w in ways if stage.ways[w].flavor == holder.flavor), work.first[place])
        request = work.requests[work.way[place]]
        take_all(stage.tree, board.usage, work.queue[place], request)
        charge(board, stage.terms, work.queue[place], quotas.fair_share.rate(holder.amounts), now)
        for cap in range(len(work.asked[place])):
            board.user_used[work.user[place]][cap] += work.asked[place][cap]
        course.state[place] = RUNNING
        course.began[place] = work.admitted[place] = holder.admitted_ms
        elapsed = max(0, now - holder.admitted_ms)
        # One that has outlasted its estimate is taken to need a tenth of it more.
        rest = max(course.left[place] - elapsed, course.left[place] // 10, 1000)
        end = now + rest
        stop = leaving.get(holder.workload.id)
        if stop is not None and (stop < end or elapsed >= course.left[place]):
            # Notice says when it goes; one that has outlasted its estimate gives no better ground.
            end = max(now, stop)
            rest = end - now + 1
        course.left[place], course.end[place] = elapsed + rest, end
        work.evicting[place] = int(holder.evicting)
    me = len(holders) + next(i for i, w in enumerate(waiting) if w.id == workload.id)
    for place in range(len(holders), len(stage.jobs)):
        course.arrival[place] = now
    stage.run(fast=False, events=EVENTS, until=me, now=now)
    begun = course.first[me]
    if begun < 0:
        return Estimate(None, "it does not start while what runs and waits now takes its course")
    if seen:
        basis = f"if jobs run as long as the last {counted(len(seen), 'job')} of these queues"
    else:
        basis = "if jobs run as long as what submitters said" if said else "when who has notice is stopped"
    return Estimate(max(0, begun - now), basis)


def _job(workload: Workload, run_ms: int) -> TraceJob:
    return TraceJob(
        workload.id,
        workload.queue,
        workload.user,
        workload.created_ns // 1_000_000,
        max(1, run_ms),
        workload.requests,
        workload.priority,
        workload.flavors,
    )
