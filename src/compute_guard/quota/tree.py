"""Quota arithmetic on plain integers: what a queue may use in its tree of cohorts.

Kueue's ``pkg/cache/scheduler/resource_node.go``. So that it also runs compiled
(:mod:`compute_guard.replay.compiled`), it uses nothing but integers, loops and indexing; every name of a
container says how it is indexed: ``usage[node][resource]``.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

NO_LIMIT: Final = -1
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


TREE_KERNEL: Final = (room, take, give, take_all, give_all, fits, borrows, place_among)
"""Every function here that is compiled, each after those it calls."""
