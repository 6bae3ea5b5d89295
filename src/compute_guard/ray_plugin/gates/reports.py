"""The head's side of leases that nodes grant by themselves (:mod:`.allowance`): the same amounts, moved.

What a node keeps beyond its leases is one more row of the lease book, so quota is counted as if it were in
use. A report only moves amounts between that row and leases of the same workload on the same node, or gives
some back. A node alone says what it holds: what the head learns of its workers and jobs, it tells the node.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from compute_guard.ray_plugin.gates.book import Lease, LeaseBook
from compute_guard.ray_plugin.gates.link import Desk

logger = logging.getLogger(__name__)


class Reports:
    """Books what nodes report, and tells nodes what they can no longer have, once there is a ``desk``."""

    def __init__(self, book: LeaseBook) -> None:
        self._book = book
        self._terms = ""
        self.desk: Desk | None = None

    def take(self, node: str, granted: Iterable[Lease], message: Mapping[str, Any]) -> set[str]:
        """Book a report of ``node``, whose new leases are ``granted``. The workloads it gives back from."""
        changes: dict[str, dict[str, int]] = {}
        for lease_id in message["returned"]:
            lease = self._book.get(lease_id)
            if lease is not None and lease.node == node:
                self._book.drop(lease_id)
                _add(changes, lease.workload, lease.amounts, 1)
        for lease in granted:
            self._book.add(lease)
            _add(changes, lease.workload, lease.amounts, -1)
        for workload, amounts in message["back"].items():
            _add(changes, workload, amounts, -1)
        for workload, change in changes.items():
            if not self._book.change_idle(node, workload, change) and self.desk is not None:
                logger.warning(
                    "%s has more of %s than is booked; it is to say anew what it has", node, workload
                )
                self.desk.hang_up(node)
        return set(message["back"])

    def terms(self, terms: str) -> None:
        """The terms in force, told when they have changed."""
        if terms != self._terms:
            self._terms = terms
            self._tell_all({"op": "terms", "terms": terms})

    def recall(self, workload: str) -> None:
        """Somebody waits for what nodes keep of a workload."""
        for node in self._book.idle_at(workload):
            if self.desk is not None:
                self.desk.tell(node, {"op": "recall", "workload": workload})

    def ask_anew(self, workload: str) -> None:
        """A workload has ended, or what was said of it holds no more."""
        self._tell_all({"op": "anew", "workload": workload})

    def job_over(self, job: str) -> None:
        """A driver has ended, and its leases with it; of placement groups the head knows itself."""
        self._book.drop_groups(job)
        self._tell_all({"op": "over", "job": job})

    def worker_gone(self, worker: str) -> None:
        """A worker has died; a lease so young that no report has named its worker is anybody's."""
        lease, message = self._book.of_worker(worker), {"op": "gone", "worker": worker}
        if lease is None:
            self._tell_all(message)
        elif self.desk is not None:
            self.desk.tell(lease.node, message)

    def _tell_all(self, message: Mapping[str, Any]) -> None:
        if self.desk is not None:
            for node in self.desk.connected():
                self.desk.tell(node, message)


def _add(changes: dict[str, dict[str, int]], workload: str, amounts: Mapping[str, int], sign: int) -> None:
    change = changes.setdefault(workload, {})
    for name, amount in amounts.items():
        change[name] = change.get(name, 0) + sign * amount
