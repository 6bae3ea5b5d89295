"""CPUs that workers gave back while they wait in ``ray.get``: Ray lends them on, and so must the book. Pure.

A task that waits for the tasks it started holds its lease, but not its CPUs. Without this, a queue full of
such parents would wait for children that wait for the queue. The raylet does not say which worker waits; it
says what the node has in use. What is leased beyond that is lent, and where one workload alone has leases
on the node, it is that workload's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from compute_guard.quota.limits import CPU
from compute_guard.ray_plugin.gates.grants import Grant

_GROUP = re.compile(r"^CPU_group_[0-9a-f]{36}$")


def lent_by(
    grants: Iterable[Grant], total: Mapping[str, float], available: Mapping[str, float]
) -> tuple[str, int]:
    """(workload, thousandths of CPUs) that its waiting workers on this node have given back."""
    settled = [grant for grant in grants if grant.worker and grant.amounts.get(CPU, 0)]
    workloads = {grant.workload for grant in settled}
    if len(workloads) != 1:
        return "", 0
    leased = sum(grant.amounts[CPU] for grant in settled)
    bundles = sum(value for name, value in total.items() if _GROUP.match(name))
    used = total.get("CPU", 0.0) - available.get("CPU", 0.0) - bundles
    return next(iter(workloads)), max(0, leased - round(used * 1000))
