"""What-if replays: the compiled loop answers like the interpreted one, and both like live admission."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_guard.admission.round import decide_round
from compute_guard.admission.snapshot import Snapshot
from compute_guard.admission.workload import Workload
from compute_guard.quota.limits import (
    Amounts,
    Budget,
    Cohort,
    FairShare,
    Preemption,
    Queue,
    Quotas,
    ResourceQuota,
)
from compute_guard.replay.simulate import Stage, simulate
from compute_guard.replay.traces import Trace, TraceJob, read_trace
from guard_core.errors import UserError

limit = st.one_of(st.none(), st.integers(0, 4))


@st.composite
def trees(draw: st.DrawFn) -> Quotas:
    queues = {}
    for name in ("q0", "q1", "q2"):
        rules = Preemption(
            draw(st.sampled_from(["never", "lower_priority", "any"])),
            draw(st.sampled_from(["never", "lower_priority"])),
            draw(st.integers(0, 2)),
            draw(st.sampled_from(["requeue", "end"])),
        )
        limits = {
            "jobs": ResourceQuota(draw(st.integers(0, 4)), draw(limit), draw(limit)),
            "gpu_milli@x": ResourceQuota(draw(st.integers(0, 3)), draw(limit), draw(limit)),
            "gpu_milli@y": ResourceQuota(draw(st.integers(0, 3)), draw(limit), draw(limit)),
        }
        queues[name] = Queue(
            name,
            name,
            draw(st.sampled_from(["all", "all", None])),
            limits,
            draw(st.integers(1, 3)),
            draw(st.sampled_from([{}, {"jobs": 2}])),
            ("x", "y"),
            rules,
            draw(st.sampled_from([None, Budget(1, 1)])),
        )
    cohorts = {"all": Cohort("all", None, {"jobs": ResourceQuota(draw(st.integers(0, 2)))})}
    return Quotas(queues, cohorts, fair_share=FairShare(preempt=draw(st.booleans())))


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    specs = draw(
        st.lists(
            st.tuples(
                st.integers(0, 2),
                st.sampled_from("uv"),
                st.integers(0, 20_000),
                st.integers(1, 4_000_000),
                st.integers(0, 2),
                st.integers(0, 2),
            ),
            min_size=1,
            max_size=25,
        )
    )
    return Trace(
        "made up",
        tuple(
            TraceJob(f"j{i}", f"q{q}", user, at, run, Amounts({"jobs": 1, "gpu_milli": gpus}), priority)
            for i, (q, user, at, run, gpus, priority) in enumerate(specs)
        ),
    )


@settings(max_examples=80, deadline=None)
@given(trees(), traces(), st.booleans())
def test_the_compiled_loop_does_what_the_interpreted_one_does(tree, trace, keeps):
    courses = []
    for fast in (False, True):
        stage = Stage(trace.jobs, tree, keeps=keeps)
        stage.run(fast=fast, events=5_000)
        courses.append(stage.course)
    assert courses[0] == courses[1]


@settings(max_examples=80, deadline=None)
@given(trees(), traces())
def test_the_replay_admits_what_live_admission_admits(tree, trace):
    """The first moment at which everything has arrived: the same jobs are let in, in the same flavors."""
    jobs = tuple(
        TraceJob(j.id, j.queue, j.user, 0, j.run_ms, j.requests, j.priority, j.flavors) for j in trace.jobs
    )
    stage = Stage(jobs, tree)
    stage.run(fast=False, events=1)
    replayed = {
        job.id: stage.ways[stage.work.way[place]].flavor
        for place, job in enumerate(jobs)
        if stage.course.first[place] >= 0
    }
    snapshot = Snapshot(tree, pending=tuple(waiting(job) for job in jobs if possible(tree, job)))
    live = {pick.workload.id: pick.way.flavor for pick in decide_round(snapshot).picks}
    assert replayed == live


def waiting(job: TraceJob) -> Workload:
    return Workload(
        id=job.id,
        tenant=job.queue,
        user=job.user,
        queue=job.queue,
        requests=job.requests,
        entrypoint="x",
        created_ns=0,
        priority=job.priority,
    )


def possible(tree: Quotas, job: TraceJob) -> bool:
    caps = tree.queues[job.queue].per_user
    return all(job.requests[name] <= cap for name, cap in caps.items()) and any(
        all(amount <= tree.potential(job.queue, name) for name, amount in way.amounts.items())
        for way in tree.ways(job.queue, job.requests)
    )


def one_queue(nominal: int, **more: object) -> Quotas:
    return Quotas({"a": Queue("a", "a", None, {"jobs": ResourceQuota(nominal)}, **more)})


def test_waits_and_use_are_what_a_person_works_out_on_paper():
    jobs = tuple(TraceJob(f"j{i}", "a", "u", 0, 10_000, Amounts({"jobs": 1})) for i in range(4))
    outcome = simulate(Trace("paper", jobs), one_queue(2))
    assert outcome.finished == 4
    assert outcome.makespan_s == 20
    assert outcome.wait_mean_s == 5
    assert outcome.use_percent == {"jobs": 100.0}


def test_a_job_that_was_taken_out_waits_again_and_loses_what_it_did_not_keep():
    tree = Quotas(
        {
            "own": Queue("own", "own", "all", {"jobs": ResourceQuota(1)}, preemption=Preemption("any")),
            "b": Queue("b", "b", "all", {"jobs": ResourceQuota(0)}, preemption=Preemption(grace_seconds=2)),
        },
        {"all": Cohort("all")},
    )
    jobs = (
        TraceJob("lent", "b", "u", 0, 10_000, Amounts({"jobs": 1})),
        TraceJob("mine", "own", "u", 4_000, 5_000, Amounts({"jobs": 1})),
    )
    kept, lost = (simulate(Trace("t", jobs), tree, keeps=keeps) for keeps in (True, False))
    assert kept.taken_out == lost.taken_out == 1
    assert kept.makespan_s == 15  # 6 s done, 5 s for the owner, the other 4 s
    assert lost.makespan_s == 21


def test_what_never_fits_is_rejected_and_holds_nobody_up():
    jobs = (
        TraceJob("huge", "a", "u", 0, 10, Amounts({"jobs": 3})),
        TraceJob("small", "a", "u", 0, 10, Amounts({"jobs": 1})),
    )
    outcome = simulate(Trace("t", jobs), one_queue(2))
    assert (outcome.rejected, outcome.finished) == (1, 1)


def test_a_trace_of_queues_without_quota_is_refused_by_name():
    with pytest.raises(UserError, match="that the quotas do not have: b; add them"):
        simulate(Trace("t", (TraceJob("x", "b", "u", 0, 1, Amounts()),)), one_queue(1))


# --- reading ---------------------------------------------------------------------------------------


def test_philly_jobs_run_their_steps_at_the_throughput_of_their_type(tmp_path):
    (tmp_path / "simulation_throughputs.json").write_text(
        json.dumps({"v100": {"('LM', 1)": {"null": 2.0}, "('LM', 4)": {"null": 5.0}}})
    )
    (tmp_path / "vc1.trace").write_text("LM\tpython\t-n\t1\t100\t6.5\t1\nLM\tpython\t-n\t1\t100\t7\t4\n")
    one, four = read_trace(tmp_path).jobs
    assert (one.queue, one.arrival_ms, one.run_ms, one.requests["gpu_milli"]) == ("vc1", 6500, 50_000, 1000)
    assert (four.run_ms, four.requests["gpu_milli"]) == (20_000, 4000)


def test_openb_pods_are_read_with_their_fractions_and_flavors(tmp_path):
    file = tmp_path / "pods.csv"
    file.write_text(
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"
        "p0,6000,2,1,460,,LS,Running,10,40,20\n"
        "p1,6000,2,2,1000,V100M16|T4,BE,Running,10,40,20\n"
        "p2,6000,2,1,1000,,BE,Pending,10,40,\n"
    )
    trace = read_trace(file)
    assert [job.requests["gpu_milli"] for job in trace.jobs] == [460, 2000]
    assert trace.jobs[0].run_ms == 20_000
    assert trace.jobs[1].flavors == ("v100m16", "t4")
    assert trace.left_out == {"never ran": 1}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.jsonl", '{"id": "a"}\n', r"line 1: not a job of a ledger's history \(no 'queue'\)"),
        ("x.csv", "name,qos\np,LS\n", "line 2: not a pod"),
        ("x.jsonl", "\n", "holds no jobs"),
    ],
)
def test_a_line_that_is_no_job_is_named(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        read_trace(tmp_path / name)
