"""A real collector on this machine that can be told to misbehave, and a home with decisions to ship."""

from __future__ import annotations

import gzip
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from guard_core.findings import Enforcement
from guard_core.home import Home


class Collector:
    """Takes POSTs like a decision-log service. ``script`` holds what to do with the next ones; then 200."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.script: list[Any] = []
        self.released = threading.Event()
        self.arrived = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.requests.append((self.path, dict(self.headers), body))
                collector.arrived.set()
                what = collector.script.pop(0) if collector.script else 200
                if what == "drop":
                    self.connection.close()
                elif what == "hang":
                    collector.released.wait(60)
                elif what == "drip":
                    while not collector.released.wait(0.02):
                        try:
                            self.wfile.write(b"H")
                        except OSError:
                            return
                elif callable(what):
                    self._say(what(body))
                else:
                    self._say(what)

            def _say(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that goes away is what some tests are about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:  # the handshake is the connection's thread's, not the listener's
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.url = f"http{'' if tls is None else 's'}://127.0.0.1:{self._server.server_port}/opa"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def batches(self) -> list[list[dict[str, Any]]]:
        """The bodies, as a collector reads them."""
        return [json.loads(gzip.decompress(body)) for _, _, body in self.requests]

    def ids(self) -> list[str]:
        """The decision ids of every event that came, in order."""
        return [event["decision_id"] for batch in self.batches() for event in batch]

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


@pytest.fixture
def tls_collector(certificates: Path) -> Iterator[Collector]:
    """One that lets in only who shows a certificate of its authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "authority.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    running = Collector(context)
    yield running
    running.close()


@pytest.fixture
def decide(home: Home) -> Callable[[int], list[str]]:
    """Make that many real decisions; returns their ids."""

    def make(count: int) -> list[str]:
        principal = home.principal(tenant="acme")
        return [
            home.decide(
                "guard/dataset/use/decision",
                {"dataset": {"ref": f"acme/d@{number}"}, "purpose": "train", "workload": None},
                principal=principal,
                enforcement=Enforcement.ENFORCED,
                subject=f"acme/d@{number}",
            ).decision_id
            for number in range(count)
        ]

    return make
