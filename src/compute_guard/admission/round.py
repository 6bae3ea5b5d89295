"""One admission round: an immutable snapshot in, who is admitted and who has to make room out. Pure.

Puts the snapshot into the integers of :mod:`compute_guard.admission.cycle`, and its answer back into
workloads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from compute_guard.admission.assessment import Assessment, assess, open_ways, steps_aside
from compute_guard.admission.board import ANY, LOWER, NEVER, OPEN, SHUT, Board, Terms, Work, scratch_for
from compute_guard.admission.cycle import cycle
from compute_guard.admission.snapshot import NO_METER, Holder, Snapshot
from compute_guard.admission.victims import overcommitted
from compute_guard.admission.workload import Workload
from compute_guard.quota.limits import GPU, Amounts, Quotas, Way, total
from compute_guard.quota.tree import NO_LIMIT, take_all

DEPTH = 8
"""How far into each line one round looks: few get in at once, and what is looked at costs time for all."""
DEPTH_OF_ONE_TREE = 24
"""The same for a round in one tree of cohorts, which has fewer lines to look into."""
_MODES = {"never": NEVER, "lower_priority": LOWER, "any": ANY}


@dataclass(frozen=True, slots=True)
class Pick:
    """A workload that may be reserved, with its numbers at its turn."""

    workload: Workload
    way: Way
    assessment: Assessment


@dataclass(frozen=True, slots=True)
class Displacement:
    """A workload that has to go: for ``cause``, or (None) because its queue's quota was lowered.

    ``fair``: ``cause`` would borrow as well, and its queue has had less for its weight.
    """

    holder: Holder
    cause: Workload | None
    fair: bool = False


@dataclass(frozen=True, slots=True)
class Round:
    """What one round decided, in order.

    ``deeper``: all that it looked at in some line got in, and the line goes on. ``stirred``: the trees of
    cohorts in which somebody got in or has to go.
    """

    picks: tuple[Pick, ...] = ()
    displaced: tuple[Displacement, ...] = ()
    deeper: bool = False
    stirred: frozenset[int] = frozenset()


class Layout:
    """A snapshot as the cycle's containers. ``barred`` workloads and those behind them wait this round.

    Who runs outside the trees ``only`` is left out: nobody there can help, unless a lowered quota may end
    jobs anywhere.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        barred: Collection[str] = (),
        protected: Collection[str] = (),
        depth: int = DEPTH,
        only: Collection[int] | None = None,
    ) -> None:
        quotas = snapshot.quotas
        self.snapshot = snapshot
        self.tree = quotas.tree
        self.items: list[Workload] = []
        self.ways: list[Way] = []
        self._users: dict[tuple[str, str], int] = {}
        self._caps = sorted({name for queue in quotas.queues.values() for name in queue.per_user})
        self._user_used: list[list[int]] = []
        self.work = Work(*([] for _ in Work._fields))
        self.terms = terms_of(quotas, self._caps)
        roots = None if only is None or any(self.terms.lowered) else only
        self.holders = {
            holder.workload.id: holder for holder in snapshot.holders if _counts(quotas, holder, roots)
        }
        running = []
        self._running: dict[int, list[int]] = {}
        for holder in self.holders.values():
            way = Way(holder.flavor, holder.amounts, quotas.vector(holder.amounts))
            running.append(self._add(holder.workload, (way,)))
            root = self.tree.root[quotas.nodes[holder.workload.queue]]
            self._running.setdefault(root, []).append(running[-1])
            self.work.admitted[-1] = holder.admitted_ms
            self.work.evicting[-1] = int(holder.evicting)
            self.work.protected[-1] = int(holder.workload.id in protected)
        self._cut: set[int] = set()
        lines = [
            self._line(queue, barred, depth) if only is None or self.tree.root[node] in only else []
            for queue, node in quotas.nodes.items()
        ]
        # Ids as ranks, so that ties are broken as the line itself breaks them.
        ranks = {name: rank for rank, name in enumerate(sorted(item.id for item in self.items))}
        self.work.serial.extend(ranks[item.id] for item in self.items)
        meters = [snapshot.used.get(queue, NO_METER) for queue in quotas.queues]
        self.board = Board(
            usage=[list(row) for row in snapshot.dense],
            user_used=self._user_used,
            value=[meter.value for meter in meters],
            rate=[meter.rate for meter in meters],
            at=[meter.at_ms for meter in meters],
            closed=[SHUT if name in snapshot.holds else OPEN for name in quotas.queues],
            lines=lines,
            front=[0 for _ in lines],
            length=[len(line) for line in lines],
            running=running,
        )
        self.scratch = scratch_for(len(quotas.queues), len(self.items))

    def _line(self, queue: str, barred: Collection[str], depth: int) -> list[int]:
        found: list[int] = []
        for workload in self.snapshot.waiting_in(queue):
            if len(found) >= depth:
                self._cut.add(self.snapshot.quotas.nodes[queue])
                break
            if steps_aside(self.snapshot, workload):
                continue
            ways = open_ways(self.snapshot, workload)
            if workload.id in barred or ways[0].flavor in self.snapshot.shut:
                break
            found.append(self._add(workload, ways))
        return found

    def _add(self, workload: Workload, ways: tuple[Way, ...]) -> int:
        work, place = self.work, len(self.items)
        self.items.append(workload)
        own = (workload.queue, workload.user)
        if own not in self._users:
            self._users[own] = len(self._user_used)
            held = self.snapshot.user_usage.get(own, Amounts())
            self._user_used.append([total(held, name) for name in self._caps])
        work.queue.append(self.snapshot.quotas.nodes[workload.queue])
        work.user.append(self._users[own])
        work.priority.append(workload.priority)
        work.created.append(workload.created_ns // 1_000_000)
        work.first.append(len(self.ways))
        work.ways.append(len(ways))
        work.asked.append([total(workload.requests, name) for name in self._caps])
        work.spends.append(int(workload.requests[GPU] > 0))
        work.way.append(len(self.ways))
        work.admitted.append(0)
        work.evicting.append(0)
        work.protected.append(0)
        self.ways.extend(ways)
        work.requests.extend(way.vector for way in ways)
        return place

    def used_up(self) -> bool:
        """Whether the cycle got to where a line was cut off."""
        return any(self.scratch.cursor[queue] >= self.board.length[queue] for queue in self._cut)

    def roots(self) -> list[int]:
        """The trees of cohorts in which somebody waits."""
        return sorted({self.tree.root[queue] for queue, length in enumerate(self.board.length) if length})

    def round_in(self, root: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Run the cycle in one tree: the workloads picked, and (who has to go, for whom)."""
        waiting, running = sum(self.board.length), self._running.get(root, [])
        picks, victims, causes = [0] * waiting, [0] * len(self.items), [0] * len(self.items)
        picked, gone = cycle(
            self.tree,
            self.work,
            self.board._replace(running=running),  # nobody outside the tree can help
            self.terms,
            self.scratch,
            root,
            len(running),
            self.snapshot.now_ms,
            picks,
            victims,
            causes,
        )
        return picks[:picked], list(zip(victims[:gone], causes[:gone], strict=True))


def decide_round(
    snapshot: Snapshot,
    *,
    barred: Collection[str] = (),
    protected: Collection[str] = (),
    depth: int = DEPTH,
    only: Collection[int] | None = None,
) -> Round:
    """Who may be reserved now, in order, and who has to make room.

    ``protected`` workloads are never taken out. ``only`` the lines in these trees of cohorts are looked at.
    """
    layout = Layout(snapshot, barred=barred, protected=protected, depth=depth, only=only)
    displaced = list(_lowered(layout))
    picks: list[Pick] = []
    stirred = set()
    use = [list(row) for row in snapshot.dense]
    for root in layout.roots():
        chosen, victims = layout.round_in(root)
        if chosen or victims:
            stirred.add(root)
        picks += _picks(layout, use, chosen)
        displaced += [
            Displacement(
                layout.holders[layout.items[gone].id],
                layout.items[cause],
                # Of a line that stopped, the scratch still holds how its head stood.
                fair=bool(layout.scratch.borrows[layout.work.queue[cause]]),
            )
            for gone, cause in victims
        ]
    return Round(tuple(picks), tuple(displaced), layout.used_up(), frozenset(stirred))


def next_admissible(snapshot: Snapshot) -> Workload | None:
    """The workload that may be reserved first, or None."""
    picks = decide_round(snapshot).picks
    return picks[0].workload if picks else None


def _picks(layout: Layout, use: list[list[int]], chosen: Iterable[int]) -> Iterable[Pick]:
    snapshot = layout.snapshot
    for item in chosen:
        workload, way = layout.items[item], layout.ways[layout.work.way[item]]
        yield Pick(workload, way, assess(snapshot, workload, ahead=(), dense=use, way=way))
        take_all(layout.tree, use, layout.work.queue[item], way.vector)


def _lowered(layout: Layout) -> Iterable[Displacement]:
    if not any(layout.terms.lowered) or not any(value < 0 for value in _worst_rooms(layout)):
        return
    gone = overcommitted(
        layout.tree,
        layout.work,
        layout.board,
        layout.terms,
        layout.scratch,
        len(layout.board.running),
        layout.snapshot.now_ms,
    )
    for item in list(layout.scratch.chosen[:gone]):
        layout.work.evicting[item] = 1
        yield Displacement(layout.holders[layout.items[item].id], None)


def _worst_rooms(layout: Layout) -> Iterable[int]:
    quotas, dense = layout.snapshot.quotas, layout.snapshot.dense
    for name, used in layout.snapshot.usage.items():
        if name in quotas.queues:
            yield from (
                quotas.room(name, resource, dense) for resource in used if quotas.place(resource) is not None
            )


def terms_of(quotas: Quotas, caps: list[str]) -> Terms:
    """The settings of every queue as the cycle's containers."""
    queues = quotas.queues.values()
    fair = quotas.fair_share
    return Terms(
        weight=[queue.weight for queue in queues],
        reclaim=[_MODES[queue.preemption.reclaim_within_cohort] for queue in queues],
        within=[_MODES[queue.preemption.within_queue] for queue in queues],
        lowered=[int(queue.preemption.lowered_quota == "preempt") for queue in queues],
        cap=[[queue.per_user.get(name, NO_LIMIT) for name in caps] for queue in queues],
        cost=[fair.rate({resource: 1}) for resource in quotas.resources],
        half_life=fair.half_life_ms,
        patience=fair.patience_seconds * 1000,
        fair=int(fair.preempt),
    )


def _counts(quotas: Quotas, holder: Holder, roots: Collection[int] | None) -> bool:
    """Whether it runs in a queue there still is, of one of the trees ``roots`` (None: of any)."""
    node = quotas.nodes.get(holder.workload.queue)
    return node is not None and (roots is None or quotas.tree.root[node] in roots)
