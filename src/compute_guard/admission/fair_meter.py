"""How much each queue has had: use that is counted as it happens and halves with a half-life. Integers.

So that it also runs compiled (:mod:`compute_guard.replay.compiled`), it uses nothing but integers, loops and
indexing; every name of a container says how it is indexed: ``usage[node][resource]``.
"""

from __future__ import annotations

from typing import Final

from compute_guard.admission.board import Board, Terms
from compute_guard.quota.tree import Ints

FACTOR: Final = 64830  # 65536 * 2**(-1/64): what is left of 65536 after a sixty-fourth of a half-life
STEPS: Final = 64
OLDEST: Final = 4096


def decayed(value: int) -> int:
    """``value`` after a sixty-fourth of its half-life; split so that 64 bits hold every step."""
    return (value >> 16) * FACTOR + (((value & 65535) * FACTOR) >> 16)


def advance(value: int, rate: int, at: int, now: int, half_life: int) -> int:
    """What a meter that stood at ``value`` at ``at`` shows ``now``, having run at ``rate``. Times in ms.

    Use is added as it happens and halves with the half-life, in 64 steps at fixed moments, so that it does
    not matter how often it is looked at. A clock that went back counts nothing.
    """
    if now <= at or (value == 0 and rate == 0):
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


METER_KERNEL: Final = (decayed, advance, brought_up, share_of, rate_of, charge)
"""Every function here that is compiled, each after those it calls."""
