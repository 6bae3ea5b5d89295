"""Reading Ray's submission body into a workload."""

from __future__ import annotations

from pathlib import Path

import pytest

from compute_guard.admission.ray_body import body_for_ray
from compute_guard.admission.workload import TRANSITIONS, WorkloadState, workload_from_submission
from compute_guard.quota.limits import Amounts
from guard_core.errors import UserError


def read(**body: object):
    return workload_from_submission(
        {"entrypoint": "python train.py", **body},
        submission_id="job-1",
        tenant="acme",
        user="ada",
        queue="acme",
        created_ns=1,
    )


def test_resources_become_integers_rounded_up():
    workload = read(
        entrypoint_num_cpus=0.0001,
        entrypoint_num_gpus=0.5,
        entrypoint_memory=1024,
        entrypoint_resources={"TPU": 1, "tpu": 2},
    )
    assert workload.requests == Amounts(
        {"jobs": 1, "cpu_milli": 1, "gpu_milli": 500, "memory_bytes": 1024, "custom_tpu": 3000}
    )


def test_a_declared_footprint_larger_than_the_entrypoint_is_what_counts():
    workload = read(entrypoint_num_cpus=1, metadata={"cpus": "3", "gpus": "0.25"})
    assert workload.requests["cpu_milli"] == 3000
    assert workload.requests["gpu_milli"] == 250


def test_declared_datasets_and_environment_names_are_kept_but_no_environment_values():
    workload = read(
        metadata={"datasets": "digits@1, beta/text , digits@1"},
        runtime_env={
            "pip": ["x"],
            "_ray_commit": "of Ray's client",
            "env_vars": {"API_KEY": "very-secret"},
            "conda": None,
        },
    )
    assert workload.declared == ("digits@1", "beta/text")
    assert workload.runtime_env_fields == ("env_vars", "env_vars.API_KEY", "pip")
    assert "very-secret" not in str(workload.to_input([]))


def test_datasets_may_be_declared_in_the_runtime_environment_which_ray_gets_without_them():
    named = read(metadata={"datasets": "digits@1"}, runtime_env={"datasets": ["digits@1", "text@gold"]})
    assert named.declared == ("digits@1", "text@gold")
    assert named.runtime_env_fields == ()
    assert "datasets" not in body_for_ray(named, "token", Path("/home"))["runtime_env"]
    assert read(runtime_env={"datasets": "a, b"}).declared == ("a", "b")


def test_the_tenant_in_the_body_is_ignored():
    assert read(metadata={"tenant": "beta"}).tenant == "acme"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"entrypoint": " "}, "entrypoint"),
        ({"entrypoint_num_cpus": -1}, "entrypoint_num_cpus"),
        ({"entrypoint_num_cpus": float("nan")}, "entrypoint_num_cpus"),
        ({"entrypoint_num_gpus": True}, "entrypoint_num_gpus"),
        ({"entrypoint_memory": 1e300}, "entrypoint_memory"),
        ({"entrypoint_resources": {"x": "many"}}, r"entrypoint_resources\.x"),
        ({"entrypoint_resources": [1]}, "entrypoint_resources"),
        ({"metadata": {"priority": "-1"}}, "priority"),
        ({"metadata": {"cpus": 3}}, "metadata"),
        ({"runtime_env": "x"}, "runtime_env"),
        ({"runtime_env": {"datasets": {"reviews": 1}}}, r"runtime_env\.datasets"),
    ],
)
def test_a_malformed_submission_names_its_field(body, field):
    with pytest.raises(UserError, match=field):
        read(**body)


def test_every_state_is_reached_from_pending_and_the_ends_are_final():
    reached, edge = {WorkloadState.PENDING}, [WorkloadState.PENDING]
    while edge:
        new = TRANSITIONS[edge.pop()] - reached
        reached |= new
        edge += new
    assert reached == set(WorkloadState)
    assert {state for state in WorkloadState if state.terminal} == {
        WorkloadState.FINISHED,
        WorkloadState.EVICTED,
        WorkloadState.PREEMPTED,
        WorkloadState.DENIED,
    }
