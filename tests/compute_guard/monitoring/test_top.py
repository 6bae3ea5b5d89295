"""`compute top`: what people see of tenants, jobs, quota and anomalies."""

import io
import json

import pytest
from rich.console import Console

from compute_guard.incidents.store import Incidents
from compute_guard.monitoring.holdings import Grant, Holding, Node
from compute_guard.monitoring.live import STATUS
from compute_guard.monitoring.top import lines, picture, table
from compute_guard.usage.history import write
from guard_core.cli import main
from guard_core.errors import UserError

NODE = Node(node_id="aa", address="192.0.2.2", hostname="vm", local=True)


def holding(job="job-1", tenant="acme", gpus=None):
    grant = Grant(submission_id=job, tenant=tenant, queue=tenant) if tenant else None
    return Holding(node=NODE, job=job, grant=grant, gpus=gpus or {0: 500}, cpu_milli=1000, pids=frozenset())


@pytest.fixture
def watched(still_home):
    """A home whose monitor has left readings of two GPUs."""
    devices = {
        "node": ["vm", "vm"],
        "index": [0, 1],
        "uuid": ["GPU-0", "GPU-1"],
        "synthetic": [False, False],
        "util_percent": [40.0, None],
        "memory_used_bytes": [2.0**30, 2.0**30],
    }
    status = {"at": "2026-11-23T00:00:00Z", "source": "nvml", "synthetic": False, "devices": devices}
    write(still_home.path(*STATUS), json.dumps(status).encode())
    return still_home


def test_a_job_is_shown_with_what_it_holds_what_it_reserved_and_how_busy_that_is(watched, waiting_job):
    waiting_job("job-1")
    (row,) = picture(watched, (holding(gpus={0: 500, 1: 250}),)).jobs
    assert (row["tenant"], row["state"], row["nodes"]) == ("acme", "pending", ["vm"])
    assert (row["gpu_milli"], row["gpu_milli_reserved"]) == (750, 0)
    assert row["util_percent"] == 40.0  # the other one could not be read, which is not 0
    assert row["memory_bytes"] == 2 * 2.0**30


def test_a_waiting_job_reserves_nothing_yet(watched, waiting_job):
    waiting_job("job-1", gpus=1)
    now = picture(watched, ())
    assert (now.jobs[0]["gpu_milli_reserved"], now.jobs[0]["gpu_milli_requested"]) == (0, 1000)
    assert "0 of 1" in lines(now)[1]


def test_a_holder_nobody_admitted_is_shown_as_nobodys(watched):
    (row,) = picture(watched, (holding("07000000", tenant=""),)).jobs
    assert (row["tenant"], row["state"]) == ("unattributed", "not admitted")


def test_quota_reserved_and_really_held_stand_side_by_side(watched):
    rows = {row["queue"]: row for row in picture(watched, (holding(gpus={0: 500}),)).queues}
    assert (rows["acme"]["nominal"], rows["acme"]["used"], rows["acme"]["held"]) == (2000, 0, 500)
    assert rows["beta"]["held"] == 0


def test_an_open_incident_stands_with_its_job_and_in_red_on_a_terminal(watched, waiting_job, seen):
    waiting_job("job-1")
    Incidents(watched).observe(seen("telemetry", "indicator"))
    now = picture(watched, (holding(),))
    assert now.jobs[0]["anomalies"] == ["incident: mining"]
    assert any("incident: mining" in line for line in lines(now))
    console = Console(record=True, width=160, force_terminal=True, file=io.StringIO())
    console.print(table(now))
    assert "incident: mining" in console.export_text()


def test_a_name_of_a_tenant_cannot_draw_on_the_screen(watched):
    evil = "[red]x[/red][link=http://x]"
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(table(picture(watched, (holding(evil, tenant=""),))))
    assert evil in console.export_text()


def test_a_tenant_sees_its_own_part_only(watched, waiting_job, seen):
    waiting_job("job-b", tenant="beta")
    now = picture(watched, (holding(), holding("job-b", "beta")), tenant="beta")
    assert {row["tenant"] for row in now.jobs} == {row["tenant"] for row in now.queues} == {"beta"}
    assert now.devices == ()


def test_what_could_not_be_seen_is_said(still_home):
    notes = picture(still_home, None).notes
    assert any("cluster was not seen" in note for note in notes)
    assert any("no monitor has run" in note for note in notes)


def test_a_damaged_status_is_named_and_hides_nothing_else(still_home):
    write(still_home.path(*STATUS), b"{")
    assert any("cannot be read" in note for note in picture(still_home, ()).notes)


def test_the_command_gives_plain_text_to_a_pipe_and_json_when_asked(home_dir, capsys):
    assert main(["compute", "top", "--once"]) == 0
    out = capsys.readouterr().out
    assert "nominal" in out
    assert "\x1b" not in out
    assert main(["compute", "top", "--format", "json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {
        "at",
        "jobs",
        "queues",
        "incidents",
        "devices",
        "notes",
    }


def test_an_unknown_tenant_is_one_sentence(home_dir, capsys):
    assert main(["compute", "top", "--once", "--tenant", "nobody"]) == UserError.exit_code
    assert capsys.readouterr().err.count("\n") == 1
