"""Which running job ends next: a heap.

So that it also runs compiled (:mod:`compute_guard.replay.compiled`), it uses nothing but integers, loops and
indexing; every name of a container says how it is indexed: ``end[job]``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from compute_guard.quota.tree import Ints
from compute_guard.replay.course import Course


class Agenda(NamedTuple):
    """Running jobs by end, as a heap: ``heap[i]``, ``place[job]`` in it; ``seat[job]`` in `Board.running`."""

    heap: Ints
    place: Ints
    seat: Ints


def earlier(course: Course, one: int, other: int) -> bool:
    """The heap's order: by end, then by number."""
    if course.end[one] != course.end[other]:
        return bool(course.end[one] < course.end[other])
    return bool(one < other)


def risen(course: Course, agenda: Agenda, spot: int) -> int:
    """Move a job up the heap as far as its end says; where it then is."""
    job = agenda.heap[spot]
    while spot > 0:
        above = (spot - 1) // 2
        if not earlier(course, job, agenda.heap[above]):
            break
        agenda.heap[spot] = agenda.heap[above]
        agenda.place[agenda.heap[spot]] = spot
        spot = above
    agenda.heap[spot] = job
    agenda.place[job] = spot
    return spot


def sunk(course: Course, agenda: Agenda, spot: int, size: int) -> None:
    """Move a job down the heap as far as its end says."""
    job = agenda.heap[spot]
    while True:
        below = 2 * spot + 1
        if below >= size:
            break
        if below + 1 < size and earlier(course, agenda.heap[below + 1], agenda.heap[below]):
            below += 1
        if not earlier(course, agenda.heap[below], job):
            break
        agenda.heap[spot] = agenda.heap[below]
        agenda.place[agenda.heap[spot]] = spot
        spot = below
    agenda.heap[spot] = job
    agenda.place[job] = spot


AGENDA_KERNEL: Final = (earlier, risen, sunk)
"""Every function here that is compiled, each after those it calls."""
