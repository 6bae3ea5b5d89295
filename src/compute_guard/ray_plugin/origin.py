"""Where a driver really comes from, as far as this machine can see: its process, not its word.

A driver writes its own job metadata, so a claimed submission id proves nothing. On the head's machine the
process tree does: a submission's driver descends from that submission's supervisor. Process ids are the
driver's own statement too, so they are only looked at, never killed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from compute_guard.ledger.reconcile import INTERNAL_NAMESPACE, Driver

AGENT_TITLE = "ray::DashboardAgent"  # ray_constants.AGENT_PROCESS_TYPE_DASHBOARD_AGENT


class Origins:
    """Judges each driver once. ``supervisors`` gives Ray's supervisor process ids by submission id."""

    def __init__(self, gcs_address: str, supervisors: Callable[[], Mapping[str, int]]) -> None:
        self._here = {gcs_address.rpartition(":")[0], *own_addresses()}
        self._supervisors = supervisors
        self._known: dict[str, bool] = {}

    def judged(self, drivers: Iterable[Driver]) -> list[Driver]:
        """The drivers with their `origin` filled in; None where it cannot be seen from here."""
        drivers = list(drivers)
        alive = {driver.job_id for driver in drivers}
        self._known = {job_id: origin for job_id, origin in self._known.items() if job_id in alive}
        new = [d for d in drivers if d.job_id not in self._known and d.node_ip in self._here]
        supervisors = self._supervisors() if any(d.submission_id for d in new) else {}
        for driver in new:
            origin = self._judge(driver, supervisors)
            if origin is not None:
                self._known[driver.job_id] = origin
        return [replace(driver, origin=self._known.get(driver.job_id)) for driver in drivers]

    def _judge(self, driver: Driver, supervisors: Mapping[str, int]) -> bool | None:
        parents = _line_of(driver.pid)
        if not parents:
            return None  # gone, or not visible
        if driver.namespace.startswith(INTERNAL_NAMESPACE) and not driver.submission_id:
            return _is_dashboard_agent(driver.pid)
        supervisor = supervisors.get(driver.submission_id)
        if supervisor is None:
            return None
        return supervisor in parents


def _line_of(pid: int) -> set[int]:
    """``pid``, its ancestors, its session's leader and that one's ancestors; empty when it cannot be seen.

    The session is looked at because a driver put into the background outlives its shell, but stays in the
    session that Ray made for the entrypoint.
    """
    line = _ancestors(pid)
    if not line:
        return set()
    try:
        return line | _ancestors(os.getsid(pid))
    except OSError:
        return line


def _ancestors(pid: int) -> set[int]:
    import psutil

    try:
        process = psutil.Process(pid)
        return {pid, *(parent.pid for parent in process.parents())}
    except psutil.Error:
        return set()


def _is_dashboard_agent(pid: int) -> bool | None:
    """Whether ``pid`` is a raylet's child that calls itself the dashboard agent; None if not seen."""
    import psutil

    try:
        process = psutil.Process(pid)
        parent = process.parent()
        title = " ".join(process.cmdline())
        return parent is not None and parent.name() == "raylet" and title.startswith(AGENT_TITLE)
    except psutil.Error:
        return None


def own_addresses() -> set[str]:
    """This machine's addresses."""
    import psutil

    return {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
