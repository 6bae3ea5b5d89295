"""Who holds which GPU, from a snapshot recorded on a real cluster and from variations of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from compute_guard.ledger.reconcile import Driver
from compute_guard.monitoring.holdings import (
    KEEP_ENDED_NS,
    ClusterSnapshot,
    Grant,
    Node,
    Worker,
    holdings,
    leases,
    renewed,
)
from compute_guard.usage.attribution import LeaseBook, Use, attribute, strangers
from compute_guard.usage.samples import Device

RECORDED = Path(__file__).parent / "recorded" / "placement_group_job.json"
GPUS = (Device("vm", "GPU-a", 0), Device("vm", "GPU-b", 1))


@pytest.fixture
def snapshot():
    """A job of acme with a quarter GPU for its entrypoint and 1 + 0.5 GPUs in a placement group."""
    raw = json.loads(RECORDED.read_text())
    workers = [
        {**w, "held": {name: tuple(map(tuple, slots)) for name, slots in w["held"].items()}}
        for w in raw["workers"]
    ]
    return ClusterSnapshot(
        at_ns=raw["at_ns"],
        nodes=tuple(Node(**node) for node in raw["nodes"]),
        workers=tuple(Worker(**worker) for worker in workers),
        drivers=tuple(Driver(**driver) for driver in raw["drivers"]),
        grants=tuple(Grant(**grant) for grant in raw["grants"]),
        supervisors=raw["supervisors"],
        children={int(pid): tuple(line) for pid, line in raw["children"].items()},
    )


def test_entrypoint_and_placement_group_are_added_up_per_gpu(snapshot):
    (held,) = holdings(snapshot)
    assert (held.tenant, held.job) == ("acme", "rec-1")
    assert held.gpus == {0: 750, 1: 1000}  # a quarter for the entrypoint and a half on 0, a whole on 1
    assert held.cpu_milli == 1500


def test_the_processes_of_a_job_are_those_of_its_workers_its_driver_and_their_children(snapshot):
    (held,) = holdings(snapshot)
    own = {w.pid for w in snapshot.workers if w.job_id == "04000000"}
    assert own < held.pids
    supervisor = next(w for w in snapshot.workers if w.actor_id in snapshot.supervisors)
    assert set(snapshot.children[supervisor.pid]) <= held.pids


@pytest.mark.parametrize("name", ["vm", "192.0.2.2"])
def test_a_device_is_found_by_host_name_and_by_address(snapshot, name):
    devices = [Device(name, "GPU-a", 0), Device(name, "GPU-b", 1), Device("elsewhere", "GPU-c", 0)]
    found = leases(holdings(snapshot), devices, at_ns=9)
    assert {lease.device: lease.gpu_milli for lease in found} == {f"{name}/GPU-a": 750, f"{name}/GPU-b": 1000}


def test_a_job_nobody_was_admitted_with_is_nobodys(snapshot):
    bare = replace(snapshot, grants=())
    found = leases(holdings(bare), GPUS, at_ns=0)
    assert {lease.tenant for lease in found} == {""}
    book = LeaseBook.of(found)
    shares = attribute("vm/GPU-a", 0, 10, book)
    assert [(s.owner.bucket, s.ns) for s in shares] == [("unattributed", 10)]


def test_processes_of_a_job_nobody_was_admitted_with_are_strangers(snapshot):
    pid = next(w.pid for w in snapshot.workers if w.job_id == "04000000" and not w.is_driver)
    on = LeaseBook.of(leases(holdings(replace(snapshot, grants=())), GPUS, at_ns=0)).on("vm/GPU-b", 1)
    assert [use.pid for use in strangers(on, [Use(pid, "python")])] == [pid]


def test_a_driver_that_was_not_started_by_the_submission_it_claims_gets_no_tenant(snapshot):
    liars = tuple(replace(d, origin=False) if d.submission_id else d for d in snapshot.drivers)
    found = holdings(replace(snapshot, drivers=liars))
    assert {held.tenant for held in found if held.gpus.get(1)} == {""}


def test_a_namespace_that_only_looks_internal_does_not_borrow_a_supervisors_job(snapshot):
    fake = tuple(replace(d, origin=False) if not d.submission_id else d for d in snapshot.drivers)
    found = holdings(replace(snapshot, drivers=fake))
    assert {held.tenant for held in found if held.job == "01000000"} == {""}


def test_on_a_node_that_cannot_be_seen_into_no_process_is_a_stranger(snapshot):
    far = replace(snapshot, nodes=tuple(replace(n, local=False) for n in snapshot.nodes))
    found = leases(holdings(far), GPUS, at_ns=0)
    assert all(not lease.pids for lease in found)
    assert strangers(found, [Use(99999, "python")]) == ()


def test_two_jobs_on_slices_that_an_index_cannot_tell_apart_are_contested(snapshot):
    other = Worker(node_id=snapshot.nodes[0].node_id, pid=5, job_id="07000000", held={"GPU": ((0, 250),)})
    own = next(d for d in snapshot.drivers if d.submission_id)
    driver = replace(own, job_id="07000000", submission_id="job-b")
    both = replace(
        snapshot,
        workers=(*snapshot.workers, other),
        drivers=(*snapshot.drivers, driver),
        grants=(*snapshot.grants, Grant(submission_id="job-b", tenant="beta")),
    )
    slices = [Device("vm", "MIG-1", 0), Device("vm", "MIG-2", 0)]
    book = LeaseBook.of(leases(holdings(both), slices, at_ns=0))
    assert {s.owner.bucket for s in attribute("vm/MIG-1", 0, 10, book)} == {"contested"}
    plain = LeaseBook.of(leases(holdings(both), GPUS, at_ns=0))
    assert {(s.owner.tenant, s.ns) for s in attribute("vm/GPU-a", 0, 8, plain)} == {("acme", 6), ("beta", 2)}


@pytest.mark.parametrize(
    "names",
    [("GPU-a/1", "GPU-a/2", "GPU-a/3"), ("MIG-1", "MIG-2"), ("GPU-a", "index-0")],
    ids=["slices of dcgm-exporter", "slices of NVML", "two exporters"],
)
def test_one_gpu_under_several_names_counts_once_against_quota(snapshot, names):
    alone = leases(holdings(snapshot), [Device("vm", "GPU-a", 0)], at_ns=0)
    several = leases(holdings(snapshot), [Device("vm", name, 0) for name in names], at_ns=0)
    assert len(several) == len(names) * len(alone)
    assert sum(lease.quota_milli for lease in several) == sum(lease.gpu_milli for lease in alone)


def test_a_change_between_two_looks_is_the_jobs_for_at_most_that_interval(snapshot):
    now = leases(holdings(snapshot), GPUS, at_ns=0)
    first = renewed(LeaseBook(), now, looked_ns=0, at_ns=100)
    assert {lease.start_ns for lease in first.leases} == {100}
    gone = renewed(first, (), looked_ns=100, at_ns=200)
    assert {(lease.start_ns, lease.end_ns) for lease in gone.leases} == {(100, 200)}
    back = renewed(gone, now, looked_ns=200, at_ns=300)
    assert {(lease.start_ns, lease.end_ns) for lease in back.leases} == {(100, 200), (200, None)}


def test_a_lease_keeps_its_beginning_and_is_forgotten_some_time_after_its_end(snapshot):
    now = leases(holdings(snapshot), GPUS, at_ns=0)
    book = renewed(LeaseBook(), now, looked_ns=0, at_ns=100)
    again = renewed(book, now, looked_ns=100, at_ns=200)
    assert again is book  # nothing changed, so nothing that follows from it needs to be worked out anew
    assert {lease.start_ns for lease in book.leases} == {100}
    book = renewed(book, (), looked_ns=200, at_ns=300)
    assert renewed(book, (), looked_ns=300, at_ns=301 + KEEP_ENDED_NS).leases == ()
