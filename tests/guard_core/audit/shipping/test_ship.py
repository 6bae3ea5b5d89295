"""Delivering decisions: exactly OPA's request, at least once, in order, whatever the collector does."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from guard_core.audit.masked import Masks
from guard_core.audit.shipping.shipper import LONGEST_DELAY_S, Limits, Shipper, sink_file, sole
from guard_core.audit.shipping.sinks import FileSink, HttpSink, NotTaken
from guard_core.cli import main
from guard_core.errors import Tampered, Undecidable, UserError
from guard_core.findings import Enforcement
from guard_core.testing import engine_of

PROGRAM = "import sys; from guard_core.cli import main; sys.exit(main())"


@pytest.fixture
def shipper_of(home):
    """A shipper of this home to a sink, and what it told and how long it slept."""

    def make(sink, *, events=500, size=1 << 20, from_start=False, kind="decision"):
        told, slept = [], []
        shipper = Shipper(
            home.audit.directory,
            home.audit.head,
            sink,
            Masks(lambda: home.policy, home.clock),
            position=position_of(home, sink.target, kind),
            kind=kind,
            instance="this-home",
            clock=home.clock,
            sleep=slept.append,
            draw=lambda: 1.0,
            tell=told.append,
            limits=Limits(events, size),
            from_start=from_start,
        )
        shipper.told, shipper.slept = told, slept
        return shipper

    return make


def position_of(home, target, kind="decision"):
    file = sink_file(home.settings.home, target, kind)
    file.parent.mkdir(exist_ok=True)
    return file


def once(shipper, attempts=1):
    shipper.run(follow=False, attempts=attempts, poll_s=1)


# --- the request -------------------------------------------------------------------------------------


def test_the_request_is_the_one_opas_plugin_makes(collector, decide, tmp_path, capsys):
    ids = decide(2)
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    assert main(["audit", "ship", "--to", collector.url, "--token-file", str(token)]) == 0
    ((path, headers, body),) = collector.requests
    assert path == "/opa/logs"
    assert headers["Content-Type"] == "application/json"
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Authorization"] == "Bearer s3cret"
    assert isinstance(json.loads(gzip.decompress(body)), list)
    assert collector.ids() == ids
    assert f"delivered 2 events to {collector.url}" in capsys.readouterr().err


def test_a_collector_that_wants_a_certificate_gets_ours_over_tls(
    tls_collector, certificates, decide, tmp_path, capsys
):
    ids = decide(2)
    trusted = ["--ca-file", str(certificates / "authority.pem")]

    def ship(*more):
        return main(
            ["audit", "ship", "--to", tls_collector.url, "--attempts", "1", *more]
        ), capsys.readouterr().err

    def pair(name):
        return [
            "--client-cert",
            str(certificates / f"{name}.pem"),
            "--client-key",
            str(certificates / f"{name}.key"),
        ]

    assert ship(*trusted)[0] == 3  # it does not know us
    assert ship(*trusted, *pair("stranger"))[0] == 3  # nor its authority
    status, said = ship(*pair("client"))  # we do not know it
    assert (status, tls_collector.requests) == (3, [])
    assert "CERTIFICATE_VERIFY_FAILED" in said
    assert ship(*trusted, *pair("client"))[0] == 0
    assert tls_collector.ids() == ids
    together = tmp_path / "both.pem"
    together.write_bytes(
        (certificates / "client.pem").read_bytes() + (certificates / "client.key").read_bytes()
    )
    assert ship(*trusted, "--client-cert", str(together), "--from-start")[0] == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--client-key", "client.key"), "--client-key belongs to a certificate"),
        (("--client-cert", "nowhere.pem"), "--client-cert .*nowhere.pem cannot be used"),
        (("--client-cert", "client.pem", "--client-key", "stranger.key"), "cannot be used .*mismatch"),
        (("--client-cert", "client.pem"), "cannot be used"),
    ],
)
def test_a_client_certificate_that_cannot_be_used_is_exit_2(
    more, told, tls_collector, certificates, decide, capsys
):
    files = [part if part.startswith("-") else str(certificates / part) for part in more]
    assert main(["audit", "ship", "--to", tls_collector.url, *files]) == 2
    assert re.search(told, capsys.readouterr().err)


def test_an_event_is_opas_event_and_ours_is_under_custom(collector, decide, home):
    decide(1)
    assert main(["audit", "ship", "--to", collector.url]) == 0
    ((event,),) = collector.batches()
    recorded = next(home.audit.records(kind="decision"))
    assert set(event) == {
        "labels", "decision_id", "bundles", "path", "input", "result", "erased", "requested_by", "timestamp",
        "metrics", "custom",
    }  # fmt: skip
    assert set(event["labels"]) == {"id", "app", "version"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["timestamp"])
    assert event["bundles"] == {"guard": {"revision": home.policy.revision}}
    assert event["path"] == "guard/dataset/use/decision"
    assert event["requested_by"].startswith("acme/")
    assert isinstance(event["metrics"]["timer_rego_query_eval_ns"], int)
    for name in ("path", "result", "bundles", "requested_by", "timestamp", "metrics", "decision_id"):
        assert event[name] == recorded[name]
    assert event["custom"] == {
        "kind": "decision",
        "engine": recorded["engine"],
        "enforcement": "enforced",
        "subject": "acme/d@0",
    }


def test_what_the_mask_policy_hides_does_not_arrive(collector, decide, home):
    decide(1)
    assert main(["audit", "ship", "--to", collector.url]) == 0
    ((event,),) = collector.batches()
    recorded = next(home.audit.records(kind="decision"))["input"]
    hidden = recorded["principal"].pop("credential_id")
    assert event["input"] == recorded
    assert event["erased"] == ["/input/principal/credential_id"]
    assert hidden not in json.dumps(event)


def test_records_that_are_no_decisions_are_shipped_when_asked_for(collector, home):
    sent = home.audit.event("dataset.read", subject="s", data={"rows": 3}, enforcement=Enforcement.DETECTIVE)
    assert main(["audit", "ship", "--to", collector.url, "--kind", "dataset."]) == 0
    ((event,),) = collector.batches()
    assert event["decision_id"] == sent
    assert (event["custom"]["kind"], event["custom"]["data"]) == ("dataset.read", {"rows": 3})


def test_a_new_destination_is_on_record_before_anything_leaves(collector, decide, home):
    decide(1)
    for _ in range(2):
        assert main(["audit", "ship", "--to", collector.url]) == 0
    (begun,) = home.audit.records(kind="audit.sink-begun")
    assert begun["data"]["target"] == collector.url


# --- batches and position ----------------------------------------------------------------------------


def test_batches_are_bounded_in_events_and_a_second_run_sends_what_is_new(collector, decide, shipper_of):
    first = decide(5)
    once(shipper_of(HttpSink(collector.url), events=2))
    assert [len(batch) for batch in collector.batches()] == [2, 2, 1]
    second = decide(1)
    once(shipper_of(HttpSink(collector.url), events=2))
    assert collector.ids() == first + second


def test_batches_are_bounded_in_bytes_and_one_larger_event_goes_alone(collector, decide, home, shipper_of):
    ids = decide(3)
    line = len((home.audit.directory / "000000000000.jsonl").read_bytes().splitlines()[0])
    once(shipper_of(HttpSink(collector.url), size=2 * line + 20))
    once(shipper_of(HttpSink(collector.url), size=1, from_start=True))
    assert [len(batch) for batch in collector.batches()] == [2, 1, 1, 1, 1]
    assert collector.ids() == ids + ids


def test_records_of_several_segments_arrive_in_order(collector, home, shipper_of):
    home.audit._segment_bytes = 1
    ids = [
        home.audit.event("x.y", subject="", data={"n": n}, enforcement=Enforcement.DETECTIVE)
        for n in range(5)
    ]
    once(shipper_of(HttpSink(collector.url), events=2, kind="all"))
    assert collector.ids() == ids


def test_records_behind_the_signed_head_wait(collector, decide, home, shipper_of):
    ids = decide(2)
    head = (home.audit.directory / "head.json").read_bytes()
    decide(1)
    (home.audit.directory / "head.json").write_bytes(head)
    once(shipper_of(HttpSink(collector.url)))
    assert collector.ids() == ids


def test_a_changed_record_is_not_delivered(collector, decide, home, shipper_of):
    ids = decide(3)
    file = home.audit.directory / "000000000000.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"subject":"acme/d@1"', b'"subject":"acme/d@7"'))
    with pytest.raises(Tampered, match=r"record 1 in .* was changed, so it is not delivered"):
        once(shipper_of(HttpSink(collector.url), events=1))
    assert collector.ids() == ids[:1]


def test_a_restarted_log_is_not_taken_for_the_one_before(collector, decide, home, shipper_of):
    decide(2)
    once(shipper_of(HttpSink(collector.url)))
    home.audit.restart(reason="test", by="test")
    new = decide(3)
    with pytest.raises(UserError, match="is not the one this sink read before"):
        once(shipper_of(HttpSink(collector.url)))
    once(shipper_of(HttpSink(collector.url), from_start=True))
    assert collector.ids()[2:] == new


def test_a_broken_position_is_told_and_never_guessed(collector, home, decide, shipper_of):
    decide(1)
    position_of(home, collector.url).write_text("{}")
    with pytest.raises(UserError, match=r"cannot be used .* --from-start"):
        shipper_of(HttpSink(collector.url))


def test_a_target_has_one_shipper_at_a_time(home):
    file = sink_file(home.settings.home, "t", "decision")
    with sole(file), pytest.raises(UserError, match="another process already ships"), sole(file):
        pass


# --- collectors in trouble ---------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [500, 503, 401, 302, "drop", "hang", "drip"])
def test_a_collector_in_trouble_loses_nothing(trouble, collector, decide, shipper_of):
    ids = decide(3)
    collector.script = [200, trouble]
    shipper = shipper_of(HttpSink(collector.url, deadline_s=0.3), events=1)
    once(shipper, attempts=2)
    assert collector.ids() == [ids[0], ids[1], ids[1], ids[2]]
    assert len(shipper.told) == 2
    assert "takes records again" in shipper.told[1]
    assert {path for path, _, _ in collector.requests} == {"/opa/logs"}  # no redirect was followed


def test_a_dead_collector_is_exit_3_and_a_later_run_delivers(collector, decide, capsys):
    ids = decide(2)
    collector.script = [500]
    assert main(["audit", "ship", "--to", collector.url, "--attempts", "1"]) == 3
    assert "answered 500; nothing is lost: run the same command again" in capsys.readouterr().err
    assert main(["audit", "ship", "--to", collector.url]) == 0
    assert collector.ids() == ids + ids


def test_nobody_listening_is_undecidable(decide, shipper_of):
    decide(1)
    with pytest.raises(Undecidable, match="cannot be reached"):
        once(shipper_of(HttpSink("http://127.0.0.1:9")))


def test_waiting_doubles_up_to_a_bound(collector, decide, shipper_of):
    decide(1)
    collector.script = [500] * 12
    shipper = shipper_of(HttpSink(collector.url))
    once(shipper, attempts=13)
    assert shipper.slept[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(shipper.slept) == LONGEST_DELAY_S


def test_a_batch_refused_as_too_large_is_sent_in_halves(collector, decide, shipper_of):
    ids = decide(8)
    collector.script = [lambda body: 413 if len(json.loads(gzip.decompress(body))) > 2 else 200] * 20
    once(shipper_of(HttpSink(collector.url), events=8))
    taken = [batch for batch in collector.batches() if len(batch) <= 2]
    assert [event["decision_id"] for batch in taken for event in batch] == ids


def test_a_mask_policy_in_trouble_keeps_everything_in_until_it_is_mended(collector, decide, home, shipper_of):
    ids = decide(1)
    good = home.policy
    home.policy = engine_of({"m.rego": "package guard.other\n\na := 1\n"})
    with pytest.raises(Undecidable, match=r"stay in the home.*nothing is lost"):
        once(shipper_of(HttpSink(collector.url)))
    assert collector.requests == []
    home.policy = good
    once(shipper_of(HttpSink(collector.url)))
    assert collector.ids() == ids


def test_decisions_go_on_while_the_collector_hangs(collector, decide):
    decide(1)
    collector.script = ["hang"]
    shipping = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "audit", "ship", "--to", collector.url, "--follow"]
    )
    try:
        assert collector.arrived.wait(30)
        assert len(decide(3)) == 3
    finally:
        shipping.kill()
        shipping.wait()


def test_a_shipper_killed_in_the_middle_sends_that_batch_again_and_nothing_else(collector, decide):
    ids = decide(6)
    collector.script = [200, "hang"]
    command = [sys.executable, "-c", PROGRAM, "audit", "ship", "--to", collector.url, "--batch", "2"]
    shipping = subprocess.Popen(command)
    while len(collector.requests) < 2:
        assert collector.arrived.wait(30)
        collector.arrived.clear()
    os.kill(shipping.pid, signal.SIGKILL)
    assert shipping.wait() == -signal.SIGKILL
    assert main(command[3:]) == 0
    assert collector.ids() == ids[:4] + ids[2:]
    first, second = collector.requests[1][2], collector.requests[2][2]
    assert first == second  # byte for byte, so that a collector can tell a repetition


def test_follow_sends_what_comes(collector, decide):
    first = decide(1)
    shipping = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "audit", "ship", "--to", collector.url, "--follow", "--poll", "0.05"]
    )
    try:
        assert collector.arrived.wait(30)
        collector.arrived.clear()
        second = decide(1)
        assert collector.arrived.wait(30)
        assert collector.ids() == first + second
    finally:
        shipping.kill()
        shipping.wait()


# --- files -------------------------------------------------------------------------------------------


def test_a_file_gets_json_lines_once_and_is_private(decide, tmp_path):
    target = tmp_path / "out.jsonl"
    ids = decide(3)
    for _ in range(2):
        assert main(["audit", "ship", "--to", str(target), "--batch", "2"]) == 0
    assert [json.loads(line)["decision_id"] for line in target.read_text().splitlines()] == ids
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_line_that_a_killed_delivery_left_unfinished_is_cut_off_and_sent_again(
    decide, tmp_path, shipper_of
):
    target = tmp_path / "out.jsonl"
    ids = decide(1)
    once(shipper_of(FileSink(target, forbidden=tmp_path / "home")))
    ids += decide(1)
    with target.open("ab") as file:
        file.write(b'{"decision_id":"torn')
    once(shipper_of(FileSink(target, forbidden=tmp_path / "home")))
    assert [json.loads(line)["decision_id"] for line in target.read_text().splitlines()] == ids


def test_a_file_that_is_not_ours_is_not_cut(tmp_path, decide, shipper_of):
    target = tmp_path / "notes.txt"
    target.write_text("no line end")
    with pytest.raises(UserError, match="ends in the middle of a line that is not ours"):
        shipper_of(FileSink(target, forbidden=tmp_path / "home"))
    assert target.read_text() == "no line end"


def test_a_full_disk_takes_back_the_half_written_batch(decide, tmp_path):
    import resource

    target = tmp_path / "out.jsonl"
    target.write_text("{}\n")
    sink = FileSink(target, forbidden=tmp_path / "home")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(NotTaken, match="cannot be written"):
            sink.deliver([{"filler": "x" * 500}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert target.read_text() == "{}\n"


# --- bad usage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--to", "ftp://x/y"], "is not like https://collector.example/opa"),
        (["--to", "http://127.0.0.1:99999"], "is not like https://collector.example/opa"),
        (["--to", "https://u:p@x"], "must not hold a password"),
        (["--to", "http://collector.example", "--token-file", "t"], "a token is sent over https only"),
        (["--to", "http://127.0.0.1:9", "--token-file", "none"], "--token-file none cannot be read"),
        (["--to", "no/such/folder/x"], "there is no folder"),
        (["--to", "."], "is not a file"),
        (["--to", "x.jsonl", "--token-file", "t"], "are for a URL"),
        (["--to", "home/audit/000000000000.jsonl"], "is no place for a copy"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_2(more, told, decide, tmp_path, monkeypatch, capsys):
    decide(1)
    monkeypatch.chdir(tmp_path)
    assert main(["audit", "ship", *more]) == 2
    assert told in capsys.readouterr().err


def test_only_a_platform_admin_ships(home, collector, decide, monkeypatch, capsys):
    decide(1)
    monkeypatch.setenv("TRAINGUARD_TOKEN", home.credentials.issue(tenant="acme", user="ann"))
    assert main(["audit", "ship", "--to", collector.url]) == 1
    assert "only a platform admin may ship" in capsys.readouterr().err
    assert collector.requests == []
