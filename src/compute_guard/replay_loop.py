"""The event loop of what-if replays: the same cycle as live admission, driven by a trace instead of by Ray.

Written like :mod:`compute_guard.cycle`, so that it runs as it stands (:data:`INTERPRETED`) and compiled by
numba (:func:`compiled`); a test holds both to the same answers. Time is in milliseconds. At one moment first
what ends gives its quota back, then what arrives joins its line, then the cycle runs in every tree of
cohorts that changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any, Final, NamedTuple

from compute_guard import board, fair_meter, quota_tree, victims
from compute_guard import cycle as core
from compute_guard.board import Board, Scratch, Terms, Work
from compute_guard.cycle import cycle
from compute_guard.fair_meter import advance, charge, rate_of
from compute_guard.quota_tree import BIGGEST, Ints, Tree, fits, give_all

ABSENT: Final = 0
WAITING: Final = 1
RUNNING: Final = 2
ENDED: Final = 3
REJECTED: Final = 4
CHECK_MS: Final = 900_000  # how often queues whose budget is spent are looked at again


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


class Agenda(NamedTuple):
    """Running jobs by end, as a heap: ``heap[i]``, ``place[job]`` in it; ``seat[job]`` in `Board.running`."""

    heap: Ints
    place: Ints
    seat: Ints


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


def ahead(work: Work, one: int, other: int) -> bool:
    """The order of a waiting line."""
    if work.priority[one] != work.priority[other]:
        return bool(work.priority[one] > work.priority[other])
    if work.created[one] != work.created[other]:
        return bool(work.created[one] < work.created[other])
    return bool(work.serial[one] < work.serial[other])


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
    spot = board.length[queue]
    while spot > board.front[queue] and ahead(work, job, line[spot - 1]):
        line[spot] = line[spot - 1]
        spot -= 1
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


def gpus_of(budgets: Budgets, request: Ints) -> int:
    """What a request takes from a budget in one millisecond."""
    rate = 0
    for resource in range(len(request)):
        rate += budgets.gpu[resource] * request[resource]
    return rate


def meter(
    board: Board, terms: Terms, budgets: Budgets, queue: int, request: Ints, sign: int, now: int
) -> None:
    """Let a queue's meters run faster (``sign`` 1) or slower (-1) from now on."""
    if sign < 0:
        charge(board, terms, queue, -rate_of(terms, request), now)
    if budgets.limit[queue] >= 0:
        budgets.value[queue] = advance(
            budgets.value[queue], budgets.rate[queue], budgets.at[queue], now, budgets.half_life[queue]
        )
        budgets.at[queue] = now
        budgets.rate[queue] += sign * gpus_of(budgets, request)


def leave(
    tree: Tree,
    work: Work,
    board: Board,
    terms: Terms,
    budgets: Budgets,
    agenda: Agenda,
    job: int,
    size: int,
    now: int,
) -> None:
    """Give a running job's quota back. ``size`` is how many run."""
    queue = work.queue[job]
    request = work.requests[work.way[job]]
    give_all(tree, board.usage, queue, request)
    for place in range(len(terms.cap[queue])):
        board.user_used[work.user[job]][place] -= work.asked[job][place]
    meter(board, terms, budgets, queue, request, -1, now)
    seat = agenda.seat[job]
    last = board.running[size - 1]
    board.running[seat] = last
    agenda.seat[last] = seat


def replay(
    tree: Tree,
    work: Work,
    board: Board,
    terms: Terms,
    scratch: Scratch,
    course: Course,
    agenda: Agenda,
    grace: Grace,
    budgets: Budgets,
    idle: Ints,
    dirty: Ints,
    picks: Ints,
    victims: Ints,
    causes: Ints,
    limits: Ints,
) -> int:
    """Run a trace to its end; the number of cycles. ``limits[0]``: stop at this many events (0: no limit).

    ``limits[1]``: stop when this job has begun (-1: none). ``limits[2]`` tells the last moment looked at.
    """
    jobs = len(course.order)
    queues = len(terms.weight)
    running = 0
    for job in range(jobs):
        if course.state[job] == RUNNING:
            agenda.seat[job] = running
            board.running[running] = job
            agenda.heap[running] = job
            risen(course, agenda, running)
            running += 1
    for queue in range(queues):
        dirty[tree.root[queue]] = 1
    arrived = 0
    cycles = 0
    events = 0
    now = limits[2]
    check = BIGGEST
    for queue in range(queues):
        if budgets.limit[queue] >= 0:
            check = now + CHECK_MS
    begun = False
    while not begun and (limits[0] == 0 or events < limits[0]):
        moment = BIGGEST
        if events == 0:
            moment = now
        if arrived < jobs and course.arrival[course.order[arrived]] < moment:
            moment = course.arrival[course.order[arrived]]
        if running > 0 and course.end[agenda.heap[0]] < moment:
            moment = course.end[agenda.heap[0]]
        waiting = False
        if check < moment:
            for queue in range(queues):
                if board.closed[queue] and board.length[queue] > board.front[queue]:
                    waiting = True
            if waiting:
                moment = check
        if moment == BIGGEST:
            break
        if moment > now:
            now = moment
        events += 1
        while running > 0 and course.end[agenda.heap[0]] <= now:
            job = agenda.heap[0]
            queue = work.queue[job]
            leave(tree, work, board, terms, budgets, agenda, job, running, now)
            running -= 1
            agenda.heap[0] = agenda.heap[running]
            agenda.place[agenda.heap[0]] = 0
            sunk(course, agenda, 0, running)
            spent = now - course.began[job]
            course.ran[job] += spent
            dirty[tree.root[queue]] = 1
            if work.evicting[job] and spent < course.left[job]:
                work.evicting[job] = 0
                course.stops[job] += 1
                if grace.keeps[queue]:
                    course.left[job] -= spent
                if grace.requeue[queue]:
                    course.state[job] = WAITING
                    join(work, board, job)
                    continue
            work.evicting[job] = 0
            course.state[job] = ENDED
            course.done[job] = now
        while arrived < jobs and course.arrival[course.order[arrived]] <= now:
            job = course.order[arrived]
            arrived += 1
            if course.state[job] != ABSENT:
                continue  # it runs or waits from the beginning
            if hopeless(tree, idle, work, terms, job):
                course.state[job] = REJECTED
                continue
            course.state[job] = WAITING
            join(work, board, job)
            dirty[tree.root[work.queue[job]]] = 1
        if now >= check:
            check = now + CHECK_MS
        for queue in range(queues):
            if budgets.limit[queue] >= 0:
                used = advance(
                    budgets.value[queue],
                    budgets.rate[queue],
                    budgets.at[queue],
                    now,
                    budgets.half_life[queue],
                )
                shut = 1 if used >= budgets.limit[queue] else 0
                if shut != board.closed[queue]:
                    board.closed[queue] = shut
                    dirty[tree.root[queue]] = 1
        for root in range(len(dirty)):
            if not dirty[root]:
                continue
            dirty[root] = 0
            cycles += 1
            picked, gone = cycle(
                tree, work, board, terms, scratch, root, running, now, picks, victims, causes
            )
            for place in range(picked):
                job = picks[place]
                queue = work.queue[job]
                meter(board, terms, budgets, queue, work.requests[work.way[job]], 1, now)
                course.state[job] = RUNNING
                course.began[job] = now
                if course.first[job] < 0:
                    course.first[job] = now
                course.end[job] = now + course.left[job]
                work.admitted[job] = now
                agenda.seat[job] = running
                board.running[running] = job
                agenda.heap[running] = job
                risen(course, agenda, running)
                running += 1
                if job == limits[1]:
                    begun = True
            if picked > 0:
                for queue in range(queues):
                    if tree.root[queue] == root and scratch.cursor[queue] > board.front[queue]:
                        drop_picked(board, scratch, course, queue)
            for place in range(gone):
                job = victims[place]
                stop = now + grace.grace[work.queue[job]]
                if stop < course.end[job]:
                    course.end[job] = stop
                    risen(course, agenda, agenda.place[job])
    limits[2] = now
    return cycles


LOOP: Final = (
    earlier,
    risen,
    sunk,
    ahead,
    join,
    drop_picked,
    hopeless,
    gpus_of,
    meter,
    leave,
    replay,
)
"""The loop's own functions, each after those it calls."""
INTERPRETED: Final = SimpleNamespace(replay=replay, cycle=cycle)


@cache
def compiled() -> SimpleNamespace:
    """The same functions, compiled; the machine code is kept beside this file for the next process."""
    import numba

    sources = (quota_tree, board, fair_meter, victims, core)
    scope: dict[str, Any] = {}
    for source in sources:
        scope |= vars(source)
    scope |= globals()
    # numba judges by the age of a function's own file whether kept code is stale; these call across files.
    files = (*(str(source.__file__) for source in sources), __file__)
    text = b"".join(Path(file).read_bytes() for file in files)
    mark = hashlib.sha256(text).hexdigest()[:12]
    for function in (*core.KERNEL, *LOOP):
        own: Callable[..., Any] = FunctionType(function.__code__, scope, function.__name__)
        own.__module__ = function.__module__
        own.__qualname__ = f"{function.__name__}_{mark}"
        # Only what Python calls needs a way in from Python: unpacking so many arrays is a sixth of compiling.
        inner = function not in (replay, cycle)
        scope[function.__name__] = numba.njit(cache=True, no_cpython_wrapper=inner, no_cfunc_wrapper=True)(
            own
        )
    return SimpleNamespace(replay=scope["replay"], cycle=scope["cycle"])
