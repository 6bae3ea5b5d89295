"""The OPA server engine: the real server, and a server with every fault we could think of.

Every fault is a denial, undecidable, with the reason; none is an exception and none is a yes.
"""

from __future__ import annotations

import json
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guard_core.errors import UserError
from guard_core.findings import Enforcement
from guard_core.policy.breaker import Breaker
from guard_core.policy.bundle import load_bundle, make_bundle, shipped_policies, write_bundle
from guard_core.policy.decision import Answer, Decision
from guard_core.policy.server import ServerEngine, client_cert_from, token_from

PATH = "guard/dataset/use/decision"
OPA_YES = {"result": {"allow": True, "deny": []}, "provenance": {"bundles": {"guard": {"revision": "r1"}}}}


class FaultyServer:
    """Speaks just enough HTTP on a real socket; ``behave`` says what to do with each connection."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.behave: Callable[[socket.socket], None] = self.json(OPA_YES)
        self.requests: list[bytes] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            try:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += connection.recv(65536)
                head, _, body = request.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                while len(body) < length:
                    body += connection.recv(65536)
                self.requests.append(head + b"\r\n\r\n" + body)
                self.behave(connection)
            except OSError:
                return

    def close(self) -> None:
        self.over.set()
        self.listener.close()

    @staticmethod
    def raw(status: str, body: bytes, kind: str = "application/json") -> Callable[[socket.socket], None]:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        head += "Connection: close\r\n\r\n"
        return lambda connection: connection.sendall(head.encode() + body)

    def json(self, value: Any, status: str = "200 OK") -> Callable[[socket.socket], None]:
        return self.raw(status, json.dumps(value).encode())

    def silent(self, connection: socket.socket) -> None:
        self.over.wait(60)

    def dripping(self, connection: socket.socket) -> None:
        """A byte at a time, each soon enough for any timeout per read."""
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n"
        )
        while not self.over.wait(0.02):
            connection.sendall(b" ")


@pytest.fixture
def faulty() -> Iterator[FaultyServer]:
    server = FaultyServer()
    yield server
    server.close()


@pytest.fixture
def engine(faulty: FaultyServer) -> Iterator[ServerEngine]:
    made = ServerEngine(faulty.url, deadline_s=2.0)
    yield made
    made.close()


def decided(answer: Answer) -> Decision:
    return Decision(
        decision_id="d",
        path=PATH,
        value=answer.value,
        defined=answer.defined,
        error=answer.error,
        revision=answer.revision,
        engine="server/opa",
        enforcement=Enforcement.ENFORCED,
    )


def assert_refused(answer: Answer, said: str = "") -> None:
    decision = decided(answer)
    assert not decision.allow
    assert decision.undecidable
    assert said in (decision.error or "")
    assert decision.reasons[0].rule == "policy_unavailable"
    assert decision.reasons[0].msg


def test_a_whole_answer_is_believed(faulty: FaultyServer, engine: ServerEngine) -> None:
    answer = engine.evaluate(PATH, {"x": "é"})
    assert decided(answer).allow
    assert answer.revision == engine.revision == "r1"
    head, _, body = faulty.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(
        b"POST /v1/data/guard/dataset/use/decision?strict-builtin-errors=true&provenance=true "
    )
    assert json.loads(body) == {"input": {"x": "é"}}


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        ("200 OK", b"<html>hello</html>", "text/html", "not JSON"),
        ("200 OK", b"", "application/json", "not JSON"),
        ("200 OK", b"[1]", "application/json", "not a JSON object"),
        ("200 OK", b'"allow"', "application/json", "not a JSON object"),
        ("502 Bad Gateway", b"<html>", "text/html", "502 without OPA's error object"),
        ("500 Internal Server Error", b"{}", "application/json", "500 without OPA's error object"),
        (
            "401 Unauthorized",
            b'{"code": "unauthorized", "message": "no"}',
            "application/json",
            "401 unauthorized",
        ),
        ("302 Found", b"", "text/html", "policy"),
        (
            "500 Internal Server Error",
            b'{"code": "internal_error", "message": "e", "errors": [{"message": "count: must be"}]}',
            "application/json",
            "count: must be",
        ),
    ],
)
def test_an_answer_that_is_no_answer_is_refused(
    faulty: FaultyServer, engine: ServerEngine, status: str, body: bytes, kind: str, said: str
) -> None:
    faulty.behave = faulty.raw(status, body, kind)
    assert_refused(engine.evaluate(PATH, {}), said)


def test_a_500_is_never_asked_again(faulty: FaultyServer, engine: ServerEngine) -> None:
    faulty.behave = faulty.json({"code": "internal_error", "message": "x"}, "500 Internal Server Error")
    assert_refused(engine.evaluate(PATH, {}))
    assert len(faulty.requests) == 1


@pytest.mark.parametrize("reply", [{}, {"provenance": {}}, {"warning": {"code": "api_usage_warning"}}])
def test_an_undefined_rule_is_a_200_without_result_and_refused(
    faulty: FaultyServer, engine: ServerEngine, reply: dict[str, Any]
) -> None:
    faulty.behave = faulty.json(reply)
    answer = engine.evaluate(PATH, {})
    assert (answer.defined, answer.error) == (False, None)
    assert_refused(answer)


@pytest.mark.parametrize("value", [True, "allow", [], ["allow"], 1, None])
def test_a_value_of_the_wrong_shape_is_refused(
    faulty: FaultyServer, engine: ServerEngine, value: Any
) -> None:
    faulty.behave = faulty.json({"result": value})
    assert_refused(engine.evaluate(PATH, {}))


@pytest.mark.parametrize("allow", ["true", 1, None, [True], {"allow": True}])
def test_only_true_itself_is_a_yes(faulty: FaultyServer, engine: ServerEngine, allow: Any) -> None:
    faulty.behave = faulty.json({"result": {"allow": allow}})
    assert not decided(engine.evaluate(PATH, {})).allow


def test_a_connection_dropped_in_mid_answer_is_refused(faulty: FaultyServer, engine: ServerEngine) -> None:
    whole = json.dumps(OPA_YES).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(whole) + 9}\r\n\r\n"
    faulty.behave = lambda connection: connection.sendall(head.encode() + whole)
    assert_refused(engine.evaluate(PATH, {}))


def test_a_server_that_hangs_up_is_refused(faulty: FaultyServer, engine: ServerEngine) -> None:
    faulty.behave = lambda connection: None
    assert_refused(engine.evaluate(PATH, {}), "the connection broke off")


@pytest.mark.parametrize("fault", ["silent", "dripping"])
def test_a_slow_server_is_left_at_the_deadline_while_it_still_talks(faulty: FaultyServer, fault: str) -> None:
    engine = ServerEngine(faulty.url, deadline_s=0.1)
    faulty.behave = getattr(faulty, fault)
    assert_refused(engine.evaluate(PATH, {}), "no answer")
    assert not faulty.over.is_set()  # the server is at it still; only we went on


def test_a_server_that_is_down_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert_refused(ServerEngine(url, deadline_s=2.0).evaluate(PATH, {}), "cannot be reached")


def test_loading_the_client_is_not_taken_off_the_first_questions_time(
    faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ServerEngine(faulty.url, deadline_s=0.5)
    connect = engine._connect

    def slowly() -> Any:
        time.sleep(0.6)
        return connect()

    monkeypatch.setattr(engine, "_connect", slowly)
    assert engine.evaluate(PATH, {}).value == OPA_YES["result"]


def test_a_client_that_cannot_be_made_is_a_denial_too(
    faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ServerEngine(faulty.url)

    def broken() -> Any:
        raise OSError("the certificate's key does not fit")

    monkeypatch.setattr(engine, "_connect", broken)
    assert_refused(engine.evaluate(PATH, {}), "the certificate's key does not fit")


def test_after_five_failures_the_server_is_left_alone_and_then_tried_once(faulty: FaultyServer) -> None:
    now = [0.0]
    engine = ServerEngine(faulty.url, deadline_s=2.0, monotonic=lambda: now[0])
    faulty.behave = faulty.raw("502 Bad Gateway", b"")
    for _ in range(5):
        engine.evaluate(PATH, {})
    assert_refused(engine.evaluate(PATH, {}), "not asked again yet")
    assert len(faulty.requests) == 5
    now[0] = 2.0
    faulty.behave = faulty.json(OPA_YES)
    assert decided(engine.evaluate(PATH, {})).allow
    assert len(faulty.requests) == 6


def test_a_server_that_says_no_to_one_question_is_not_a_failing_server(faulty: FaultyServer) -> None:
    engine = ServerEngine(faulty.url, deadline_s=2.0)
    faulty.behave = faulty.json({"code": "internal_error", "message": "builtin"}, "500 Internal Server Error")
    for _ in range(8):
        engine.evaluate(PATH, {})
    assert len(faulty.requests) == 8


def test_the_breaker_lets_one_question_try_and_opens_again_when_it_fails() -> None:
    now = [0.0]
    breaker = Breaker(limit=2, window_s=10, rest_s=2, monotonic=lambda: now[0])
    breaker.failure()
    assert breaker.allows()
    breaker.failure()
    assert not breaker.allows()
    now[0] = 2.0
    assert breaker.allows()
    assert not breaker.allows()
    breaker.failure()
    now[0] = 3.9
    assert not breaker.allows()
    now[0] = 4.0
    assert breaker.allows()
    breaker.success()
    assert breaker.allows()
    assert breaker.allows()


def test_old_failures_are_forgotten() -> None:
    now = [0.0]
    breaker = Breaker(limit=2, window_s=10, rest_s=2, monotonic=lambda: now[0])
    breaker.failure()
    now[0] = 11.0
    breaker.failure()
    assert breaker.allows()


def test_the_token_is_sent_and_neither_netrc_nor_a_proxy_replaces_it(
    faulty: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login evil password evil\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    engine = ServerEngine(faulty.url, token=token_from(token), deadline_s=2.0)
    assert decided(engine.evaluate(PATH, {})).allow
    assert b"Authorization: Bearer s3cret" in faulty.requests[0]


def test_a_redirect_does_not_carry_the_token_elsewhere(faulty: FaultyServer) -> None:
    elsewhere = FaultyServer()
    reply = (
        f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {elsewhere.url}/v1/data\r\nContent-Length: 0\r\n\r\n"
    )
    faulty.behave = lambda connection: connection.sendall(reply.encode())
    engine = ServerEngine(faulty.url, token="s3cret", deadline_s=2.0)
    assert_refused(engine.evaluate(PATH, {}))
    assert elsewhere.requests == []
    elsewhere.close()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8181", "ftp://x", "http://", "http://x/v1/data"])
def test_a_url_that_is_none_is_the_users_mistake(url: str) -> None:
    with pytest.raises(UserError, match="server_url"):
        ServerEngine(url)


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff"])
def test_a_token_file_holds_one_token(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(UserError, match="server_token_file"):
        token_from(tmp_path / "token")


def test_many_threads_share_one_engine(faulty: FaultyServer, engine: ServerEngine) -> None:
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(engine.evaluate(PATH, {}))) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 24
    assert all(decided(answer).allow for answer in answers)


def test_it_travels_to_another_process(faulty: FaultyServer) -> None:
    engine = pickle.loads(pickle.dumps(ServerEngine(faulty.url, deadline_s=2.0)))
    assert decided(engine.evaluate(PATH, {})).allow


@pytest.mark.opa
def test_the_real_server_answers_with_its_bundles_revision(shipped_opa: Any) -> None:
    engine = ServerEngine(shipped_opa.url, deadline_s=10.0)
    answer = engine.evaluate(PATH, {})
    assert answer.error is None
    assert answer.defined
    assert answer.value["allow"] is False
    assert answer.revision == load_bundle(shipped_policies()).revision
    assert engine.health() == ()


@pytest.mark.opa
def test_the_real_server_makes_builtin_errors_errors(opa_server: Any, tmp_path: Path) -> None:
    rego = 'package guard.t\n\ndecision := {"allow": x}\n\nx if not startswith(input.s, "evil")\n'
    write_bundle(make_bundle({"guard/t/t.rego": rego}, {}), tmp_path / "b")
    engine = ServerEngine(opa_server(tmp_path / "b").url, deadline_s=10.0)
    assert engine.evaluate("guard/t/decision", {"s": "good"}).value == {"allow": True}
    assert_refused(engine.evaluate("guard/t/decision", {"s": 3}), "startswith: operand 1 must be string")


@pytest.mark.opa
def test_a_server_with_a_token_refuses_us_without_it(opa_server: Any, tmp_path: Path) -> None:
    authorise = (
        'package system.authz\n\ndefault allow := false\n\nallow if input.identity == "s3cret"\n\n'
        'allow if input.path == ["health"]\n'
    )
    bundle = make_bundle({"guard/t/t.rego": 'package guard.t\n\ndecision := {"allow": true}\n'}, {})
    directory = write_bundle(bundle, tmp_path / "b")
    (directory / "authz.rego").write_text(authorise)
    (directory / ".manifest").write_text(json.dumps({"revision": "r", "roots": ["guard", "system"]}))
    url = opa_server(directory, "--authentication=token", "--authorization=basic").url
    assert ServerEngine(url, token="s3cret", deadline_s=10.0).evaluate("guard/t/decision", {}).value == {
        "allow": True
    }
    assert_refused(ServerEngine(url, deadline_s=10.0).evaluate("guard/t/decision", {}), "401 unauthorized")


@pytest.mark.opa
def test_a_server_restarted_in_mid_flight_denies_and_then_answers_again(
    opa_server: Any, tmp_path: Path
) -> None:
    bundle = make_bundle({"guard/t/t.rego": 'package guard.t\n\ndecision := {"allow": true}\n'}, {})
    server = opa_server(write_bundle(bundle, tmp_path / "b"))
    engine = ServerEngine(server.url, deadline_s=10.0)
    assert decided(engine.evaluate("guard/t/decision", {})).allow
    server.stop()
    assert_refused(engine.evaluate("guard/t/decision", {}), "cannot be reached")
    server.start()
    assert decided(engine.evaluate("guard/t/decision", {})).allow


@pytest.mark.opa
def test_a_server_without_our_bundle_is_not_healthy(opa_server: Any, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.rego").write_text("package x\n")
    engine = ServerEngine(opa_server(tmp_path / "b").url, deadline_s=10.0)
    assert any("holds no TrainGuard bundle" in problem for problem in engine.health())
    assert_refused(engine.evaluate(PATH, {}))


@pytest.mark.opa
def test_mutual_tls_lets_in_who_the_authority_knows_and_nobody_else(
    opa_server: Any, tmp_path: Path, certificates: Path
) -> None:
    bundle = make_bundle({"guard/t/t.rego": 'package guard.t\n\ndecision := {"allow": true}\n'}, {})
    server = opa_server(
        write_bundle(bundle, tmp_path / "b"),
        f"--tls-cert-file={certificates / 'server.pem'}",
        f"--tls-private-key-file={certificates / 'server.key'}",
        f"--tls-ca-cert-file={certificates / 'authority.pem'}",
        "--authentication=tls",
        wait=False,
    )
    url = server.url.replace("http://", "https://")

    def ask(ca: str | None, client: str | None) -> Answer:
        pair = (str(certificates / f"{client}.pem"), str(certificates / f"{client}.key")) if client else None
        ca_file = str(certificates / f"{ca}.pem") if ca else None
        engine = ServerEngine(url, client_cert=pair, ca_file=ca_file, deadline_s=10.0)
        return engine.evaluate("guard/t/decision", {})

    for _ in range(100):
        answer = ask("authority", "client")
        if answer.error is None:
            break
        time.sleep(0.05)
    assert decided(answer).allow
    assert_refused(ask(None, "client"), "certificate is not accepted")
    assert_refused(ask("authority", None))
    assert_refused(ask("authority", "stranger"))


def test_certificate_and_key_belong_together(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="belong together"):
        client_cert_from(tmp_path / "cert.pem", None)
    with pytest.raises(UserError, match=r"server_client_cert .* cannot be read"):
        client_cert_from(tmp_path / "cert.pem", tmp_path / "cert.key")
    assert client_cert_from(None, None) is None
