"""Who has to make room: for an owner, for a higher priority, for a fairer share, or for a lowered quota.

So that it also runs compiled (:mod:`compute_guard.replay.compiled`), it uses nothing but integers, loops and
indexing; every name of a container says how it is indexed: ``usage[node][resource]``.
"""

from __future__ import annotations

from typing import Final

from compute_guard.admission.board import ANY, LOWER, NEVER, Board, Scratch, Terms, Work
from compute_guard.admission.fair_meter import rate_of, share_of
from compute_guard.quota.tree import Ints, Tree, fits, give_all, room, take_all

BITS: Final = 62  # of a machine word; with more resources two share one, and somebody too many is looked at


def may_take(work: Work, terms: Terms, item: int, other: int) -> bool:
    """Whether a workload's queue takes back what another queue borrowed for ``other``."""
    mode = terms.reclaim[work.queue[item]]
    if mode == LOWER:
        return bool(work.priority[other] < work.priority[item])
    return bool(mode == ANY)


def better_victim(work: Work, scratch: Scratch, home: int, one: int, other: int) -> bool:
    """Whether ``one`` goes before ``other``: another queue's before the own, the queue that had most for its

    weight, the lower priority, the one admitted last (it loses least), the later id.
    """
    mine, theirs = work.queue[one] == home, work.queue[other] == home
    if mine != theirs:
        return bool(theirs)
    if scratch.share[work.queue[one]] != scratch.share[work.queue[other]]:
        return bool(scratch.share[work.queue[one]] > scratch.share[work.queue[other]])
    if work.priority[one] != work.priority[other]:
        return bool(work.priority[one] < work.priority[other])
    if work.admitted[one] != work.admitted[other]:
        return bool(work.admitted[one] > work.admitted[other])
    return bool(work.serial[one] > work.serial[other])


def set_aside(
    tree: Tree, work: Work, board: Board, terms: Terms, scratch: Scratch, running: int, root: int
) -> None:
    """Count what is being taken out in a tree (``root`` -1: everywhere) as gone, until :func:`put_back`."""
    for queue in range(len(terms.weight)):
        scratch.leaving[queue] = 0
    for place in range(running):
        other = board.running[place]
        scratch.kept[other] = 0
        if work.evicting[other] and (root < 0 or tree.root[work.queue[other]] == root):
            held = work.requests[work.way[other]]
            give_all(tree, board.usage, work.queue[other], held)
            scratch.leaving[work.queue[other]] += rate_of(terms, held)


def put_back(tree: Tree, work: Work, board: Board, running: int, root: int) -> None:
    """Undo :func:`set_aside`."""
    for place in range(running):
        other = board.running[place]
        if work.evicting[other] and (root < 0 or tree.root[work.queue[other]] == root):
            take_all(tree, board.usage, work.queue[other], work.requests[work.way[other]])


def fairer(work: Work, board: Board, terms: Terms, scratch: Scratch, item: int, way: int, other: int) -> bool:
    """Whether a borrower that gets ``item`` would still have had no more, for its weight, than the queue of

    ``other`` without it. So the two can never take from each other in turn. Kueue's final-share rule
    (``pkg/scheduler/preemption/fairsharing/strategy.go``).
    """
    mine, theirs = work.queue[item], work.queue[other]
    more = board.rate[mine] - scratch.leaving[mine] + rate_of(terms, work.requests[way])
    less = board.rate[theirs] - scratch.leaving[theirs] - rate_of(terms, work.requests[work.way[other]])
    own = (board.value[mine] + more * terms.half_life) // terms.weight[mine]
    return bool(own <= (board.value[theirs] + less * terms.half_life) // terms.weight[theirs])


def may_help(tree: Tree, usage: Ints, scratch: Scratch, home: int, request: Ints) -> None:
    """In ``scratch.helps``, by queue: of which resources that ``request`` is short of it could give any, as
    bits. The own queue of all, another of what it borrowed.
    """
    short = 0
    for resource in range(len(request)):
        if request[resource] > 0 and request[resource] > room(tree, usage, home, resource):
            short |= 1 << resource % BITS
    for queue in range(len(scratch.helps)):
        bits = 0
        if tree.root[queue] == tree.root[home]:
            for resource in range(len(request)):
                if short >> resource % BITS & 1 and (
                    queue == home or usage[queue][resource] > tree.nominal[queue][resource]
                ):
                    bits |= 1 << resource % BITS
        scratch.helps[queue] = bits


def reclaim(
    tree: Tree,
    work: Work,
    board: Board,
    terms: Terms,
    scratch: Scratch,
    item: int,
    way: int,
    lent: bool,
    running: int,
) -> int:
    """Who has to go so that a waiting workload fits: how many, in ``scratch.chosen``; -1 when that is
    impossible.

    Of other queues only what they borrowed of a resource that is short: for a workload within its own
    nominal quota as its queue says, for one that would borrow itself (``lent``) only where shares are
    enforced and its share is the fairer one. What is being taken out already counts as gone: 0 when that is
    enough. Nobody goes in vain: with not enough to be had, nobody is chosen; and who turns out not to be
    needed stays.
    """
    home = work.queue[item]
    request = work.requests[way]
    usage = board.usage
    set_aside(tree, work, board, terms, scratch, running, tree.root[home])
    chosen = 0
    enough = fits(tree, usage, home, request)
    while not enough:
        best = -1
        may_help(tree, usage, scratch, home, request)
        for place in range(running):
            other = board.running[place]
            theirs = work.queue[other]
            if not scratch.helps[theirs] or work.evicting[other] or scratch.kept[other]:
                continue
            if work.protected[other]:
                continue
            if theirs == home:
                if terms.within[home] == NEVER or work.priority[other] >= work.priority[item]:
                    continue
            elif lent:
                if not terms.fair or not fairer(work, board, terms, scratch, item, way, other):
                    continue
            elif not may_take(work, terms, item, other):
                continue
            held = work.requests[work.way[other]]
            helps = False
            for resource in range(len(request)):
                if held[resource] > 0 and scratch.helps[theirs] >> resource % BITS & 1:
                    helps = True
            if helps and (best < 0 or better_victim(work, scratch, home, other, best)):
                best = other
        if best < 0:
            break
        held = work.requests[work.way[best]]
        give_all(tree, usage, work.queue[best], held)
        scratch.leaving[work.queue[best]] += rate_of(terms, held)
        scratch.kept[best] = 1
        scratch.chosen[chosen] = best
        chosen += 1
        enough = fits(tree, usage, home, request)
    count = 0
    for place in range(chosen - 1, -1, -1):
        other = scratch.chosen[place]
        take_all(tree, usage, work.queue[other], work.requests[work.way[other]])
        if enough and not fits(tree, usage, home, request):
            give_all(tree, usage, work.queue[other], work.requests[work.way[other]])
        else:
            scratch.kept[other] = 0
    for place in range(chosen):
        other = scratch.chosen[place]
        if scratch.kept[other]:
            take_all(tree, usage, work.queue[other], work.requests[work.way[other]])
            scratch.kept[other] = 0
            scratch.chosen[count] = other
            count += 1
    put_back(tree, work, board, running, tree.root[home])
    return count if enough else -1


def overcommitted(
    tree: Tree, work: Work, board: Board, terms: Terms, scratch: Scratch, running: int, now: int
) -> int:
    """Who has to go because quota was lowered below what runs: how many, in ``scratch.chosen``.

    Only work of queues that say so, beyond their nominal quota, and only until no queue is short any more.
    """
    usage = board.usage
    for queue in range(len(terms.weight)):
        scratch.share[queue] = share_of(board, terms, queue, now)
    set_aside(tree, work, board, terms, scratch, running, -1)
    count = 0
    while True:
        best = -1
        for place in range(running):
            other = board.running[place]
            queue = work.queue[other]
            if (
                work.evicting[other]
                or work.protected[other]
                or scratch.kept[other]
                or not terms.lowered[queue]
            ):
                continue
            held = work.requests[work.way[other]]
            over = False
            for resource in range(len(held)):
                beyond = usage[queue][resource] > tree.nominal[queue][resource]
                if held[resource] > 0 and beyond and room(tree, usage, queue, resource) < 0:
                    over = True
            if over and (best < 0 or better_victim(work, scratch, -1, other, best)):
                best = other
        if best < 0:
            break
        give_all(tree, usage, work.queue[best], work.requests[work.way[best]])
        scratch.kept[best] = 1
        scratch.chosen[count] = best
        count += 1
    for place in range(count):
        other = scratch.chosen[place]
        take_all(tree, usage, work.queue[other], work.requests[work.way[other]])
        scratch.kept[other] = 0
    put_back(tree, work, board, running, -1)
    return count


VICTIMS_KERNEL: Final = (
    may_take,
    better_victim,
    set_aside,
    put_back,
    fairer,
    may_help,
    reclaim,
    overcommitted,
)
"""Every function here that is compiled, each after those it calls."""
