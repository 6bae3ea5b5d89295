"""The scheduling cycle on plain integers: quota arithmetic, order, fair share and reclaim.

One source, two ways to run it: admission calls these functions as they stand, on lists; the replay of long
traces (:mod:`compute_guard.replay.compiled`) has numba compile the same lines, on arrays. So they use nothing
but integers, loops and indexing, and every name of a container says how it is indexed:
``usage[node][resource]``.

Quota arithmetic: Kueue's ``resource_node.go``. Order of the heads of the lines in one tree of cohorts: who
stays within its own nominal quota goes before who would borrow; among borrowers the one whose queue had
least so far for its weight (:func:`share_of`); then priority, then age, then the order of ids. A head that
is within its own nominal quota and does not fit keeps the room it waits for from everyone behind it, so what
was lent always comes back; it may also take it back (:func:`reclaim`), from borrowers first.
"""

from __future__ import annotations

from typing import Final

from compute_guard.admission.board import NEVER, NO_GPUS, SHUT, Board, Scratch, Terms, Work, placed
from compute_guard.admission.fair_meter import METER_KERNEL, charge, rate_of, share_of
from compute_guard.admission.victims import VICTIMS_KERNEL, reclaim
from compute_guard.quota.tree import TREE_KERNEL, Ints, Tree, give_all, take_all


def user_state(work: Work, board: Board, terms: Terms, item: int) -> int:
    """What a workload's own user's cap says: 0 it may go, 1 it waits for the user's other jobs, 2 never."""
    queue = work.queue[item]
    state = 0
    for place in range(len(terms.cap[queue])):
        cap = terms.cap[queue][place]
        asked = work.asked[item][place]
        if cap >= 0 and asked > 0:
            if asked > cap:
                return 2
            if board.user_used[work.user[item]][place] + asked > cap:
                state = 1
    return state


def goes_before(work: Work, scratch: Scratch, one: int, other: int) -> bool:
    """Whether the head of queue ``one`` may try before the head of queue ``other``."""
    if scratch.borrows[one] != scratch.borrows[other]:
        return bool(scratch.borrows[one] < scratch.borrows[other])
    if scratch.borrows[one] and scratch.share[one] != scratch.share[other]:
        return bool(scratch.share[one] < scratch.share[other])
    first, second = scratch.head[one], scratch.head[other]
    if work.priority[first] != work.priority[second]:
        return bool(work.priority[first] > work.priority[second])
    if work.created[first] != work.created[second]:
        return bool(work.created[first] < work.created[second])
    return bool(work.serial[first] < work.serial[second])


def next_head(work: Work, board: Board, terms: Terms, scratch: Scratch, queue: int) -> int:
    """The first workload in a line, at or behind the cursor, that waits for neither cap nor budget; or -1.

    One that its user's cap never permits ends the line here (-1): it is refused before others may pass it.
    """
    while scratch.cursor[queue] < board.length[queue]:
        item = int(board.lines[queue][scratch.cursor[queue]])
        state = user_state(work, board, terms, item)
        if state == 0 and not (board.closed[queue] == NO_GPUS and work.spends[item]):
            return item
        if state == 2:
            return -1
        scratch.cursor[queue] += 1
    return -1


def cycle(
    tree: Tree,
    work: Work,
    board: Board,
    terms: Terms,
    scratch: Scratch,
    root: int,
    running: int,
    now: int,
    picks: Ints,
    victims: Ints,
    causes: Ints,
) -> tuple[int, int]:
    """One round in one tree of cohorts: who is admitted, and who has to go: how many of each.

    ``picks`` are admitted in this order: use, meters, `Work.way` and the lines' cursors show it, the lines
    are left for the caller to shorten. ``victims[i]`` is asked to go for ``causes[i]``; its use stays until
    it has gone.
    """
    queues = len(terms.weight)
    picked = 0
    evicted = 0
    kept = 0
    grew = False
    for queue in range(queues):
        scratch.done[queue] = 1
        if tree.root[queue] == root:
            scratch.cursor[queue] = board.front[queue]
            if board.closed[queue] != SHUT and board.length[queue] > board.front[queue]:
                scratch.done[queue] = 0
                scratch.stale[queue] = 1
            scratch.share[queue] = share_of(board, terms, queue, now)
    while True:
        best = -1
        for queue in range(queues):
            if scratch.done[queue]:
                continue
            # Within a round use only grows: what did not fit stays so; only what fitted is looked at again.
            if scratch.stale[queue] or (grew and scratch.fits[queue]):
                scratch.stale[queue] = 0
                item = next_head(work, board, terms, scratch, queue)
                if item < 0:
                    scratch.done[queue] = 1
                    continue
                scratch.head[queue] = item
                way, fit, lent = placed(tree, board.usage, work, item)
                scratch.way[queue] = way
                scratch.fits[queue] = 1 if fit else 0
                scratch.borrows[queue] = 1 if lent else 0
            if best < 0 or goes_before(work, scratch, queue, best):
                best = queue
        if best < 0:
            break
        grew = False
        item = scratch.head[best]
        way = scratch.way[best]
        request = work.requests[way]
        if scratch.fits[best]:
            take_all(tree, board.usage, best, request)
            for place in range(len(terms.cap[best])):
                board.user_used[work.user[item]][place] += work.asked[item][place]
            charge(board, terms, best, rate_of(terms, request), now)
            scratch.share[best] = share_of(board, terms, best, now)
            work.way[item] = way
            picks[picked] = item
            picked += 1
            scratch.cursor[best] += 1
            scratch.stale[best] = 1
            grew = True
            continue
        scratch.done[best] = 1
        lent = scratch.borrows[best] == 1
        count = -1
        takes = terms.fair if lent else terms.reclaim[best] != NEVER
        if takes or terms.within[best] != NEVER:
            count = reclaim(tree, work, board, terms, scratch, item, way, lent, running)
            for place in range(count):
                victims[evicted] = scratch.chosen[place]
                causes[evicted] = item
                work.evicting[scratch.chosen[place]] = 1
                evicted += 1
        if not lent or count >= 0 or now - work.created[item] >= terms.patience:
            take_all(tree, board.usage, best, request)
            scratch.reserved[best] = way + 1
            kept += 1
            grew = True
    if kept > 0:
        for queue in range(queues):
            if tree.root[queue] == root and scratch.reserved[queue] > 0:
                give_all(tree, board.usage, queue, work.requests[scratch.reserved[queue] - 1])
                scratch.reserved[queue] = 0
    return picked, evicted


KERNEL: Final = (
    *TREE_KERNEL,
    placed,
    *METER_KERNEL,
    *VICTIMS_KERNEL,
    user_state,
    goes_before,
    next_head,
    cycle,
)
"""Every function that is compiled, each after those it calls."""
