"""What is reserved, as one transaction sees it: kept current while it reserves and gives back."""

from __future__ import annotations

from collections.abc import Mapping

from compute_guard.admission.snapshot import Snapshot
from compute_guard.admission.workload import Workload
from compute_guard.quota.limits import NOTHING, Amounts, Quotas, Way, total
from compute_guard.quota.tree import give, place_among, room, take


class Standing:
    """Reservations by queue and user, and queues on hold."""

    def __init__(
        self,
        quotas: Quotas,
        usage: Mapping[str, Amounts],
        user_usage: Mapping[tuple[str, str], Amounts],
        holds: Mapping[str, str],
    ) -> None:
        self.quotas = quotas
        self.usage = dict(usage)
        self._user_usage = dict(user_usage)
        self._holds = holds
        self._dense: list[list[int]] | None = None

    def way_for(self, workload: Workload, decided: Way | None = None) -> Way | None:
        """The way in which ``workload`` may be reserved now, None when it may not.

        ``decided`` is the only one that may be taken, where it is given. The arithmetic is that of
        :func:`compute_guard.admission.assessment.assess`, without its numbers for people.
        """
        if workload.queue not in self.quotas.queues or workload.queue in self._holds:
            return None
        way = decided or self._chosen(workload)
        dense, node = self._use(), self.quotas.nodes[workload.queue]
        mine = self._user_usage.get((workload.queue, workload.user), NOTHING)
        for asked in self.quotas.asked(workload.queue, way.amounts):
            if not asked.requested:
                continue
            if asked.place is None or asked.requested > room(self.quotas.tree, dense, node, asked.place):
                return None
            limit = asked.user_limit
            if limit is not None and total(mine, asked.resource) + asked.requested > limit:
                return None
        return way

    def change(self, queue: str, user: str, more: Amounts, less: Amounts) -> None:
        """A workload holds ``more`` than before, and ``less``; both named with their flavors."""
        self.usage[queue] = self.usage.get(queue, NOTHING) + more - less
        own = (queue, user)
        self._user_usage[own] = self._user_usage.get(own, NOTHING) + more - less
        node = self.quotas.nodes.get(queue)
        if self._dense is None or node is None:
            return
        for name, amount in more.items():
            if (place := self.quotas.place(name)) is not None:
                take(self.quotas.tree, self._dense, node, place, amount)
        for name, amount in less.items():
            if (place := self.quotas.place(name)) is not None:
                give(self.quotas.tree, self._dense, node, place, amount)

    def snapshot(self) -> Snapshot:
        """The same for :func:`compute_guard.admission.assessment.assess`, which says what is in the way."""
        return Snapshot(quotas=self.quotas, usage=self.usage, user_usage=self._user_usage, holds=self._holds)

    def _use(self) -> list[list[int]]:
        if self._dense is None:
            self._dense = self.quotas.usage_of(self.usage)
        return self._dense

    def _chosen(self, workload: Workload) -> Way:
        ways = self.quotas.ways(workload.queue, workload.requests, workload.flavors)
        if len(ways) == 1:
            return ways[0]
        node, vectors = self.quotas.nodes[workload.queue], [way.vector for way in ways]
        return ways[place_among(self.quotas.tree, self._use(), node, vectors, 0, len(ways))[0]]
