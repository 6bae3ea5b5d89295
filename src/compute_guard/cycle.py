"""The scheduling cycle on plain integers: quota arithmetic, order, fair share and reclaim.

One source, two ways to run it: admission calls these functions as they stand, on lists; the replay of long
traces (:mod:`compute_guard.replay_loop`) has numba compile the same lines, on arrays. So they use nothing but
integers, loops and indexing, and every name of a container says how it is indexed: ``usage[node][resource]``.

Quota arithmetic: Kueue's ``resource_node.go``. Order of the heads of the lines in one tree of cohorts: who
stays within its own nominal quota goes before who would borrow; among borrowers the one whose queue had
least so far for its weight (:func:`share_of`); then priority, then age, then the order of ids. A head that
is within its own nominal quota and does not fit keeps the room it waits for from everyone behind it, so what
was lent always comes back; it may also take it back (:func:`reclaim`), from borrowers first.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

NO_LIMIT: Final = -1
FACTOR: Final = 64830  # 65536 * 2**(-1/64): what is left of 65536 after a sixty-fourth of a half-life
STEPS: Final = 64
OLDEST: Final = 4096
NEVER: Final = 0
LOWER: Final = 1
ANY: Final = 2
BIGGEST: Final = 1 << 62

# Containers are lists when interpreted and arrays when compiled; no type that both share has indexing.
Ints = Any


class Tree(NamedTuple):
    """Queues (first) and cohorts. ``[node]``: parent (-1: none), root; ``[node][resource]``: the rest.

    ``local`` is what a node never lends, ``subtree`` what it has with everything below it.
    """

    parent: Ints
    root: Ints
    nominal: Ints
    borrowing: Ints
    local: Ints
    subtree: Ints


class Work(NamedTuple):
    """Workloads, by ``[workload]``. ``serial`` is the rank of the id, ``user`` a row of `Board.user_used`.

    ``first`` and ``ways`` are rows of ``requests[way][resource]``: the ways to place it, in order. ``asked``
    is ``[workload][capped resource]``. ``way`` is the one in use, of a workload that holds quota.
    """

    queue: Ints
    user: Ints
    priority: Ints
    created: Ints
    serial: Ints
    first: Ints
    ways: Ints
    requests: Ints
    asked: Ints
    way: Ints
    admitted: Ints
    evicting: Ints
    protected: Ints


class Board(NamedTuple):
    """What changes. ``lines[queue][place]`` are workloads in queue order, from ``front[queue]`` to before

    ``length[queue]``.

    ``value``, ``rate``, ``at`` (by queue) are the fair-share meter; ``closed`` queues admit nothing now.
    """

    usage: Ints
    user_used: Ints
    value: Ints
    rate: Ints
    at: Ints
    closed: Ints
    lines: Ints
    front: Ints
    length: Ints
    running: Ints


class Terms(NamedTuple):
    """The settings, by queue where they are a container. ``cap[queue][capped resource]``: -1 is no cap."""

    weight: Ints
    reclaim: Ints
    within: Ints
    lowered: Ints
    cap: Ints
    cost: Ints
    half_life: int
    patience: int


class Scratch(NamedTuple):
    """Room for a cycle to work in, by queue; ``kept`` and ``chosen`` by workload (:func:`scratch_for`)."""

    cursor: Ints
    head: Ints
    way: Ints
    fits: Ints
    borrows: Ints
    done: Ints
    share: Ints
    reserved: Ints
    stale: Ints
    kept: Ints
    chosen: Ints


def scratch_for(queues: int, items: int) -> Scratch:
    """Scratch of zeros for so many queues and workloads."""
    by_item = ("kept", "chosen")
    return Scratch(*([0] * (items if name in by_item else queues) for name in Scratch._fields))


def grown(parents: Any, nominal: Any, borrowing: Any, lending: Any) -> Tree:
    """A tree with roots, guaranteed parts and subtree quotas worked out."""
    nodes, count = range(len(parents)), len(nominal[0]) if nominal else 0
    depth = []
    root = []
    for node in nodes:
        above, steps = node, 0
        while parents[above] >= 0:
            above, steps = parents[above], steps + 1
        depth.append(steps)
        root.append(above)
    local = [[0] * count for _ in nodes]
    subtree = [list(row) for row in nominal]
    for node in sorted(nodes, key=lambda n: -depth[n]):
        for resource in range(count):
            if lending[node][resource] != NO_LIMIT and parents[node] >= 0:
                local[node][resource] = max(0, subtree[node][resource] - lending[node][resource])
            if parents[node] >= 0:
                subtree[parents[node]][resource] += subtree[node][resource] - local[node][resource]
    return Tree(parents, root, nominal, borrowing, local, subtree)


def room(tree: Tree, usage: Ints, node: int, resource: int) -> int:
    """How much more ``node`` may use; negative where its quota is below its use."""
    most = BIGGEST
    own = 0
    while tree.parent[node] >= 0:
        used = usage[node][resource]
        local = tree.local[node][resource]
        if local > used:
            own += local - used
        limit = tree.borrowing[node][resource]
        if limit >= 0:
            lent = tree.subtree[node][resource] - local
            beyond = used - local
            if beyond < 0:
                beyond = 0
            if own + lent - beyond + limit < most:
                most = own + lent - beyond + limit
        node = tree.parent[node]
    rest = own + tree.subtree[node][resource] - usage[node][resource]
    if rest < most:
        most = rest
    return most


def take(tree: Tree, usage: Ints, node: int, resource: int, amount: int) -> None:
    """Add ``amount`` to the use of ``node`` and, beyond what it never lends, of its cohorts."""
    while amount > 0:
        free = tree.local[node][resource] - usage[node][resource]
        usage[node][resource] += amount
        if free > 0:
            amount -= free
        node = tree.parent[node]
        if node < 0:
            return


def give(tree: Tree, usage: Ints, node: int, resource: int, amount: int) -> None:
    """Undo :func:`take`."""
    while amount > 0:
        beyond = usage[node][resource] - tree.local[node][resource]
        usage[node][resource] -= amount
        if beyond < amount:
            amount = beyond
        node = tree.parent[node]
        if node < 0:
            return


def take_all(tree: Tree, usage: Ints, node: int, request: Ints) -> None:
    """:func:`take` of each resource of ``request``."""
    for resource in range(len(request)):
        if request[resource] > 0:
            take(tree, usage, node, resource, request[resource])


def give_all(tree: Tree, usage: Ints, node: int, request: Ints) -> None:
    """:func:`give` of each resource of ``request``."""
    for resource in range(len(request)):
        if request[resource] > 0:
            give(tree, usage, node, resource, request[resource])


def fits(tree: Tree, usage: Ints, node: int, request: Ints) -> bool:
    """Whether all of ``request`` has room; a request of nothing always does."""
    for resource in range(len(request)):
        if request[resource] > 0 and request[resource] > room(tree, usage, node, resource):
            return False
    return True


def borrows(tree: Tree, usage: Ints, node: int, request: Ints) -> bool:
    """Whether ``request`` would take ``node`` beyond its nominal quota of anything."""
    for resource in range(len(request)):
        if request[resource] > 0 and usage[node][resource] + request[resource] > tree.nominal[node][resource]:
            return True
    return False


def place_among(
    tree: Tree, usage: Ints, node: int, requests: Ints, first: int, ways: int
) -> tuple[int, bool, bool]:
    """The way to place a request now: (row of ``requests``, whether it fits, whether it borrows).

    The first way that fits within nominal quota, else the first that fits, else the first within nominal
    quota to wait for, else the first.
    """
    borrowing = -1
    waiting = -1
    for way in range(first, first + ways):
        lent = borrows(tree, usage, node, requests[way])
        if fits(tree, usage, node, requests[way]):
            if not lent:
                return way, True, False
            if borrowing < 0:
                borrowing = way
        elif not lent and waiting < 0:
            waiting = way
    if borrowing >= 0:
        return borrowing, True, True
    if waiting >= 0:
        return waiting, False, False
    return first, False, True


def placed(tree: Tree, usage: Ints, work: Work, item: int) -> tuple[int, bool, bool]:
    """:func:`place_among` the ways of a workload."""
    return place_among(tree, usage, work.queue[item], work.requests, work.first[item], work.ways[item])


def decayed(value: int) -> int:
    """``value`` after a sixty-fourth of its half-life; split so that 64 bits hold every step."""
    return (value >> 16) * FACTOR + (((value & 65535) * FACTOR) >> 16)


def advance(value: int, rate: int, at: int, now: int, half_life: int) -> int:
    """What a meter that stood at ``value`` at ``at`` shows ``now``, having run at ``rate``. Times in ms.

    Use is added as it happens and halves with the half-life, in 64 steps at fixed moments, so that it does
    not matter how often it is looked at. A clock that went back counts nothing.
    """
    if now <= at:
        return value
    step = half_life // STEPS
    if step < 1:
        step = 1
    if now - at > OLDEST * step:
        value = 0
        at = (now // step - OLDEST) * step
    while True:
        edge = (at // step + 1) * step
        if edge > now:
            return value + rate * (now - at)
        value = decayed(value + rate * (edge - at))
        at = edge


def brought_up(board: Board, terms: Terms, queue: int, now: int) -> None:
    """Bring a queue's meter to ``now``; the next look then has less to count."""
    if now > board.at[queue]:
        board.value[queue] = advance(
            board.value[queue], board.rate[queue], board.at[queue], now, terms.half_life
        )
        board.at[queue] = now


def share_of(board: Board, terms: Terms, queue: int, now: int) -> int:
    """What a queue had, for its weight: decayed use, and what it holds now as if held for one half-life."""
    brought_up(board, terms, queue, now)
    return int((board.value[queue] + board.rate[queue] * terms.half_life) // terms.weight[queue])


def rate_of(terms: Terms, request: Ints) -> int:
    """What holding ``request`` adds to a meter in one millisecond."""
    rate = 0
    for resource in range(len(request)):
        rate += terms.cost[resource] * request[resource]
    return rate


def charge(board: Board, terms: Terms, queue: int, change: int, now: int) -> None:
    """Bring a queue's meter to ``now`` and change its rate."""
    brought_up(board, terms, queue, now)
    board.rate[queue] += change


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
    """The first workload in a line, at or behind the cursor, that does not wait for its user's cap; or -1.

    One that its user's cap never permits ends the line here (-1): it is refused before others may pass it.
    """
    while scratch.cursor[queue] < board.length[queue]:
        item = int(board.lines[queue][scratch.cursor[queue]])
        state = user_state(work, board, terms, item)
        if state == 0:
            return item
        if state == 2:
            return -1
        scratch.cursor[queue] += 1
    return -1


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

    Of other queues only what they borrowed of a resource that is short, and only for a workload within its
    own nominal quota (``lent`` False). What is being taken out already counts as gone: 0 when that is
    enough. Nobody goes in vain: with not enough to be had, nobody is chosen; and who turns out not to be
    needed stays.
    """
    home = work.queue[item]
    request = work.requests[way]
    usage = board.usage
    for place in range(running):
        other = board.running[place]
        scratch.kept[other] = 0
        if work.evicting[other] and tree.root[work.queue[other]] == tree.root[home]:
            give_all(tree, usage, work.queue[other], work.requests[work.way[other]])
    chosen = 0
    enough = fits(tree, usage, home, request)
    while not enough:
        best = -1
        for place in range(running):
            other = board.running[place]
            theirs = work.queue[other]
            if work.evicting[other] or work.protected[other] or scratch.kept[other]:
                continue
            if tree.root[theirs] != tree.root[home]:
                continue
            if theirs == home:
                if terms.within[home] == NEVER or work.priority[other] >= work.priority[item]:
                    continue
            elif lent or not may_take(work, terms, item, other):
                continue
            held = work.requests[work.way[other]]
            helps = False
            for resource in range(len(request)):
                if held[resource] > 0 and request[resource] > 0:
                    over = theirs == home or usage[theirs][resource] > tree.nominal[theirs][resource]
                    if over and request[resource] > room(tree, usage, home, resource):
                        helps = True
            if helps and (best < 0 or better_victim(work, scratch, home, other, best)):
                best = other
        if best < 0:
            break
        give_all(tree, usage, work.queue[best], work.requests[work.way[best]])
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
    for place in range(running):
        other = board.running[place]
        if work.evicting[other] and tree.root[work.queue[other]] == tree.root[home]:
            take_all(tree, usage, work.queue[other], work.requests[work.way[other]])
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
    for place in range(running):
        other = board.running[place]
        if work.evicting[other]:
            give_all(tree, usage, work.queue[other], work.requests[work.way[other]])
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
    for place in range(running):
        other = board.running[place]
        if work.evicting[other] or scratch.kept[other]:
            take_all(tree, usage, work.queue[other], work.requests[work.way[other]])
            scratch.kept[other] = 0
    return count


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
            if not board.closed[queue] and board.length[queue] > board.front[queue]:
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
        if (not lent and terms.reclaim[best] != NEVER) or terms.within[best] != NEVER:
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
    room,
    take,
    give,
    take_all,
    give_all,
    fits,
    borrows,
    place_among,
    placed,
    decayed,
    advance,
    brought_up,
    share_of,
    rate_of,
    charge,
    user_state,
    goes_before,
    next_head,
    may_take,
    better_victim,
    reclaim,
    overcommitted,
    cycle,
)
"""Every function that is compiled, each after those it calls."""
