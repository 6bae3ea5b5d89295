"""A trace and what becomes of it, as containers of integers.

So that it also runs compiled (:mod:`compute_guard.replay.compiled`), it uses nothing but integers, loops and
indexing; every name of a container says how it is indexed: ``end[job]``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from compute_guard.quota.tree import Ints

ABSENT: Final = 0
WAITING: Final = 1
RUNNING: Final = 2
ENDED: Final = 3
REJECTED: Final = 4


class Course(NamedTuple):
    """A trace and what becomes of it, by job. ``order`` are jobs by arrival; times in ms.

    ``left`` is work still to do; ``began`` this run, ``first`` the first one (-1: never), ``end`` of this
    run, ``done`` the end of all; ``ran`` is time on the cluster, ``stops`` how often it was taken out.
    """

    order: Ints
    arrival: Ints
    left: Ints
    state: Ints
    began: Ints
    first: Ints
    end: Ints
    done: Ints
    ran: Ints
    stops: Ints


class Grace(NamedTuple):
    """By queue: time between notice and stop, whether work is kept then, and whether the job waits again."""

    grace: Ints
    keeps: Ints
    requeue: Ints


class Budgets(NamedTuple):
    """By queue: GPU-time that may be used (-1: no budget) and its meter; ``gpu`` is 1 for columns of GPUs."""

    limit: Ints
    half_life: Ints
    value: Ints
    rate: Ints
    at: Ints
    gpu: Ints
