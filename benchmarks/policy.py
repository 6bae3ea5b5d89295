"""Policy decisions: CPU and wall time, embedded and on a real OPA server, beside the bare engine and client.

Tenants are generated (50 members each). The bare engine gets the same text and its JSON is parsed, nothing
else; the bare client is opa-python-client as a user would call it, with its keep-alive. Peers run interleaved
with ours, question by question, so that a busy machine treats both alike. The server part needs the opa
program (TRAINGUARD_OPA or PATH).
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import regorus
from opa_client.opa import OpaClient

from guard_core.policy.bundle import Bundle, load_bundle, make_bundle, shipped_policies, write_bundle
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.samples import read_samples
from guard_core.policy.server import ServerEngine
from guard_core.policy.tools import opa_binary
from measure import Measure, median, report

DECISIONS = ("guard/dataset/use/decision", "guard/compute/admission/decision")
USERS = 50


def with_tenants(count: int) -> Bundle:
    """The shipped policies with ``count`` more tenants of 50 members each."""
    shipped = load_bundle(shipped_policies())
    members = {f"user-{u:02}": ["data-scientist"] for u in range(USERS)}
    more = {
        f"tenant-{t:05}": {"title": f"Tenant {t}", "tier": "basic", "state": "active", "members": members}
        for t in range(count)
    }
    config = {**shipped.config, "tenants": {**shipped.config["tenants"], **more}}
    return make_bundle(dict(shipped.modules), config)


def questions(path: str) -> list[dict[str, Any]]:
    """The samples' questions to one rule."""
    return [dict(s.question) for s in read_samples(shipped_policies()) if s.path == path]


def percentile(values: list[int], share: float) -> float:
    """Milliseconds below which ``share`` of the nanosecond values lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] / 1e6


def interleaved(
    calls: dict[str, Callable[[dict[str, Any]], object]], asked: list[dict[str, Any]], rounds: int
) -> dict[str, tuple[list[int], list[int]]]:
    """(CPU ns, wall ns) of this thread for each call, one after the other on the same question."""
    spent: dict[str, tuple[list[int], list[int]]] = {name: ([], []) for name in calls}
    for number in range(rounds):
        question = asked[number % len(asked)]
        for name, call in calls.items():
            cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
            call(question)
            spent[name][0].append(time.thread_time_ns() - cpu)
            spent[name][1].append(time.perf_counter_ns() - wall)
    return spent


def bare_engine(bundle: Bundle) -> Any:
    """regorus itself, holding the bundle."""
    engine = regorus.Engine()
    for name, text in bundle.modules.items():
        engine.add_policy(name, text)
    engine.add_data_json(bundle.data_json)
    return engine


def embedded(tenants: int, rounds: int) -> Iterator[Measure]:
    """Embedded decisions and activation with so many tenants."""
    bundle = with_tenants(tenants)
    ours, bare = EmbeddedEngine(bundle), bare_engine(bundle)
    for path in DECISIONS:
        rule = "data." + path.replace("/", ".")

        def ask_bare(question: dict[str, Any], rule: str = rule) -> object:
            bare.set_input_json(json.dumps(question, ensure_ascii=False))
            return json.loads(bare.eval_rule_as_json(rule))

        def ask_ours(question: dict[str, Any], path: str = path) -> object:
            return ours.evaluate(path, question)

        spent = interleaved({"bare": ask_bare, "ours": ask_ours}, questions(path), rounds)
        name = f"embedded {path.split('/')[2]}, {tenants:,} tenants"
        p50, peer = percentile(spent["ours"][0], 0.5), percentile(spent["bare"][0], 0.5)
        yield Measure(f"{name}: p50 CPU", p50, "ms", "bare regorus", peer, p50 / peer, "<= 0.5", p50 <= 0.5)
        yield Measure(
            f"{name}: p50 over bare", p50 / peer, "x", "", None, None, "<= 1.15", p50 / peer <= 1.15
        )
        yield Measure(f"{name}: p99 CPU", percentile(spent["ours"][0], 0.99), "ms")
        yield Measure(f"{name}: p50 wall", percentile(spent["ours"][1], 0.5), "ms")
        rate = 1e9 / (sum(spent["ours"][0]) / rounds)
        yield Measure(f"{name}: decisions", rate, "/CPU-s", "", None, None, ">= 2000", rate >= 2000)
    started, cpu = time.perf_counter(), time.process_time()
    ours.activate(with_tenants(tenants))
    wall = time.perf_counter() - started
    limit = 2.0
    yield Measure(f"activation, {tenants:,} tenants: wall", wall, "s", "", None, None, "<= 2", wall <= limit)
    yield Measure(f"activation, {tenants:,} tenants: CPU", time.process_time() - cpu, "s")


@contextmanager
def opa_server(bundle: Bundle, opa: str) -> Iterator[str]:
    """A real OPA server with the bundle; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        directory = write_bundle(bundle, Path(folder) / "bundle")
        command = [opa, "run", "--server", "--skip-version-check", "--log-level", "error"]
        process = subprocess.Popen(
            [*command, "--addr", f"127.0.0.1:{port}", "--bundle", str(directory)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            client = OpaClient(host="127.0.0.1", port=port, retries=0)
            client._session.trust_env = False
            client.wait_for_ready(timeout=120, interval=0.1, query={"bundles": "true"})
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


class Loopback:
    """http.client alone on one open connection: what this host takes for a question, whoever asks it."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, path: str, question: dict[str, Any]) -> object:
        """The parsed reply of OPA's data API."""
        body = json.dumps({"input": question}).encode()
        self._connection.request("POST", f"/v1/data/{path}", body, {"Content-Type": "application/json"})
        return json.loads(self._connection.getresponse().read())


def server(tenants: int, rounds: int, opa: str) -> Iterator[Measure]:
    """Decisions through a loopback OPA server with so many tenants."""
    with opa_server(with_tenants(tenants), opa) as url:
        port = int(url.rpartition(":")[2])
        ours = ServerEngine(url, deadline_s=30.0)
        bare, loopback = OpaClient(host="127.0.0.1", port=port), Loopback(port)
        for path in DECISIONS:
            package, _, rule = path.rpartition("/")
            asked = questions(path)

            def ask_bare(question: dict[str, Any], package: str = package, rule: str = rule) -> object:
                return bare.query_rule(question, package, rule)

            def ask_ours(question: dict[str, Any], path: str = path) -> object:
                answer = ours.evaluate(path, question)
                if answer.error:
                    raise RuntimeError(answer.error)
                return answer

            def ask_loopback(question: dict[str, Any], path: str = path) -> object:
                return loopback.ask(path, question)

            def ask_nothing(question: dict[str, Any]) -> object:
                return loopback.ask("guard/config/signers/none", question)  # no rule: nothing to evaluate

            calls = {"nothing": ask_nothing, "loopback": ask_loopback, "bare": ask_bare, "ours": ask_ours}
            interleaved(calls, asked, 50)  # connections open, caches warm
            spent = interleaved(calls, asked, rounds)
            name = f"server {path.split('/')[2]}, {tenants:,} tenants"
            p50, peer = percentile(spent["ours"][1], 0.5), percentile(spent["bare"][1], 0.5)
            p99 = percentile(spent["ours"][1], 0.99)
            label = "bare opa-python-client"
            yield Measure(f"{name}: p50 wall", p50, "ms", label, peer, p50 / peer, "<= 2", p50 <= 2)
            yield Measure(f"{name}: p99 wall", p99, "ms", "", None, None, "<= 10", p99 <= 10)
            for what, call in (
                ("http.client, the same question", "loopback"),
                ("http.client, nothing to evaluate", "nothing"),
            ):
                wall = spent[call][1]
                yield Measure(f"{name}: {what}: p50 wall", percentile(wall, 0.5), "ms")
                yield Measure(f"{name}: {what}: p99 wall", percentile(wall, 0.99), "ms")
            yield Measure(f"{name}: decisions, 4 threads", together(ask_ours, asked, rounds), "/s")
        ours.close()


def together(ask: Callable[[dict[str, Any]], object], asked: list[dict[str, Any]], rounds: int) -> float:
    """Decisions a second of wall time, four threads asking."""

    def work() -> None:
        for number in range(rounds // 4):
            ask(asked[number % len(asked)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (rounds // 4) * 4 / (time.perf_counter() - started)


def start_up() -> Iterator[Measure]:
    """From nothing to an engine that may decide, in a process that has imported nothing of it."""
    text = (
        "import time; t = time.perf_counter();"
        "from guard_core.policy.engine import accepted; from guard_core.policy.bundle import *;"
        "from guard_core.policy.embedded import EmbeddedEngine;"
        "EmbeddedEngine(accepted(load_bundle(shipped_policies()))); print(time.perf_counter() - t)"
    )
    import sys

    runs = [
        float(subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    yield Measure("cold start to an accepted engine: median wall", median(runs), "s")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--tenants", type=int, nargs="+", default=[1_000, 10_000])
    arguments = parser.parse_args()
    measures = list(start_up())
    for tenants in arguments.tenants:
        measures += embedded(tenants, arguments.rounds)
    opa = opa_binary()
    if opa is None:
        print("no opa program: the server part is left out (set TRAINGUARD_OPA)")
    else:
        for tenants in arguments.tenants:
            measures += server(tenants, arguments.rounds // 2, opa)
    report(measures, arguments.json)


if __name__ == "__main__":
    main()
