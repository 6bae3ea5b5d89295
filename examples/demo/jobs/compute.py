"""A job that works for the given number of seconds in a Ray task, and ends."""

from __future__ import annotations

import sys
import time

import numpy as np
import ray

ray.init(logging_level="warning")


@ray.remote(num_cpus=0)
def work(seconds: float) -> int:
    rounds, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        np.linalg.norm(np.ones((64, 64)) @ np.ones((64, 64)))
        time.sleep(0.05)
        rounds += 1
    return rounds


print(f"{ray.get(work.remote(float(sys.argv[1])))} rounds done")
