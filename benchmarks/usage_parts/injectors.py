"""Events put into real series: eight kinds in two families. Thresholds were chosen with TUNING only.

An injector takes a generator and the utilisation (%) and memory (GiB) that were there, and gives what is seen
instead. The families differ in shape, not only in seed: a detector tuned on one has not seen the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Series = npt.NDArray[np.float64]
Injector = Callable[[np.random.Generator, Series, Series], tuple[Series, Series]]


def wander(rng: np.random.Generator, n: int, spread: float, memory: float = 0.6) -> Series:
    """An AR(1) of standard deviation ``spread``."""
    steps = rng.normal(0, spread * np.sqrt(1 - memory**2), n)
    for i in range(1, n):
        steps[i] += memory * steps[i - 1]
    return steps


def own_memory(rng: np.random.Generator, n: int) -> Series:
    """A miner that took the pod's place: little memory, held still."""
    return np.full(n, rng.uniform(1, 10))


def _full(rng, util, memory):  # noqa: ARG001 - every injector is asked alike
    n = len(util)
    level = 97 + wander(rng, n, 1.5)
    level[:: int(rng.integers(15, 40))] = rng.uniform(20, 60)
    return level, own_memory(rng, n)


def _capped(rng, util, memory):
    n = len(util)
    return rng.uniform(30, 80) + wander(rng, n, rng.uniform(0.5, 2.5)), memory.mean() + np.full(
        n, rng.uniform(1, 8)
    )


def _ramped(rng, util, memory):  # noqa: ARG001 - every injector is asked alike
    n, top, steps = len(util), rng.uniform(35, 95), int(rng.integers(4, 10))
    climb = np.floor(np.linspace(0, steps, n // 2, endpoint=False)) / steps * top + 5
    return np.r_[climb, np.full(n - n // 2, top)] + wander(rng, n, 1.5), own_memory(rng, n)


def _duty(rng, util, memory):  # noqa: ARG001 - every injector is asked alike
    n, period, share = len(util), int(rng.integers(4, 16)), rng.uniform(0.4, 0.8)
    on = (np.arange(n) + int(rng.integers(0, period))) % period < max(1, round(share * period))
    return np.where(on, rng.uniform(80, 99) + wander(rng, n, 2), rng.uniform(0, 8, n)), own_memory(rng, n)


def _beside(rng, util, memory):
    cap = rng.uniform(30, 75)
    held = np.where(util > 20, cap * 0.5, cap)
    return np.maximum(util, held) + wander(rng, len(util), 2), memory + rng.uniform(1, 8)


def _regime(rng, util, memory):
    n = len(util)
    load = rng.uniform(30, 60) * rng.gamma(6, 1 / 6, n) * (rng.random(n) > 0.08)
    return load, np.clip(memory + rng.uniform(-6, 6), 1, 80)


def _creep(rng, util, memory):
    way = np.linspace(0, 1, len(util)) ** rng.uniform(0.8, 1.3) + rng.normal(0, 0.006, len(util))
    return util, memory[0] + rng.uniform(6, 25) * np.maximum.accumulate(way)


def _hang(rng, util, memory):
    n = len(util)
    return np.full(n, rng.choice([100.0, 99.0, rng.uniform(88, 100)])), np.full(n, memory[0])


TUNING: Mapping[str, Injector] = {
    "mining full": _full,
    "mining capped": _capped,
    "mining ramped": _ramped,
    "mining duty-cycled": _duty,
    "mining beside work": _beside,
    "regime shift": _regime,
    "memory creep": _creep,
    "hang": _hang,
}


def _full_2(rng, util, memory):  # noqa: ARG001 - every injector is asked alike
    n = len(util)
    level = rng.uniform(88, 99) + wander(rng, n, 2, memory=0.9)
    for start in range(int(rng.integers(5, 50)), n, int(rng.integers(50, 90))):
        level[start : start + 3] = rng.uniform(0, 30)  # a new DAG is made
    return level, own_memory(rng, n)


def _capped_2(rng, util, memory):  # noqa: ARG001 - every injector is asked alike
    n = len(util)
    drift = 3 * np.sin(np.arange(n) / rng.uniform(15, 60) + rng.uniform(0, 6))
    return rng.uniform(35, 75) + drift + rng.normal(0, 1, n), own_memory(rng, n)


def _ramped_2(rng, util, memory):  # noqa: ARG001 - every injector is asked alike
    n, top = len(util), rng.uniform(40, 95)
    climb = top * (1 - np.exp(-np.arange(n) / rng.uniform(20, 60)))
    return climb + rng.normal(0, 2, n), own_memory(rng, n)


def _duty_2(rng, util, memory):  # noqa: ARG001 - every injector is asked alike
    """On and off for random lengths."""
    n = len(util)
    on, length = np.zeros(n, dtype=bool), 0
    busy = True
    while length < n:
        run = int(rng.integers(3, 11) if busy else rng.integers(2, 9))
        on[length : length + run] = busy
        length, busy = length + run, not busy
    return np.where(on, rng.uniform(85, 100) + rng.normal(0, 1.5, n), rng.uniform(0, 5, n)), own_memory(
        rng, n
    )


def _beside_2(rng, util, memory):
    return util * 0.7 + rng.uniform(30, 70) + rng.normal(0, 3, len(util)), memory + rng.uniform(2, 6)


def _regime_2(rng, util, memory):
    """The pod's own pattern, three to six times as loud, on a floor."""
    return util * rng.uniform(3, 6) + rng.uniform(10, 25) + rng.normal(0, 4, len(util)), memory


def _creep_2(rng, util, memory):
    """Small allocations at random times that are never freed."""
    n = len(util)
    grow = np.where(rng.random(n) < rng.uniform(0.3, 0.9), rng.uniform(0.05, 0.2, n), 0.0)
    return util, memory[0] + np.cumsum(grow)


def _hang_2(rng, util, memory):
    n = len(util)
    return rng.uniform(85, 100) + rng.normal(0, 0.3, n), np.full(n, memory[0])


HELD_OUT: Mapping[str, Injector] = {
    "mining full": _full_2,
    "mining capped": _capped_2,
    "mining ramped": _ramped_2,
    "mining duty-cycled": _duty_2,
    "mining beside work": _beside_2,
    "regime shift": _regime_2,
    "memory creep": _creep_2,
    "hang": _hang_2,
}
