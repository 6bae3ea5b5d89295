"""The ledger on real SQLite: no reservation is lost, none is made twice, none exceeds the quota."""

from __future__ import annotations

import multiprocessing
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from compute_guard.admission.workload import Workload, WorkloadState
from compute_guard.ledger.store import Eviction, IllegalTransition, Ledger, Reservation
from compute_guard.quota.limits import Amounts, Queue, Quotas, ResourceQuota
from guard_core.errors import UserError
from guard_core.storage.database import Storage
from guard_core.testing import FrozenClock

QUOTAS = Quotas(
    {
        "acme": Queue(
            "acme", "acme", "pool", {"jobs": ResourceQuota(3, 2, 1), "cpu_milli": ResourceQuota(3000)}
        ),
        "beta": Queue(
            "beta", "beta", "pool", {"jobs": ResourceQuota(2, 0, 1), "cpu_milli": ResourceQuota(2000)}
        ),
    }
)


def opened(folder: Path) -> Storage:
    storage = Storage.in_home(folder)
    storage.upgrade()
    return storage


@pytest.fixture
def ledger(tmp_path):
    return Ledger(opened(tmp_path))


def job(name: str, queue: str = "acme", cpu: int = 1000, **more: object) -> Workload:
    return Workload(
        id=name,
        tenant=queue,
        user="ada",
        queue=queue,
        requests=Amounts({"jobs": 1, "cpu_milli": cpu}),
        entrypoint="python train.py",
        created_ns=0,
        **more,
    )


def test_an_admitted_workload_holds_its_quota_until_it_ends(ledger):
    ledger.add(job("j"))
    assert ledger.reserve("j", QUOTAS) is Reservation.RESERVED
    assert ledger.reservations() == {"j": Amounts({"jobs": 1, "cpu_milli": 1000})}
    assert ledger.move("j", WorkloadState.RUNNING)
    assert ledger.move("j", WorkloadState.FINISHED, reason="SUCCEEDED")
    assert ledger.reservations() == {}
    assert ledger.snapshot(QUOTAS).usage == {}


def test_reserving_twice_reserves_once(ledger):
    ledger.add(job("j"))
    ledger.reserve("j", QUOTAS)
    assert ledger.reserve("j", QUOTAS) is Reservation.NOT_PENDING
    assert ledger.snapshot(QUOTAS).usage["acme"]["jobs"] == 1


def test_giving_back_twice_gives_back_once(ledger):
    for name in ("a", "b"):
        ledger.add(job(name))
        ledger.reserve(name, QUOTAS)
    assert ledger.move("a", WorkloadState.EVICTED, reason="stopped")
    assert not ledger.move("a", WorkloadState.EVICTED)
    assert not ledger.move("a", WorkloadState.FINISHED)
    assert ledger.get("a").reason == "stopped"
    assert ledger.snapshot(QUOTAS).usage["acme"]["jobs"] == 1


def test_what_does_not_fit_stays_pending(ledger):
    ledger.add(job("big", cpu=9000))
    assert ledger.reserve("big", QUOTAS) is Reservation.NO_ROOM
    assert ledger.get("big").state is WorkloadState.PENDING


def test_one_user_reserves_no_more_than_the_cap_and_another_user_still_may(ledger):
    capped = Quotas({"acme": replace(QUOTAS.queues["acme"], cohort=None, per_user={"jobs": 1})})
    for workload in (job("first"), job("second"), replace(job("third"), user="bob")):
        ledger.add(workload)
    assert ledger.reserve("first", capped) is Reservation.RESERVED
    assert ledger.reserve("second", capped) is Reservation.NO_ROOM
    assert ledger.reserve("third", capped) is Reservation.RESERVED
    assert ledger.move("first", WorkloadState.EVICTED)
    assert ledger.reserve("second", capped) is Reservation.RESERVED


def test_a_queue_on_hold_reserves_nothing_until_it_is_released(ledger):
    ledger.add(job("j"))
    ledger.hold("acme", reason="incident", by="ladder")
    assert ledger.reserve("j", QUOTAS) is Reservation.NO_ROOM
    assert ledger.unhold("acme")
    assert not ledger.unhold("acme")
    assert ledger.reserve("j", QUOTAS) is Reservation.RESERVED


def test_a_running_job_grows_within_quota_whole_or_not_at_all(ledger):
    ledger.add(job("j"))
    ledger.reserve("j", QUOTAS)
    grown = ledger.resize("j", Amounts({"jobs": 1, "cpu_milli": 4000}), QUOTAS)
    assert (grown.granted, grown.reserved["cpu_milli"]) == (True, 4000)
    refused = ledger.resize("j", Amounts({"cpu_milli": 9000}), QUOTAS)
    assert not refused.granted
    assert "cpu: asks 5" in refused.reason
    assert ledger.reservations()["j"]["cpu_milli"] == 4000
    assert ledger.resize("j", Amounts(), QUOTAS).reserved["cpu_milli"] == 1000, "never below what it declared"


def test_use_is_metered_as_it_is_held_while_a_job_grows_shrinks_and_ends(ledger):
    ledger.add(job("j"))
    ledger.snapshot(QUOTAS)  # from here on the ledger remembers, and reads nothing again
    ledger.reserve("j", QUOTAS, decision_id="d")
    for wanted in (3000, 1000):
        assert ledger.resize("j", Amounts({"cpu_milli": wanted}), QUOTAS).granted
        now = ledger.snapshot(QUOTAS)
        assert now.usage["acme"]["cpu_milli"] == wanted
        assert now.used["acme"].rate == QUOTAS.fair_share.rate(now.usage["acme"])
    ledger.move("j", WorkloadState.FINISHED, quotas=QUOTAS)
    assert ledger.snapshot(QUOTAS).used["acme"].rate == 0


def test_a_job_that_ended_does_not_grow(ledger):
    ledger.add(job("j"))
    assert not ledger.resize("j", Amounts({"cpu_milli": 1}), QUOTAS).granted


NOTICE = Eviction(
    cause="reclaim",
    reason="queue beta takes back",
    beneficiary="w",
    requeue=True,
    decision_id="d",
    noticed_at=datetime(2026, 1, 1, tzinfo=UTC),
    stop_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def test_a_job_that_has_to_go_keeps_its_quota_until_it_waits_again(ledger):
    ledger.add(job("j"))
    ledger.reserve("j", QUOTAS)
    assert ledger.evict("j", NOTICE)
    assert not ledger.evict("j", NOTICE), "one notice is enough"
    assert ledger.get("j").eviction == NOTICE
    assert ledger.snapshot(QUOTAS).holders[0].evicting
    assert ledger.reservations()["j"]["cpu_milli"] == 1000
    assert ledger.requeue("j", reason=NOTICE.reason)
    entry = ledger.get("j")
    assert (entry.state, entry.eviction, entry.ray_job_id) == (WorkloadState.PENDING, None, None)
    assert not ledger.reservations()
    assert ledger.reserve("j", QUOTAS) is Reservation.RESERVED


def test_use_is_remembered_after_a_job_has_ended(tmp_path):
    clock = FrozenClock(datetime(2026, 1, 1, tzinfo=UTC))
    ledger = Ledger(opened(tmp_path), clock)
    ledger.add(job("j"))
    ledger.reserve("j", QUOTAS)
    clock.advance(seconds=10)
    ledger.move("j", WorkloadState.FINISHED, quotas=QUOTAS)
    meter = ledger.snapshot(QUOTAS).used["acme"]
    assert (meter.value, meter.rate) == (1000 * 10_000, 0)  # a CPU for ten seconds, at a cost of 1


@pytest.mark.parametrize(
    "path", [["running"], ["finished"], ["denied", "running"], ["evicted", "running"], ["admitted"]]
)
def test_a_step_outside_the_table_is_refused_and_changes_nothing(ledger, path):
    ledger.add(job("j"))
    for step in path[:-1]:
        ledger.move("j", WorkloadState(step))
    before = ledger.get("j")
    with pytest.raises(IllegalTransition):
        ledger.move("j", WorkloadState(path[-1]))
    assert ledger.get("j") == before


def test_a_submission_id_is_used_once(ledger):
    ledger.add(job("j"))
    with pytest.raises(UserError, match="already exists"):
        ledger.add(job("j", queue="beta"))
    assert ledger.get("j").workload.tenant == "acme"


def test_environment_values_leave_the_database_when_the_job_has_ended(ledger, tmp_path):
    spec = {"entrypoint": "x", "runtime_env": {"env_vars": {"API_KEY": "hunter2-secret"}}}
    ledger.add(job("j", spec=spec, runtime_env_fields=("env_vars", "env_vars.API_KEY")))
    assert ledger.get("j").workload.spec["runtime_env"]["env_vars"]["API_KEY"] == "hunter2-secret"
    ledger.move("j", WorkloadState.DENIED)
    assert "hunter2-secret" not in str(ledger.get("j"))
    assert ledger.get("j").workload.runtime_env_fields == ("env_vars", "env_vars.API_KEY")


def test_who_ends_together_from_memory_is_written_as_by_a_step_of_its_own(ledger):
    spec = {"entrypoint": "x", "metadata": {"a": "b"}, "runtime_env": {"env_vars": {"API_KEY": "hunter2"}}}
    for name in ("alone", "together", "noticed"):
        ledger.add(job(name, spec=spec, runtime_env_fields=("env_vars",), submitted_by={"roles": ["r"]}))
        assert ledger.reserve(name, QUOTAS, decision_id="d", lease_token=f"t-{name}") is Reservation.RESERVED
    ledger.evict("noticed", NOTICE)
    ledger.snapshot(QUOTAS)  # from now on memory says what the database says
    ledger.move("alone", WorkloadState.FINISHED, reason="r", quotas=QUOTAS)
    with ledger.posting(QUOTAS) as posting:
        ended = posting.end([(name, WorkloadState.FINISHED, "r") for name in ("together", "noticed", "x")])
    assert [(e.workload.id, e.lease_token, e.noticed) for e in ended] == [
        ("together", "t-together", False),
        ("noticed", "t-noticed", True),
    ]
    alone, together = ledger.get("alone"), ledger.get("together")
    assert "hunter2" not in str(together)
    assert alone.finished_ms is not None
    same = {"created_ms": 0, "admitted_ms": 0, "finished_ms": 0, "lease_token": ""}
    assert replace(
        together, workload=replace(together.workload, id="alone", created_ns=0), **same
    ) == replace(alone, workload=replace(alone.workload, created_ns=0), **same)
    assert ledger.reservations() == {}
    assert ledger.evictions() == {}


def test_only_one_process_leads_until_its_lease_runs_out(tmp_path):
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    ledger = Ledger(opened(tmp_path), lambda: now[0])
    assert ledger.lead("admission", "one", 10)
    assert not ledger.lead("admission", "two", 10)
    assert ledger.lead("admission", "one", 10)
    now[0] += timedelta(seconds=11)
    assert ledger.lead("admission", "two", 10)


def test_a_running_job_is_found_by_its_ray_job_id_too(ledger):
    ledger.add(job("j"))
    ledger.reserve("j", QUOTAS)
    ledger.note("j", ray_job_id="02000000")
    assert ledger.get("02000000").id == "j"


def race(folder: str, ids: list[str], start: multiprocessing.Barrier, won: multiprocessing.Queue) -> None:
    ledger = Ledger(Storage.in_home(Path(folder)))
    start.wait(60)
    got = [i for i in ids if ledger.reserve(i, QUOTAS) is Reservation.RESERVED]
    won.put(got)


def test_processes_that_race_for_the_last_place_get_it_once(tmp_path):
    ledger = Ledger(opened(tmp_path))
    ids = [f"j{i}" for i in range(12)]
    for i in ids:
        ledger.add(job(i, cpu=1000))
    context = multiprocessing.get_context("spawn")
    start, won = context.Barrier(4), context.Queue()
    racers = [
        context.Process(target=race, args=(str(tmp_path), ids[shift:] + ids[:shift], start, won))
        for shift in (0, 3, 6, 9)
    ]
    for racer in racers:
        racer.start()
    winners = [i for _ in racers for i in won.get(timeout=90)]
    for racer in racers:
        racer.join(30)
    # Jobs: 3 nominal + 1 that beta lends = 4 (borrowing limit 2 permits 5, beta lends only 1).
    assert len(winners) == len(set(winners)) == 4
    assert set(ledger.reservations()) == set(winners)
    assert {e.id for e in ledger.entries(states=[WorkloadState.ADMITTED])} == set(winners)


def bare(snapshot):
    """Lines and holders without submission bodies, which storing completes."""
    lines = {queue: [replace(w, spec={}) for w in line] for queue, line in snapshot.lines.items()}
    holders = {h.workload.id: replace(h, workload=replace(h.workload, spec={})) for h in snapshot.holders}
    return lines, holders


class LedgerMachine(RuleBasedStateMachine):
    """Any sequence of submissions, admissions, endings and quota cuts."""

    jobs = Bundle("jobs")

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.storage = opened(Path(self.folder.name))
        self.ledger = Ledger(self.storage)
        self.count = 0
        self.expected: dict[str, Amounts] = {}

    @rule(target=jobs, queue=st.sampled_from(["acme", "beta"]), cpu=st.integers(0, 3500))
    def submit(self, queue, cpu):
        self.count += 1
        workload = job(f"j{self.count}", queue, cpu)
        self.ledger.add(workload)
        return workload

    @rule(workload=jobs)
    def admit(self, workload):
        if self.ledger.reserve(workload.id, QUOTAS) is Reservation.RESERVED:
            assert workload.id not in self.expected
            self.expected[workload.id] = workload.requests

    @rule(workload=jobs, to=st.sampled_from([s for s in WorkloadState if s is not WorkloadState.ADMITTED]))
    def step(self, workload, to):
        try:
            moved = self.ledger.move(workload.id, to, quotas=QUOTAS)
        except IllegalTransition:
            return
        if moved and not to.holds_quota:
            self.expected.pop(workload.id, None)

    @invariant()
    def reservations_are_exactly_those_of_admitted_work(self):
        if not hasattr(self, "ledger"):
            return
        assert self.ledger.reservations() == self.expected
        holding = {e.id for e in self.ledger.entries() if e.state.holds_quota}
        assert holding == set(self.expected)

    @rule(first=jobs, second=jobs)
    def end_together(self, first, second):
        """In one transaction; who is named twice ends once."""
        named = [one.id for one in (first, second, first) if one.id in self.expected]
        with self.ledger.posting(QUOTAS) as posting:
            ended = posting.end([(one, WorkloadState.FINISHED, "r") for one in named])
        assert sorted(one.workload.id for one in ended) == sorted(set(named))
        for one in set(named):
            del self.expected[one]

    @rule(workload=jobs, cpu=st.integers(0, 4000))
    def resize(self, workload, cpu):
        grown = self.ledger.resize(workload.id, Amounts({"cpu_milli": cpu}), QUOTAS)
        if grown.granted:
            self.expected[workload.id] = grown.reserved

    @rule(workload=jobs, priority=st.integers(0, 3))
    def reorder(self, workload, priority):
        self.ledger.note(workload.id, priority=priority)

    @rule(workload=jobs)
    def take_out(self, workload):
        self.ledger.evict(workload.id, NOTICE)

    @rule(workload=jobs)
    def wait_again(self, workload):
        if self.ledger.requeue(workload.id, reason="r", quotas=QUOTAS):
            self.expected.pop(workload.id)

    @rule(first=jobs, second=jobs, end=st.sampled_from([WorkloadState.FINISHED, WorkloadState.PENDING]))
    def in_one_transaction(self, first, second, end):
        """Admit two, grow one, end it or put it back, and admit it again where that is possible."""
        with self.ledger.posting(QUOTAS) as posting:
            self.count += 1
            posting.add(job(f"j{self.count}"))
            for one in (first.id, second.id, f"j{self.count}"):
                if posting.reserve(one, decision_id="d", lease_token="t") is Reservation.RESERVED:
                    self.expected[one] = posting.entry(one).workload.requests
            grown = posting.resize(first.id, Amounts({"jobs": 2}))
            if grown.granted:
                self.expected[first.id] = grown.reserved
            if first.id in self.expected:
                ended = end is WorkloadState.FINISHED
                done = posting.move(first.id, end) if ended else posting.requeue(first.id, reason="r")
                assert done
                del self.expected[first.id]
            if posting.reserve(first.id, decision_id="d") is Reservation.RESERVED:
                self.expected[first.id] = posting.entry(first.id).workload.requests

    @rule(queue=st.sampled_from(["acme", "beta"]), on=st.booleans())
    def hold(self, queue, on):
        if on:
            self.ledger.hold(queue, reason="r", by="b")
        else:
            self.ledger.unhold(queue)

    @invariant()
    def what_is_remembered_is_what_the_database_says(self):
        if not hasattr(self, "ledger"):
            return
        remembered, read = self.ledger.snapshot(QUOTAS), Ledger(self.storage).snapshot(QUOTAS)
        assert bare(remembered) == bare(read)
        assert {q: u for q, u in remembered.usage.items() if u} == read.usage
        assert {k: u for k, u in remembered.user_usage.items() if u} == read.user_usage
        assert (remembered.used, remembered.holds) == (read.used, read.holds)
        for queue, meter in read.used.items():
            assert meter.rate == QUOTAS.fair_share.rate(read.usage.get(queue, {})), "use is metered as held"

    @invariant()
    def no_queue_is_over_what_it_may_hold(self):
        if not hasattr(self, "ledger"):
            return
        for queue, used in self.ledger.snapshot(QUOTAS).usage.items():
            for resource in used:
                assert used[resource] <= QUOTAS.potential(queue, resource)

    def teardown(self):
        if hasattr(self, "storage"):
            self.storage.close()
            self.folder.cleanup()


LedgerMachine.TestCase.settings = settings(
    max_examples=4, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
test_any_history_keeps_the_ledger_consistent = LedgerMachine.TestCase


def test_a_clock_that_went_back_locks_nobody_out(tmp_path):
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    ledger = Ledger(opened(tmp_path), lambda: now[0])
    assert ledger.lead("admission", "dead", 10)
    now[0] -= timedelta(hours=1)
    assert ledger.lead("admission", "next", 10)
