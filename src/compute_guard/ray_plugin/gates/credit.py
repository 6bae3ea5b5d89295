"""Leases against quota: granted, or held in line until room frees. The head's side of every lease gate.

Within one workload leases are granted strictly in the order they came. Every grant is covered by the
ledger: the workload's reservation is raised first (`Ledger.resize`), in the transaction that
also decides about jobs. When the ledger cannot be reached, leases within what is already reserved go on,
and all others wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from compute_guard.admission.workload import WorkloadState
from compute_guard.ledger.posting import Growth
from compute_guard.quota.limits import CPU, Amounts
from compute_guard.ray_plugin.gates.account import Account, Waiter
from compute_guard.ray_plugin.gates.book import Lease, LeaseBook
from compute_guard.ray_plugin.gates.demand import WORKERS
from compute_guard.ray_plugin.gates.judge import Judge
from compute_guard.ray_plugin.gates.reports import Reports
from compute_guard.ray_plugin.gates.wire import Refusal
from guard_core.errors import GuardError

if TYPE_CHECKING:
    from compute_guard.ledger.store import Entry

T = TypeVar("T")
logger = logging.getLogger(__name__)
TICK_SECONDS = 0.25
IDLE_SECONDS = 1.0
"""How long a reservation stays raised after its leases went back: most come again at once."""
READ_ANYWAY_SECONDS = 5.0
"""The ledger counts its changes and is not read again before there is one; but never less often than this."""
BATCH = 64
_LIVING = (WorkloadState.ADMITTED, WorkloadState.RUNNING)


class Credit:
    """All accounts. Runs in one event loop; the ledger is asked in a thread."""

    def __init__(self, judge: Judge, book: LeaseBook) -> None:
        self.book = book
        self.reports = Reports(book)
        self._judge = judge
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trainguard-ledger")
        self._accounts: dict[str, Account] = {}
        self._lent: dict[str, tuple[str, int]] = {}
        self.living: dict[str, str] | None = None
        """Tenant by living workload, as of the last round; None until the ledger was read once."""
        self._loading: dict[str, asyncio.Future[Account]] = {}
        self._known: object = None
        self._entries: tuple[Entry, ...] = ()
        self._reserved: Mapping[str, Amounts] = {}
        self._read: tuple[int, float] = (-1, 0.0)
        """At which change of the ledger these two were read, and when."""

    async def account(self, workload: str) -> Account:
        """The account of a living workload. Raises Refusal for another, GuardError for storage trouble."""
        known = self._accounts.get(workload)
        if known is not None:
            return known
        loading = self._loading.get(workload)
        if loading is None:
            loading = asyncio.ensure_future(self._load(workload))
            self._loading[workload] = loading
            loading.add_done_callback(lambda _done: self._loading.pop(workload, None))
        return await asyncio.shield(loading)

    async def _load(self, workload: str) -> Account:
        ledger = self._judge.gateway.ledger
        entry, reserved = await self._in_thread(
            lambda: (ledger.get(workload), ledger.reservations().get(workload, Amounts()))
        )
        if entry is None or entry.state not in _LIVING:
            state = "not in the ledger" if entry is None else entry.state.value
            raise Refusal(f"job {workload} is {state}")
        return self._accounts.setdefault(workload, Account(entry, reserved))

    def alive(self) -> dict[str, str] | None:
        """Tenant by workload that runs or has asked for its first lease; None while that is not known."""
        if self.living is None:
            return None
        # An account is opened before the first process starts, however late the next round is.
        return {**self.living, **{w: a.entry.workload.tenant for w, a in self._accounts.items()}}

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def acquire(self, lease: Lease) -> None:
        """Return once ``lease`` is in the book. Raises Refusal when its workload ends meanwhile."""
        account = await self.account(lease.workload)
        if not account.waiting and self._grant(account, lease):
            return
        self.reports.recall(lease.workload)
        waiter = Waiter(lease, asyncio.get_running_loop().create_future())
        account.waiting.append(waiter)
        self.pump(account)
        try:
            await waiter.granted
        except BaseException:
            # The caller gave up, perhaps in the very moment it was granted.
            if waiter in account.waiting:
                account.waiting.remove(waiter)
            if self.book.get(lease.id) is lease:
                self.book.drop(lease.id)
            self.pump(account)
            raise

    def held(self) -> dict[str, tuple[int, Amounts, str]]:
        """By workload: how many leases wait, what the first asks for, and what is in the way."""
        return {
            workload: (len(account.waiting), account.waiting[0].lease.amounts, account.reason)
            for workload, account in self._accounts.items()
            if account.waiting
        }

    def lend(self, node: str, workload: str, cpus: int) -> None:
        """Note what a workload's waiting workers on ``node`` gave back (:mod:`.blocked`)."""
        self._lent[node] = (workload, cpus)
        if (account := self._accounts.get(workload)) is not None:
            account.blocked = False
            self.pump(account)

    def _with_lent(self, workload: str, amounts: Amounts) -> Amounts:
        """``amounts`` and the CPUs that are lent on, for a comparison with what leases add up to."""
        lent = sum(cpus for whose, cpus in self._lent.values() if whose == workload)
        return amounts + Amounts({CPU: lent}) if lent else amounts

    def _without_lent(self, workload: str, amounts: Amounts) -> Amounts:
        lent = sum(cpus for whose, cpus in self._lent.values() if whose == workload)
        return Amounts({**amounts, CPU: max(0, amounts[CPU] - lent)}) if lent else amounts

    def _grant(self, account: Account, lease: Lease) -> bool:
        credit = self._with_lent(lease.workload, account.credit)
        if not self.book.fits(lease.workload, self._counted(account, lease.amounts), credit):
            return False
        self.book.add(lease)
        account.idle_since = 0.0
        return True

    def _counted(self, account: Account, amounts: Amounts) -> Amounts:
        """``amounts`` without workers, where the queue has no quota of them."""
        quotas = self._judge.quotas
        queue = quotas.queues.get(account.entry.workload.queue) if quotas is not None else None
        if WORKERS in amounts and (queue is None or WORKERS not in queue.resources):
            return Amounts({name: amount for name, amount in amounts.items() if name != WORKERS})
        return amounts

    def pump(self, account: Account) -> None:
        """Grant what fits now, in order; ask the ledger for more when the first in line does not fit."""
        while account.waiting:
            waiter = account.waiting[0]
            if waiter.granted.done():
                account.waiting.popleft()
                continue
            if not self._grant(account, waiter.lease):
                break
            account.waiting.popleft()
            waiter.granted.set_result(None)
        if account.waiting and not account.growing and not account.blocked:
            account.growing = True
            asyncio.ensure_future(self._grow(account))  # noqa: RUF006 - `growing` keeps it single; it ends itself

    async def _grow(self, account: Account) -> None:
        workload = account.entry.id
        try:
            held = self._without_lent(workload, self.book.held(workload))
            line = [self._counted(account, w.lease.amounts) for w in list(account.waiting)[:BATCH]]
            if not line:
                return
            first = self._counted(account, held + line[0])
            everything = held
            for amounts in line:
                everything = everything + amounts
            wanted = self._counted(account, everything)
            # Who was refused a moment ago asks for the first in line alone: each question is a transaction.
            modest = account.reason or account.tight
            for amounts in dict.fromkeys([first] if modest else [_in_whole_cpus(wanted), wanted, first]):
                growth = await self._resize(workload, amounts)
                if growth.granted:
                    break
                account.tight = True
            if growth.granted:
                account.credit, account.reason = growth.reserved, ""
            else:
                account.reason, account.blocked = growth.reason, True
                account.blocked_at = time.monotonic()
        except GuardError as error:
            account.reason, account.blocked = f"the ledger cannot be used: {error}", True
        except Exception as error:
            logger.exception("a reservation could not be raised")
            account.reason, account.blocked = repr(error), True
        finally:
            account.growing = False
        self.pump(account)

    async def _resize(self, workload: str, wanted: Amounts) -> Growth:
        quotas = self._judge.quotas
        if quotas is None:
            return Growth(Amounts(), False, True, self._judge.trouble)
        ledger = self._judge.gateway.ledger
        return await self._in_thread(lambda: ledger.resize(workload, wanted, quotas))

    def release(self, lease: Lease | None) -> None:
        """After a lease left the book: let the next ones in."""
        if lease is not None:
            self.returned(lease.workload)

    def returned(self, workload: str) -> None:
        """After something of a workload left the book: let the next ones in."""
        if (account := self._accounts.get(workload)) is not None:
            self.pump(account)

    async def tick(self) -> None:
        """Compare with the ledger (ended workloads, reservations, idle credit), then try everybody again."""
        await self._judge.refresh()
        self.reports.terms(self._judge.terms)
        await self._in_thread(self._look)
        reserved = self._reserved
        known = (reserved, self._judge.quotas)
        changed, self._known = known != self._known, known
        now = time.monotonic()
        living = {entry.id: entry for entry in self._entries}
        self.living = {entry.id: entry.workload.tenant for entry in self._entries}
        for workload, account in list(self._accounts.items()):
            entry = living.get(workload)
            if entry is None:
                self._close(workload, account)
                continue
            if entry.state is not account.entry.state:
                self.reports.ask_anew(workload)  # policy may look at the state
            account.entry = entry
            if not account.growing:
                account.credit = reserved.get(workload, Amounts())
                await self._give_back(account)
            # While nobody's reservation and no quota changed, a refusal stands; time alone may end it, too.
            if changed or now - account.blocked_at >= IDLE_SECONDS:
                account.blocked = False
            account.tight = False
            self.pump(account)

    def _look(self) -> None:
        """Read the ledger, if it has changed. In the thread."""
        ledger, now = self._judge.gateway.ledger, time.monotonic()
        change = ledger.changes()  # first: what comes in between is read again
        if change == self._read[0] and now - self._read[1] < READ_ANYWAY_SECONDS:
            return
        self._entries, self._reserved = ledger.entries(states=_LIVING), ledger.reservations()
        self._read = (change, now)

    def _close(self, workload: str, account: Account) -> None:
        del self._accounts[workload]
        self.reports.ask_anew(workload)
        for waiter in account.waiting:
            if not waiter.granted.done():
                waiter.granted.set_exception(Refusal(f"job {workload} has ended"))

    async def _give_back(self, account: Account) -> None:
        workload = account.entry.id
        held, declared = self._counted(account, self.book.held(workload)), account.entry.workload.requests
        spare = any(amount > max(held[name], declared[name]) for name, amount in account.credit.items())
        now = time.monotonic()
        if not spare or account.waiting:
            account.idle_since = 0.0
        elif not account.idle_since:
            account.idle_since = now
        elif now - account.idle_since >= IDLE_SECONDS:
            account.growing = True
            try:
                growth = await self._shrink(workload, account)
                if growth.granted:
                    account.credit = growth.reserved
            finally:
                account.growing = False
                account.idle_since = 0.0

    async def _shrink(self, workload: str, account: Account) -> Growth:
        # From here on grants are measured against the smaller credit, while the ledger is being told.
        account.credit = self._counted(account, self.book.held(workload)) | account.entry.workload.requests
        return await self._resize(workload, account.credit)

    def waiting(self) -> dict[str, tuple[int, str]]:
        """(leases in line, what they wait for) by workload."""
        return {w: (len(a.waiting), a.reason) for w, a in self._accounts.items() if a.waiting}


def _in_whole_cpus(amounts: Amounts) -> Amounts:
    """``amounts`` with CPUs rounded up: small leases that follow need no transaction; idle ones return."""
    return Amounts({**amounts, CPU: -(-amounts[CPU] // 1000) * 1000})
