"""What the ledger holds, kept in memory between transactions, so that a round does not read it all again.

The database counts its changes (``ledger_changes``); a mirror that carries the same number says exactly what
the database says. Whoever finds another number reads everything anew: another process has written.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from compute_guard.admission.snapshot import Holder, Meter, Snapshot, queue_order
from compute_guard.admission.standing import Standing
from compute_guard.admission.workload import Workload
from compute_guard.ledger.meter_rows import BUDGET, FAIR_SHARE
from compute_guard.quota.limits import NOTHING, Amounts, Quotas

Change = tuple[str, tuple[Any, ...]]
"""A step of a transaction: the name of one of the mirror's methods, and what it takes."""


class Mirror:
    """The ledger at change ``number``. Not safe in threads: the ledger guards it."""

    def __init__(self, number: int, snapshot: Snapshot) -> None:
        self.number = number
        self._lines = {queue: list(line) for queue, line in snapshot.lines.items()}
        self._tuples: dict[str, tuple[Workload, ...]] = dict(snapshot.lines)
        self.pending = {workload.id: workload for workload in snapshot.pending}
        self.holders = {holder.workload.id: holder for holder in snapshot.holders}
        self.usage = dict(snapshot.usage)
        self._user_usage = dict(snapshot.user_usage)
        self._holds = dict(snapshot.holds)
        self.meters: dict[str, dict[str, Meter]] = {
            FAIR_SHARE: dict(snapshot.used),
            BUDGET: dict(snapshot.budgets),
        }

    def snapshot(self, quotas: Quotas, *, now_ms: int, shut: Mapping[str, str]) -> Snapshot:
        """An immutable copy; only lines that changed are copied."""
        for queue, line in self._lines.items():
            if queue not in self._tuples:
                self._tuples[queue] = tuple(line)
        return Snapshot.of_lines(
            {queue: line for queue, line in self._tuples.items() if line},
            quotas=quotas,
            usage=dict(self.usage),
            holds=dict(self._holds),
            user_usage=dict(self._user_usage),
            holders=tuple(self.holders.values()),
            used=dict(self.meters[FAIR_SHARE]),
            budgets=dict(self.meters[BUDGET]),
            shut=shut,
            now_ms=now_ms,
        )

    def standing(self, quotas: Quotas) -> Standing:
        """What is reserved, for a transaction to go on from."""
        return Standing(quotas, self.usage, self._user_usage, self._holds)

    def apply(self, changes: Iterable[Change], number: int) -> None:
        """Follow a transaction that has been committed as ``number``."""
        for name, arguments in changes:
            getattr(self, name)(*arguments)
        self.number = number

    # --- the changes ----------------------------------------------------------------------------------

    def joined(self, workload: Workload) -> None:
        """It waits."""
        self.pending[workload.id] = workload
        insort(self._lines.setdefault(workload.queue, []), workload, key=queue_order)
        self._tuples.pop(workload.queue, None)

    def left(self, workload_id: str) -> None:
        """It waits no longer."""
        workload = self.pending.pop(workload_id, None)
        if workload is None:
            return
        line = self._lines[workload.queue]
        place = bisect_left(line, queue_order(workload), key=queue_order)
        if line[place].id == workload_id:
            del line[place]
        self._tuples.pop(workload.queue, None)

    def reserved(self, holder: Holder) -> None:
        """It holds quota."""
        self.left(holder.workload.id)
        self.holders[holder.workload.id] = holder
        self._count(holder.workload, holder.amounts, NOTHING)

    def runs(self, workload_id: str) -> None:
        """It runs now, and holds what it held: others than this mirror want to know."""

    def resized(self, workload_id: str, amounts: Amounts) -> None:
        """It holds another amount."""
        holder = self.holders[workload_id]
        self.holders[workload_id] = replace(holder, amounts=amounts)
        self._count(holder.workload, amounts, holder.amounts)

    def given_back(self, workload_id: str) -> None:
        """It holds nothing any more."""
        holder = self.holders.pop(workload_id, None)
        if holder is not None:
            self._count(holder.workload, NOTHING, holder.amounts)

    def noticed(self, workload_id: str) -> None:
        """It has notice."""
        self.holders[workload_id] = replace(self.holders[workload_id], evicting=True)

    def prioritised(self, workload_id: str, priority: int) -> None:
        """It has another place in its line, or among those that may have to go."""
        workload = self.pending.get(workload_id)
        if workload is not None:
            self.left(workload_id)
            self.joined(replace(workload, priority=priority))
        holder = self.holders.get(workload_id)
        if holder is not None:
            changed = replace(holder.workload, priority=priority)
            self.holders[workload_id] = replace(holder, workload=changed)

    def credited(self, workload_id: str, lease_token: str) -> None:
        """Its job has another credential."""
        holder = self.holders.get(workload_id)
        if holder is not None:
            self.holders[workload_id] = replace(holder, lease_token=lease_token)

    def metered(self, queue: str, meter: str, value: Meter) -> None:
        """A meter was brought up to date."""
        self.meters[meter][queue] = value

    def _count(self, workload: Workload, more: Amounts, less: Amounts) -> None:
        own = (workload.queue, workload.user)
        self.usage[workload.queue] = self.usage.get(workload.queue, NOTHING) + more - less
        self._user_usage[own] = self._user_usage.get(own, NOTHING) + more - less
