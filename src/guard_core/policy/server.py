"""The same policies on an OPA server, asked through opa-python-client 3.0.0.

What the client does not do is done here: a hard deadline (its timeout is per read; a server that drips a
byte a second held it for 99 s), a circuit breaker, no retry (a 500 is a policy error and stays one), no
proxies or ``~/.netrc`` (``trust_env`` would let either replace the bearer token), and an explicit look at
the ``result`` key (an undefined rule is a 200 without it). Builtin errors are made errors with
``strict-builtin-errors``, as in the embedded engine. Every failure is an Answer with ``error``.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from guard_core.errors import UserError
from guard_core.policy.breaker import Breaker
from guard_core.policy.bundle import BUNDLE_NAME
from guard_core.policy.deadline import DeadlineCalls, TooLate
from guard_core.policy.decision import Answer
from guard_core.policy.question import Unaskable, input_json, rule_path

WORKERS = 16
"""Questions on their way at once; one held by a silent server frees its worker when its read times out."""

_PARAMS = {"strict-builtin-errors": "true", "provenance": "true"}
_MAX_SAID = 300


def token_from(file: Path | None) -> str | None:
    """The bearer token in ``file``; None without a file. Raises UserError when it cannot be read."""
    if file is None:
        return None
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise UserError(
            f"policy.server_token_file {file} cannot be read; check its path and permissions"
        ) from exc
    if not token or any(c.isspace() for c in token):
        raise UserError(f"policy.server_token_file {file} does not hold one token on one line")
    return token


def ca_from(file: Path | None) -> str | None:
    """The authorities that may vouch for the server; None for the machine's own. Raises UserError."""
    return None if file is None else _readable(file, "server_ca_file")


def client_cert_from(cert: Path | None, key: Path | None) -> tuple[str, str] | None:
    """Certificate and key for mutual TLS. Raises UserError when one is missing or unreadable."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise UserError("policy.server_client_cert and policy.server_client_key belong together; set both")
    return _readable(cert, "server_client_cert"), _readable(key, "server_client_key")


def _readable(file: Path, key: str) -> str:
    try:
        file.open("rb").close()
    except OSError as exc:
        raise UserError(f"policy.{key} {file} cannot be read; check its path and permissions") from exc
    return str(file)


class ServerEngine:
    """Answers from an OPA server. Shareable by threads; opens nothing until the first question."""

    name = "server/opa"

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        deadline_s: float = 0.25,
        client_cert: tuple[str, str] | None = None,
        ca_file: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise UserError(f"policy.server_url {url!r} is not like http://127.0.0.1:8181; correct it")
        self.url = url.rstrip("/")
        self._parts = parts
        self._token = token
        self._cert = client_cert
        self._ca_file = ca_file
        self._deadline = deadline_s
        self._breaker = Breaker(monotonic=monotonic)
        self._lock = threading.Lock()
        self._calls = DeadlineCalls(WORKERS, "opa")
        self._client: Any = None
        self._revision = ""

    @property
    def revision(self) -> str:
        """Revision of the bundle that gave the last answer; empty before the first."""
        return self._revision

    def evaluate(self, path: str, input: Mapping[str, Any]) -> Answer:  # noqa: A002  # the protocol's name
        """Value of the rule at ``path``, or an Answer with ``error`` by the deadline at the latest."""
        started = time.perf_counter_ns()
        try:
            segments = rule_path(path)
            input_json(input)
        except Unaskable as exc:
            return Answer(error=f"policy {path} cannot be asked: {exc}", revision=self._revision)
        if not self._breaker.allows():
            return self._failed(path, f"not asked again yet after {self._breaker.failures} failures", started)
        try:
            client = self._opa()
        except Exception as exc:  # noqa: BLE001  # as below: whatever it is, there is no answer
            return self._failed(path, _brief(exc), started)
        try:
            answer, well = self._calls.run(
                lambda: self._ask(client, path, segments, input, started), self._deadline
            )
        except TooLate:
            answer, well = (
                self._failed(path, f"no answer within {self._deadline * 1000:.0f} ms", started),
                False,
            )
        # Only the caller judges the server: an answer after the deadline must not close the breaker.
        if well:
            self._breaker.success()
        else:
            self._breaker.failure()
        if answer.revision:
            self._revision = answer.revision
        return answer

    def _opa(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        # The client costs half a second to import: only when a server is used, and before the deadline runs,
        # or the first question of every process would be too late.
        from opa_client.opa import OpaClient

        from guard_core.policy.server_session import QuestionSession

        secure = self._parts.scheme == "https"
        client = OpaClient(
            host=self._host(),
            port=self._parts.port or (443 if secure else 80),
            ssl=secure,
            cert=self._cert,
            token=self._token,
            retries=0,
            timeout=self._deadline,
        )
        client._session.close()
        client._session = QuestionSession(  # the client has no other way to say how it connects
            self.url,
            headers=client.headers or {},
            connections=WORKERS,
            client_cert=self._cert,
            ca_file=self._ca_file,
        )
        return client

    def _host(self) -> str:
        host = self._parts.hostname or ""
        return f"[{host}]" if ":" in host else host

    def _ask(
        self, client: Any, path: str, segments: tuple[str, ...], question: Mapping[str, Any], started: int
    ) -> tuple[Answer, bool]:
        """The answer, and whether the server itself is well."""
        try:
            reply = client.query_rule(
                dict(question), "/".join(segments[:-1]) or segments[-1], _rule(segments), query_params=_PARAMS
            )
        except Exception as exc:  # noqa: BLE001  # three families of exceptions, all of them "no answer"
            refused = _refusal(exc)
            return self._failed(path, refused or _brief(exc), started), refused is not None
        elapsed = time.perf_counter_ns() - started
        if not isinstance(reply, dict):
            return self._failed(
                path, "the answer is not a JSON object; is this an OPA server?", started
            ), False
        revision = _revision(reply)
        if "result" not in reply:
            return Answer(defined=False, eval_ns=elapsed, revision=revision), True
        return Answer(value=reply["result"], defined=True, eval_ns=elapsed, revision=revision), True

    def _failed(self, path: str, why: str, started: int) -> Answer:
        return Answer(
            error=f"policy {path}: OPA server {self.url}: {why}",
            eval_ns=time.perf_counter_ns() - started,
            revision=self._revision,
        )

    def health(self) -> Sequence[str]:
        """Problems with their remedy: unreachable, no bundle in force, token refused. Empty when healthy."""
        answer = self.evaluate("guard/config/tenants", {})
        if answer.error is not None:
            return (f"{answer.error}; start it with: trainguard policy serve-opa",)
        if not answer.defined:
            return (
                f"the OPA server {self.url} holds no TrainGuard bundle; load it: trainguard policy serve-opa",
            )
        if not answer.revision:
            return (f"the OPA server {self.url} names no bundle revision; give it a bundle, not loose files",)
        return ()

    def close(self) -> None:
        """Close connections; a question under way fails."""
        with self._lock:
            if self._client is not None:
                self._client.close_connection()
            self._client = None
        self._calls.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.url, self._token, self._deadline, self._cert, self._ca_file))


def _rebuild(
    url: str, token: str | None, deadline_s: float, cert: tuple[str, str] | None, ca_file: str | None
) -> ServerEngine:
    return ServerEngine(url, token=token, deadline_s=deadline_s, client_cert=cert, ca_file=ca_file)


def _rule(segments: tuple[str, ...]) -> str | None:
    return segments[-1] if len(segments) > 1 else None


def _revision(reply: Mapping[str, Any]) -> str:
    provenance = reply.get("provenance")
    bundles = provenance.get("bundles") if isinstance(provenance, dict) else None
    if not isinstance(bundles, dict):
        return ""
    # A server started by serve-opa names bundles by their path; its door's own bundle has no revision.
    named = [bundles[BUNDLE_NAME]] if BUNDLE_NAME in bundles else list(bundles.values())
    found = [b.get("revision") for b in named if isinstance(b, dict)]
    return next((r for r in found if isinstance(r, str) and r), "")


def _refusal(exc: Exception) -> str | None:
    """What a server that is well says against this one question (status 4xx or OPA's own 500), else None."""
    response = getattr(exc, "response", None)
    if response is None:
        return None
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    if not isinstance(body, dict) or "code" not in body:
        return None
    said = [str(body.get("message", ""))]
    said += [str(e.get("message", "")) for e in body.get("errors") or () if isinstance(e, dict)]
    text = "; ".join(part for part in said if part)
    return f"{response.status_code} {body['code']}: {text}"[:_MAX_SAID]


def _brief(exc: Exception) -> str:
    response = getattr(exc, "response", None)
    if response is not None:
        return f"answered {response.status_code} without OPA's error object; is this an OPA server?"
    kinds = {
        "NewConnectionError": "cannot be reached",
        "NameResolutionError": "cannot be reached",
        "ConnectTimeoutError": "no connection in time",
        "ReadTimeoutError": "no answer in time",
        "SSLError": "its certificate is not accepted",
        "ProtocolError": "the connection broke off",
        "JSONDecodeError": "the answer is not JSON; is this an OPA server?",
    }
    for kind in type(exc).__mro__:
        if kind.__name__ in kinds:
            return kinds[kind.__name__]
    return f"{type(exc).__name__}: {exc}"[:_MAX_SAID]
