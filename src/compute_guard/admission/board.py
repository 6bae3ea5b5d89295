"""What a scheduling cycle works on, as containers of integers: workloads, waiting lines, settings.

So that it also runs compiled (:mod:`compute_guard.replay.compiled`), it uses nothing but integers, loops and
indexing; every name of a container says how it is indexed: ``usage[node][resource]``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from compute_guard.quota.tree import Ints, Tree, place_among

NEVER: Final = 0
LOWER: Final = 1
ANY: Final = 2

OPEN: Final = 0
NO_GPUS: Final = 1
SHUT: Final = 2


class Work(NamedTuple):
    """Workloads, by ``[workload]``. ``serial`` is the rank of the id, ``user`` a row of `Board.user_used`.

    ``first`` and ``ways`` are rows of ``requests[way][resource]``: the ways to place it, in order. ``asked``
    is ``[workload][capped resource]``. ``spends`` is 1 where it asks for GPUs, which a budget counts.
    ``way`` is the one in use, of a workload that holds quota.
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
    spends: Ints
    way: Ints
    admitted: Ints
    evicting: Ints
    protected: Ints


class Board(NamedTuple):
    """What changes. ``lines[queue][place]`` are workloads in queue order, from ``front[queue]`` to before

    ``length[queue]``.

    ``value``, ``rate``, ``at`` (by queue) are the fair-share meter; ``closed`` says what a queue admits now:
    all (`OPEN`), nothing (`SHUT`, on hold), or nothing with GPUs (`NO_GPUS`, its budget is spent).
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
    """The settings, by queue where they are a container. ``cap[queue][capped resource]``: -1 is no cap.

    ``fair``: 1 where a borrower may take from one that had more for its weight.
    """

    weight: Ints
    reclaim: Ints
    within: Ints
    lowered: Ints
    cap: Ints
    cost: Ints
    half_life: int
    patience: int
    fair: int


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
    leaving: Ints
    helps: Ints
    kept: Ints
    chosen: Ints


def scratch_for(queues: int, items: int) -> Scratch:
    """Scratch of zeros for so many queues and workloads."""
    by_item = ("kept", "chosen")
    return Scratch(*([0] * (items if name in by_item else queues) for name in Scratch._fields))


def placed(tree: Tree, usage: Ints, work: Work, item: int) -> tuple[int, bool, bool]:
    """:func:`place_among` the ways of a workload."""
    return place_among(tree, usage, work.queue[item], work.requests, work.first[item], work.ways[item])
