"""Every change of an incident reaches every receiver at least once, in its own words, on real servers."""

import email
import email.policy
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from compute_guard.incidents.store import Incidents
from compute_guard.routes import Letter, Route, read_routes
from compute_guard.routes.courier import Courier, Post
from compute_guard.routes.ocsf import finding
from compute_guard.testing import wait_until
from guard_core.config import load_settings
from guard_core.errors import UserError
from guard_core.home import Home
from guard_core.policy.bundle import shipped_policies


@contextmanager
def receiver(answers=()):
    """A real HTTP server that keeps what it is sent; ``answers`` are its first status codes, then 200."""
    codes, got = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            code = codes.pop(0) if codes else 200
            got.append((code, dict(self.headers), json.loads(body)))
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", got
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def mail_server(refuse=()):
    """A real SMTP server (aiosmtpd) on loopback; ``refuse`` are its first answers to DATA."""
    controller_module = pytest.importorskip("aiosmtpd.controller")
    codes, got = list(refuse), []

    class Handler:
        async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
            if codes:
                return codes.pop(0)
            got.append(
                (envelope.rcpt_tos, email.message_from_bytes(envelope.content, policy=email.policy.SMTP))
            )
            return "250 taken"

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = controller_module.Controller(Handler(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield port, got
    finally:
        controller.stop()


@pytest.fixture
def routed(still_home, monkeypatch):
    """Gives the home routes, as usage.yaml would, and their cursors a beginning."""
    data = still_home.policy_data()

    def use(*routes):
        changed = {**data, "usage": {**data["usage"], "routes": [dict(r) for r in routes]}}
        monkeypatch.setattr(type(still_home), "policy_data", lambda _: changed)
        courier = Courier(still_home)
        assert courier.round() == 0
        return courier

    return use


def life(home, seen):
    """An incident from its opening to its end: four changes."""
    book = Incidents(home)
    found = book.observe(seen("telemetry"))
    book.observe(seen("telemetry", "indicator"))
    book.acknowledge(found.id, home.principal(), note="on it")
    book.resolve(found.id, by=home.principal(), note="it was mining")
    return found


MAIL = {"name": "a", "kind": "email", "host": "x", "sender": "a", "to": ["b"]}
CHANGES = ["opened", "grew", "acknowledged", "resolved"]


def test_a_webhook_gets_alertmanagers_version_4(still_home, seen, routed):
    with receiver() as (url, got):
        courier = routed({"name": "oncall", "kind": "alertmanager", "url": url})
        found = life(still_home, seen)
        assert courier.round() == 4
        assert courier.round() == 0
    bodies = [body for _, _, body in got]
    assert [b["status"] for b in bodies] == ["firing", "firing", "firing", "resolved"]
    assert [b["commonAnnotations"]["change"] for b in bodies] == CHANGES
    assert {b["version"] for b in bodies} == {"4"}
    assert len({b["alerts"][0]["fingerprint"] for b in bodies}) == 1
    first, last = bodies[0]["alerts"][0], bodies[-1]["alerts"][0]
    assert first["endsAt"].startswith("0001-01-01")
    assert last["endsAt"] > last["startsAt"] or last["endsAt"] == last["startsAt"]
    assert bodies[1]["commonLabels"]["severity"] == "critical"
    assert "T1496.001" in bodies[0]["commonAnnotations"]["mitre_techniques"]
    assert bodies[0]["groupLabels"] == {"incident": found.id}


def test_cloudevents_are_what_the_sdk_reads(still_home, seen, routed):
    with receiver() as (url, got):
        courier = routed({"name": "bus", "kind": "cloudevents", "url": url})
        life(still_home, seen)
        courier.round()
    for _, headers, body in got:
        assert headers["Content-Type"].startswith("application/cloudevents+json")
        assert body["specversion"] == "1.0"
        assert {"id", "source", "type", "subject", "time", "data"} <= set(body)
    assert [b["type"].rpartition(".")[2] for _, _, b in got] == CHANGES
    assert len({b["id"] for _, _, b in got}) == 4
    http = pytest.importorskip("cloudevents.core.formats.json")
    from cloudevents.core.v1.event import CloudEvent

    event = http.JSONFormat().read(CloudEvent, json.dumps(got[0][2]))
    assert event.get_subject() == got[0][2]["subject"]


def test_ocsf_findings_are_valid_for_class_2004(still_home, seen, routed):
    with receiver() as (url, got):
        courier = routed({"name": "lake", "kind": "ocsf", "url": url, "min_severity": "incident"})
        life(still_home, seen)
        assert courier.round() == 3  # the opening was a mere warning
    for _, _, body in got:
        assert body["class_uid"] == 2004
        assert body["type_uid"] == 200400 + body["activity_id"]
        required = {"activity_id", "category_uid", "class_uid", "finding_info", "metadata", "severity_id",
                    "time", "type_uid"}  # fmt: skip
        assert required <= set(body)
        assert {"uid", "title"} <= set(body["finding_info"])
        assert {"product", "version"} <= set(body["metadata"])
    assert [b["activity_name"] for _, _, b in got] == ["Update", "Update", "Close"]
    assert got[-1][2]["status"] == "Resolved"


def test_the_mail_says_it_in_chinese_and_brings_both_notices(still_home, seen, routed):
    with mail_server() as (port, got):
        courier = routed(
            {"name": "desk", "kind": "email", "host": "127.0.0.1", "port": port, "starttls": False,
             "sender": "tg@example.com", "to": ["desk@example.com"], "language": "zh"}
        )  # fmt: skip
        life(still_home, seen)
        assert courier.round() == 4
    recipients, first = got[0]
    assert recipients == ["desk@example.com"]
    assert first["Subject"] == "TrainGuard 预警: 疑似加密货币挖矿 (acme), 新建"
    names = [[part.get_filename() for part in m.iter_attachments()] for _, m in got]
    assert names[0] == ["customer.en.md", "customer.zh.md"]
    assert names[1] == ["customer.en.md", "customer.zh.md", "regulator.en.md", "regulator.zh.md"]
    attached = {p.get_filename(): p.get_content() for p in got[1][1].iter_attachments()}
    assert "2026-01-02T00:00:00" in attached["regulator.zh.md"]  # opened and 24 hours
    assert "预警" in first.get_body().get_content()


def test_what_fails_stays_due_in_order_and_what_is_refused_goes_to_the_dead(still_home, seen, routed, clock):
    with receiver([503, 200, 400, 200, 200]) as (url, got):
        courier = routed({"name": "oncall", "kind": "cloudevents", "url": url})
        life(still_home, seen)
        assert courier.round() == 0
        assert "503" in courier.problem
        assert courier.round() == 0  # not before its time
        clock.advance(seconds=2)
        assert courier.round() == 3
    told = [(code, body["type"].rpartition(".")[2]) for code, _, body in got]
    assert told == [(503, "opened"), (200, "opened"), (400, "grew"), (200, "acknowledged"), (200, "resolved")]
    assert got[0][2]["id"] == got[1][2]["id"]  # a repetition can be told as one
    (dead,) = still_home.path("routes", "oncall.dead.jsonl").read_text().splitlines()
    assert json.loads(dead)["what"] == "grew"
    assert [r["subject"] for r in still_home.audit.records(kind="route.dead_letter")]


def test_letters_taken_before_one_fails_count_as_delivered(still_home, seen, routed, clock):
    with receiver([200, 200, 503]) as (url, got):
        courier = routed({"name": "oncall", "kind": "cloudevents", "url": url})
        life(still_home, seen)
        assert courier.round() == 2
        assert courier.status() == {
            "delivered": 2,
            "failures": 1,
            "dead": 0,
            "problem": "route oncall: the receiver answered 503",
        }
        clock.advance(seconds=2)
        assert courier.round() == 2
    assert courier.delivered == 4
    assert len(got) == 5


def test_a_receiver_that_is_down_keeps_nobody_else_waiting(still_home, seen, routed):
    with receiver() as (url, got):
        courier = routed(
            {"name": "down", "kind": "ocsf", "url": "http://127.0.0.1:9/x"},
            {"name": "up", "kind": "ocsf", "url": url},
        )
        life(still_home, seen)
        assert courier.round() == 4
        assert len(got) == 4
    assert "cannot be reached" in courier.problem


def test_a_mail_server_that_defers_gets_it_again(still_home, seen, routed, clock):
    with mail_server(["451 later"]) as (port, got):
        courier = routed(
            {"name": "desk", "kind": "email", "host": "127.0.0.1", "port": port, "starttls": False,
             "sender": "tg@example.com", "to": ["desk@example.com"]}
        )  # fmt: skip
        Incidents(still_home).observe(seen("telemetry"))
        assert courier.round() == 0
        clock.advance(seconds=5)
        assert courier.round() == 1
    assert len(got) == 1


def test_filters_and_exercises(still_home, seen, routed):
    with receiver() as (url, got):
        courier = routed(
            {"name": "beta", "kind": "ocsf", "url": url, "tenants": ["beta"]},
            {"name": "real", "kind": "ocsf", "url": url, "exercises": False},
        )
        Incidents(still_home).observe(seen("telemetry", synthetic=True))
        assert courier.round() == 0
    assert got == []


def test_killed_while_delivering_it_is_sent_again_and_never_lost(home, seen, tmp_path):
    policies = tmp_path / "policies"
    shutil.copytree(shipped_policies(), policies)
    with receiver() as (url, got):
        usage = policies / "data" / "usage.yaml"
        usage.write_text(
            usage.read_text().replace(
                "routes: []", f'routes: [{{name: hook, kind: cloudevents, url: "{url}"}}]'
            )
        )
        env = {**os.environ, "TRAINGUARD_POLICY_DIR": str(policies)}
        run = "from guard_core.cli import main; raise SystemExit(main())"
        send = [sys.executable, "-c", run, "incident", "routes", "--send"]
        with Home.open(load_settings(home=home.settings.home, policy={"dir": policies})) as routed:
            assert Courier(routed).round() == 0  # a new receiver is told what comes, not what was
        Incidents(home).observe(seen("telemetry", "indicator"))
        # The letter arrives; the process dies before it can remember so.
        killer = (
            "import os,signal,compute_guard.routes.courier as c\n"
            "real=c.deliver\n"
            "def deliver(letter, route):\n"
            "    real(letter, route); os.kill(os.getpid(), signal.SIGKILL)\n"
            "from guard_core.home import Home\n"
            "c.Courier(Home.open(), deliver).round()\n"
        )
        died = subprocess.run([sys.executable, "-c", killer], env=env, check=False)
        assert died.returncode == -signal.SIGKILL
        assert len(got) == 1
        shown = subprocess.run(send, env=env, check=False, capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        assert "0 behind" in shown.stdout
    assert len(got) == 2
    assert got[0][2]["id"] == got[1][2]["id"]


def test_an_incident_on_record_and_not_yet_stored_is_waited_for_and_one_that_never_was_is_passed(
    still_home, seen, routed, clock, monkeypatch
):
    def interrupted(_):
        raise InterruptedError

    with receiver() as (url, got):
        courier = routed({"name": "hook", "kind": "alertmanager", "url": url})
        for job in ("job-1", "job-2"):  # the monitor's process, stopped between its two steps
            with monkeypatch.context() as between, pytest.raises(InterruptedError):
                between.setattr(type(still_home.storage), "session", interrupted)
                Incidents(still_home).observe(seen("telemetry", job=job))
        assert courier.round() == 0
        assert "not stored yet" in courier.problem
        Incidents(still_home).observe(seen("telemetry"))
        clock.advance(seconds=2)
        assert courier.round() == 1  # job-1's, before it came to job-2's
        assert [body["commonLabels"]["job"] for _, _, body in got] == ["job-1"]
        clock.advance(seconds=31)
        assert courier.round() == 1  # told again, because it is on record again; job-2 never was
        assert {body["commonLabels"]["job"] for _, _, body in got} == {"job-1"}
        assert courier.problem == ""


def test_the_post_delivers_beside_the_monitor_and_finishes_at_its_end(home, seen, monkeypatch):
    data = home.policy_data()
    with receiver() as (url, got):
        routes = [{"name": "hook", "kind": "alertmanager", "url": url}]
        changed = {**data, "usage": {**data["usage"], "routes": routes}}
        monkeypatch.setattr(type(home), "policy_data", lambda _: changed)
        post = Post(home, every_seconds=0.05)
        post.start()
        wait_until(lambda: home.path("routes", "hook.json").exists())
        found = Incidents(home).observe(seen("telemetry"))
        wait_until(lambda: len(got) >= 1)
        Incidents(home).resolve(found.id, by=home.principal(), note="over")
        post.stop()
        # At least once: a receiver that answers late is told again.
        assert len({headers["Idempotency-Key"] for _, headers, _ in got}) == 2


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ({"name": "a", "kind": "ocsf"}, "needs a url"),
        ({"name": "a", "kind": "email", "host": "x"}, "sender and to"),
        ({**MAIL, "user": "u", "starttls": False}, "in clear"),
    ],
)
def test_a_route_that_cannot_work_is_told_at_once(tmp_path, route, words):
    with pytest.raises(UserError, match=words):
        read_routes({"routes": [route]}, tmp_path)


def test_a_token_leaves_over_https_only_and_is_a_file(still_home, seen, routed, tmp_path):
    still_home.path("keys").mkdir(exist_ok=True)
    still_home.path("keys", "hook").write_text("s3cret\n")
    with receiver() as (url, got):
        courier = routed({"name": "hook", "kind": "ocsf", "url": url, "token_file": "keys/hook"})
        Incidents(still_home).observe(seen("telemetry"))
        assert courier.round() == 1
    assert got[0][1]["Authorization"] == "Bearer s3cret"
    courier = routed(
        {"name": "far", "kind": "ocsf", "url": "http://far.invalid/x", "token_file": "keys/hook"}
    )
    Incidents(still_home).observe(seen("telemetry", kind="idle_hoard"))
    assert courier.round() == 0
    assert "https only" in courier.problem


def test_a_hostile_job_name_cannot_add_a_header(still_home, seen):
    from compute_guard.routes.email import message

    incident = Incidents(still_home).observe(
        seen("telemetry", tenant="acme", job="x\r\nBcc: all@example.com")
    )
    letter = Letter(id="evt-1", what="opened", severity="warning", at=still_home.clock(), incident=incident)
    route = Route(name="a", kind="email", host="x", sender="a@b", to=("c@d",))
    raw = message(letter, route).as_bytes()
    assert b"\nBcc:" not in raw
    assert finding(replace(letter, what="resolved"))["activity_id"] == 3
