"""Waiting lines of a replay: who joins, who leaves, who can never leave.

So that it also runs compiled (:mod:`compute_guard.replay.compiled`), it uses nothing but integers, loops and
indexing; every name of a container says how it is indexed: ``state[job]``.
"""

from __future__ import annotations

from typing import Final

from compute_guard.admission.board import Board, Scratch, Terms, Work
from compute_guard.quota.tree import Ints, Tree, fits
from compute_guard.replay.course import WAITING, Course


def ahead(work: Work, one: int, other: int) -> bool:
    """The order of a waiting line."""
    if work.priority[one] != work.priority[other]:
        return bool(work.priority[one] > work.priority[other])
    if work.created[one] != work.created[other]:
        return bool(work.created[one] < work.created[other])
    return bool(work.serial[one] < work.serial[other])


def place_in(work: Work, line: Ints, job: int, front: int, length: int) -> int:
    """Where a job belongs in a line. It is looked for from the end: most jobs have just arrived."""
    if length == front or not ahead(work, job, line[length - 1]):
        return length
    low, high = front, length - 1
    while low < high:
        middle = (low + high) // 2
        if ahead(work, job, line[middle]):
            high = middle
        else:
            low = middle + 1
    return low


def join(work: Work, board: Board, job: int) -> None:
    """Put a job into its line."""
    queue = work.queue[job]
    line = board.lines[queue]
    if board.length[queue] == len(line):
        # The array is full at its end: move what still waits to its beginning.
        front = board.front[queue]
        for spot in range(front, board.length[queue]):
            line[spot - front] = line[spot]
        board.length[queue] -= front
        board.front[queue] = 0
    spot = place_in(work, line, job, board.front[queue], board.length[queue])
    for behind in range(board.length[queue], spot, -1):
        line[behind] = line[behind - 1]
    line[spot] = job
    board.length[queue] += 1


def drop_picked(board: Board, scratch: Scratch, course: Course, queue: int) -> None:
    """Take who was picked out of a line; only jobs before the cursor can have been."""
    line = board.lines[queue]
    spot = scratch.cursor[queue]
    target = spot
    while spot > board.front[queue]:
        spot -= 1
        if course.state[line[spot]] == WAITING:
            target -= 1
            line[target] = line[spot]
    board.front[queue] = target


def hopeless(tree: Tree, idle: Ints, work: Work, terms: Terms, job: int) -> bool:
    """Whether a job could not even run alone."""
    queue = work.queue[job]
    for place in range(len(terms.cap[queue])):
        if 0 <= terms.cap[queue][place] < work.asked[job][place]:
            return True
    for way in range(work.first[job], work.first[job] + work.ways[job]):
        if fits(tree, idle, queue, work.requests[way]):
            return False
    return True


LINES_KERNEL: Final = (ahead, place_in, join, drop_picked, hopeless)
"""Every function here that is compiled, each after those it calls."""
