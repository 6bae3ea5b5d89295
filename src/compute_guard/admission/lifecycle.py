"""The states of workloads as they pass, each change on record: the base that admission is built on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from compute_guard.admission.garbage import garbage_waits
from compute_guard.admission.outcomes import StateChange
from compute_guard.admission.policy_watch import PolicyWatch
from compute_guard.admission.snapshot import Snapshot
from compute_guard.admission.workload import WorkloadState
from compute_guard.ledger.store import Ledger
from compute_guard.notice import notice_file, withdraw_notice
from compute_guard.quota.limits import Quotas
from compute_guard.quota.maintenance import shut_flavors
from guard_core.clock import to_ns
from guard_core.errors import Undecidable, UserError

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.policy.decision import Decision


class Lifecycle:
    """Quotas and policies as they are now, and workloads that run and end. Call from one thread at a time."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.ledger = Ledger(home.storage, home.clock)
        self._policies = PolicyWatch(_policy_folder(home))
        self._quotas: tuple[object, Quotas] | None = None
        self._events: list[StateChange] | None = None

    def quotas(self) -> Quotas:
        """The quotas in policy data. Raises Undecidable when the policy data cannot be used."""
        try:
            raw = self.home.policy_data().get("quotas", {})
            if self._quotas is None or self._quotas[0] is not raw:
                self._quotas = (raw, Quotas.from_config(raw))
            return self._quotas[1]
        except UserError as error:
            raise Undecidable(f"the policy data cannot be used: {error}") from error

    def look_every(self, seconds: float) -> None:
        """Look for edited policies no more often than this; until told so, before every decision."""
        self._policies.every_seconds = seconds

    def freshen(self) -> None:
        """Take up policies and data that were edited since; a running guard follows its files."""
        if self._policies.differs():
            # The ledger keeps its connection; only what was read from the policy folder is read anew.
            aside = self.home.aside
            self.home = type(self.home).open(self.home.settings, clock=self.home.clock)
            self.home.aside = aside
            self._policies.accept()

    def snapshot(self, quotas: Quotas) -> Snapshot:
        """The ledger now, with the flavors that are under maintenance."""
        return self.ledger.snapshot(
            quotas, shut=shut_flavors(quotas, self.home.policy_data(), to_ns(self.home.clock()))
        )

    def finish(
        self, workload_id: str, to: WorkloadState, reason: str, decision: Decision | None = None
    ) -> bool:
        """End a workload: state, reservation, credential, audit event. False when it had ended already."""
        return self.finish_many([(workload_id, to, reason)], decision) == 1

    def finish_many(
        self, ends: Sequence[tuple[str, WorkloadState, str]], decision: Decision | None = None
    ) -> int:
        """:meth:`finish` of several in one transaction; how many had not ended yet."""
        events: list[StateChange] = []
        with garbage_waits(), self.ledger.posting(self._quotas_if_any()) as posting:
            for one in posting.end(ends):
                if one.lease_token:
                    posting.revoke(one.lease_token)
                if one.noticed:
                    withdraw_notice(notice_file(self.home.settings.home, one.workload.id))
                events.append(StateChange(one.workload, one.to.value, one.reason, decision))
        self._audit(events)
        return len(events)

    def requeue(self, workload_id: str, reason: str) -> bool:
        """Put a job that was taken out back into its line; Ray must not know it any more."""
        return self.requeue_many([(workload_id, reason)]) == 1

    def requeue_many(self, gone: Sequence[tuple[str, str]]) -> int:
        """:meth:`requeue` of several in one transaction; how many wait again."""
        events: list[StateChange] = []
        with self.ledger.posting(self._quotas_if_any()) as posting:
            posting.fetch([workload_id for workload_id, _ in gone])
            for workload_id, reason in gone:
                entry = posting.entry(workload_id)
                if entry is None or not posting.requeue(workload_id, reason=reason):
                    continue
                if entry.lease_token:
                    posting.revoke(entry.lease_token)
                text = f"{reason}; it waits again"
                events.append(StateChange(entry.workload, WorkloadState.PREEMPTED.value, text, None))
        for event in events:
            withdraw_notice(notice_file(self.home.settings.home, event.workload.id))
        self._audit(events)
        return len(events)

    def _quotas_if_any(self) -> Quotas | None:
        """The quotas, for the meters; without usable policy data jobs still end."""
        try:
            return self.quotas()
        except Undecidable:
            return None

    def run(self, workload_id: str, ray_job_id: str | None) -> bool:
        """Record that Ray runs an admitted workload."""
        return self.run_many([(workload_id, ray_job_id)]) == 1

    def run_many(self, started: Sequence[tuple[str, str | None]]) -> int:
        """:meth:`run` of several in one transaction; how many were not known to run."""
        events: list[StateChange] = []
        with self.ledger.posting() as posting:
            posting.fetch([workload_id for workload_id, _ in started])
            for workload_id, ray_job_id in started:
                entry = posting.entry(workload_id)
                if entry is None:
                    continue
                if entry.state is WorkloadState.RUNNING and ray_job_id is not None:
                    posting.note(workload_id, ray_job_id=ray_job_id)
                elif posting.move(workload_id, WorkloadState.RUNNING, ray_job_id=ray_job_id):
                    events.append(StateChange(entry.workload, WorkloadState.RUNNING.value, "", None))
        self._audit(events)
        return len(events)

    @contextmanager
    def one_record(self) -> Iterator[None]:
        """Changes of state within go on record in one write, at its end: act on none of them before."""
        if self._events is not None:
            yield
            return
        self._events = []
        try:
            yield
        finally:
            events, self._events = self._events, None
            self._audit(events)

    def _audit(self, events: Sequence[StateChange]) -> None:
        if self._events is not None:
            self._events += events
            return
        try:
            self.home.audit.events([event.record() for event in events])
        except OSError as error:
            raise Undecidable(f"the audit log cannot be written: {error}") from error


def _policy_folder(home: Home) -> Path:
    from guard_core.policy.bundle import shipped_policies

    return home.settings.policy.dir or shipped_policies()
