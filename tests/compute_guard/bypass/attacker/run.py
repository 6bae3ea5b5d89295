"""The attacker's entrypoint: every attempt once, the outcomes as the last line of the log."""

from __future__ import annotations

import json

import ray

ray.init(log_to_driver=False)

from attacker import machine, placing, protocol  # noqa: E402, F401 - attempts register themselves
from attacker.tools import run_all  # noqa: E402

print("RESULTS " + json.dumps(run_all()), flush=True)
