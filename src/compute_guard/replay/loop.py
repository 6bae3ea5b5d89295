"""The event loop of what-if replays: the same cycle as live admission, driven by a trace instead of by Ray.

Written like :mod:`compute_guard.admission.cycle`, so that it runs as it stands (:data:`INTERPRETED`) and
compiled (:mod:`compute_guard.replay.compiled`); a test holds both to the same answers. Time is in
milliseconds. At one moment first what ends gives its quota back, then what arrives joins its line, then the
cycle runs in every tree of cohorts that changed.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Final

from compute_guard.admission.board import NO_GPUS, OPEN, Board, Scratch, Terms, Work
from compute_guard.admission.cycle import cycle
from compute_guard.admission.fair_meter import advance, charge, rate_of
from compute_guard.quota.tree import BIGGEST, Ints, Tree, give_all
from compute_guard.replay.agenda import Agenda, risen, sunk
from compute_guard.replay.course import ABSENT, ENDED, REJECTED, RUNNING, WAITING, Budgets, Course, Grace
from compute_guard.replay.lines import drop_picked, hopeless, join

CHECK_MS: Final = 900_000  # how often queues whose budget is spent are looked at again


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
                refills = board.closed[queue] == NO_GPUS and budgets.limit[queue] > 0
                if refills and board.length[queue] > board.front[queue]:
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
                budgets.value[queue] = advance(
                    budgets.value[queue],
                    budgets.rate[queue],
                    budgets.at[queue],
                    now,
                    budgets.half_life[queue],
                )
                budgets.at[queue] = now  # the next look has less to count
                shut = NO_GPUS if budgets.value[queue] >= budgets.limit[queue] else OPEN
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


LOOP_KERNEL: Final = (gpus_of, meter, leave, replay)
"""Every function here that is compiled, each after those it calls."""
INTERPRETED: Final = SimpleNamespace(replay=replay, cycle=cycle)
