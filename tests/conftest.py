"""Fixtures every test may use. Nothing here stands in for a real part."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol  # what pytest-rerunfailures uses; there is no public name
from hypothesis import HealthCheck, settings

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "1"
# Where an environment (many container images) forbids Python to keep what it compiled, every process that is
# started here, Ray's workers too, compiles all modules and every pytest worker all tests anew: CPU-minutes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from compute_guard.testing import GuardedCluster, guarded_cluster
from guard_core.config import load_settings
from guard_core.home import Home
from guard_core.testing import FrozenClock
from guard_core.testing import migrated_database as migrated_database_bytes

sys.dont_write_bytecode = False
OPA_VERSION = "v1.20.2"

# A busy machine makes no property false: how long an example takes is not what a property test asks.
settings.register_profile("trainguard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("trainguard")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Run in parallel, a file's tests share a process, and so do all files that need the same cluster."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFileAndCluster(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return _cluster_of(config.rootpath / file) or file

    config.option.loadscopereorder = False  # the order is that of pytest_collection_modifyitems below
    return ByFileAndCluster(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In parallel, what takes long begins first: the clusters, then files with a slow test, then large files.

    So that the last files are small, and no process works alone for long at the end.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    tests = Counter(item.path for item in items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not _cluster_of(item.path), item.path not in slow, -tests[item.path]))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """In parallel, a cluster ends with the last of its tests: it would cost half a core until the run's end.

    Told that nothing follows, pytest closes what is open for a whole run; what follows makes it anew.
    """
    follows = nextitem and _cluster_of(nextitem.path)
    if "PYTEST_XDIST_WORKER" not in os.environ or _cluster_of(item.path) in ("", follows):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    runtestprotocol(item, nextitem=None)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@cache
def _cluster_of(file: Path) -> str:
    text = file.read_text()
    if file.parent.name == "bypass" or "gated_cluster" in text:
        return "gated cluster"
    return "cluster" if "ray_cluster" in text or "mark.ray" in text else ""


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own TRAINGUARD_* variables change no test (the OPA binary's place is not a setting)."""
    for name in list(os.environ):
        if name.startswith("TRAINGUARD_") and name != "TRAINGUARD_OPA":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, migrated for real, once: copying it saves every test a third of a second."""
    path = tmp_path_factory.mktemp("migrated") / "trainguard.db"
    path.write_bytes(migrated_database_bytes())
    return path


@pytest.fixture
def home_dir(tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh home directory that TRAINGUARD_HOME names, so commands and child processes use it too."""
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    shutil.copy(migrated_database, path / "trainguard.db")
    monkeypatch.setenv("TRAINGUARD_HOME", str(path))
    return path


@pytest.fixture
def home(home_dir: Path) -> Iterator[Home]:
    """That home, opened, with the shipped policies and the machine's clock."""
    with Home.open(load_settings(home=home_dir)) as opened:
        yield opened


@pytest.fixture
def clock() -> FrozenClock:
    """A clock that stands still until a test moves it."""
    return FrozenClock()


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedCluster]:
    """The one real guarded Ray head of this session: 4 logical CPUs and 2 logical GPUs (Ray counts them, no

    device is needed), shipped policies, 250 ms rounds.
    """
    pytest.importorskip("ray")
    with guarded_cluster(tmp_path_factory.mktemp("cluster"), num_gpus=2) as cluster:
        yield cluster


POOLS = """
pools:
  acme: {title: Nodes of Acme's own, tenants: [acme], labels: {}}
  beta: {title: Nodes of Beta's own, tenants: [beta], labels: {}}
  shared: {title: Nodes any active tenant may use, tenants: ["*"], labels: {}}
"""


@pytest.fixture(scope="session")
def gated_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedCluster]:
    """The one real cluster with gates of this session: profile `hardened`, a head and three nodes.

    Acme has a node of its own, beta has one, one is shared. Acme may have 2 CPUs and 14 workers at once.
    """
    pytest.importorskip("ray")
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("the gated cluster needs root (mount namespaces, Unix users)")
        pytest.skip("the gated cluster needs root (mount namespaces, Unix users)")
    from guard_core.policy.bundle import shipped_policies

    quotas = (shipped_policies() / "data" / "quotas.yaml").read_text()
    workers = "      workers: {nominal: 14, borrowing_limit: 0, lending_limit: 0}\n"
    quotas = quotas.replace("    per_user: {jobs: 4,", workers + "    per_user: {jobs: 4,")
    with guarded_cluster(
        tmp_path_factory.mktemp("gated"),
        object_store_bytes=100_000_000,
        profile="hardened",
        pools=("acme", "beta", "shared"),
        data={"nodes.yaml": POOLS, "quotas.yaml": quotas},
    ) as cluster:
        yield cluster


def _opa_binary() -> str:
    """The real OPA: TRAINGUARD_OPA, else on PATH, else built once from its pinned source."""
    named = os.environ.get("TRAINGUARD_OPA") or shutil.which("opa")
    if named:
        return named
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainguard" / f"opa-{OPA_VERSION}"
    )
    if not (cache / "opa").exists():
        go = shutil.which("go")
        if go is None:
            raise FileNotFoundError("no OPA: set TRAINGUARD_OPA, put opa on PATH, or install Go to build it")
        environment = {**os.environ, "GOBIN": str(cache)}
        package = f"github.com/open-policy-agent/opa@{OPA_VERSION}"
        built = subprocess.run([go, "install", package], env=environment, capture_output=True, text=True)
        if built.returncode != 0:
            raise FileNotFoundError(f"no OPA: go install {package} failed: {built.stderr[-300:]}")
    return str(cache / "opa")


@pytest.fixture(scope="session")
def opa() -> str:
    """Path of the real OPA binary. Without one: skipped with the reason, but a failure when CI=true."""
    try:
        return _opa_binary()
    except FileNotFoundError as exc:
        if os.environ.get("CI") == "true":
            pytest.fail(str(exc))
        pytest.skip(str(exc))


POSTGRESQL = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda p: float(p.parent.name))


class PostgresServer:
    """A real PostgreSQL server of these tests' own, in ``folder``."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._data = programs, folder / "data"
        # A file: a pipe that nobody reads would stop the server when it is full.
        self._log = folder / "server.log"
        self._user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._data.mkdir()
        if self._user:
            for path in (folder, *folder.parents):  # the server's user must be able to come here
                if path.stat().st_uid == 0 and path.stat().st_mode & 0o077 == 0:
                    path.chmod(path.stat().st_mode | 0o011)
            shutil.chown(self._data, self._user)
        initdb = [str(programs / "initdb"), "-D", str(self._data), "-U", "guard", "-A", "trust", "--no-sync"]
        subprocess.run([*initdb, "-E", "UTF8"], check=True, capture_output=True, user=self._user, cwd="/")

    def url(self) -> str:
        """Where it answers now: started again, should it have ended since the test before."""
        for _ in range(3):  # another process may take a free port first
            if self._answers():
                return f"postgresql://guard@127.0.0.1:{self._port}/postgres"
            self._start()
        raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text()[-500:]}")

    def _start(self) -> None:
        self.stop()
        self._port = free_port()
        options = ["-h", "127.0.0.1", "-p", str(self._port), "-k", "", "-F"]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._data), *options],
                user=self._user,
                cwd="/",
                stderr=output,
            )

    def _answers(self) -> bool:
        deadline = time.monotonic() + 60
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            if "ready to accept connections" in self._log.read_text():
                with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=5):
                    return True
            time.sleep(0.05)
        return False

    def stop(self) -> None:
        """End this very server, and wait for it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # at once, whoever is connected
            self._process.wait(60)


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The one server of this session, where PostgreSQL is installed (Debian's package)."""
    if POSTGRESQL is None or not (POSTGRESQL / "initdb").exists():
        pytest.skip("PostgreSQL is not under /usr/lib/postgresql; install it: apt-get install postgresql")
    server = PostgresServer(POSTGRESQL, Path(tmp_path_factory.mktemp("pg")))
    yield server
    server.stop()


@pytest.fixture
def postgresql(postgresql_server: PostgresServer) -> str:
    """URL of that server, which has just answered."""
    return postgresql_server.url()


def free_port() -> int:
    """A TCP port of this machine that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OpaServer:
    """A real OPA server on a free port, with one bundle directory."""

    def __init__(self, binary: str, bundle: Path, log: Path, *options: str) -> None:
        self.command = [binary, "run", "--server", "--skip-version-check", "--log-level", "error", *options]
        self.bundle = bundle
        self.log = log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> OpaServer:
        """Start it and wait until its bundle is in force (a TLS server is for the test to wait for)."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "--addr", f"127.0.0.1:{self.port}", "--bundle", str(self.bundle)],
                stdout=log,
                stderr=log,
            )
        if not wait:
            return self
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/health?bundles", timeout=1):
                    return self
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"OPA did not start: {self.log.read_text()[-500:]}")

    def stop(self) -> None:
        """End this very process, and wait for it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def start_opa(opa: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., OpaServer]]:
    """A function that starts a real OPA server on a bundle directory; all are ended with the session."""
    running: list[OpaServer] = []
    logs = tmp_path_factory.mktemp("opa-logs")

    def start(bundle: Path, *options: str, wait: bool = True) -> OpaServer:
        server = OpaServer(opa, bundle, logs / f"{len(running)}.log", *options)
        running.append(server)
        return server.start(wait=wait)

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def opa_server(start_opa: Callable[..., OpaServer]) -> Iterator[Callable[..., OpaServer]]:
    """As ``start_opa``, but the servers are ended with the test."""
    running: list[OpaServer] = []

    def start(bundle: Path, *options: str, wait: bool = True) -> OpaServer:
        running.append(start_opa(bundle, *options, wait=wait))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def shipped_opa(start_opa: Callable[..., OpaServer], tmp_path_factory: pytest.TempPathFactory) -> OpaServer:
    """One real OPA server holding the shipped policies, for the whole session."""
    from guard_core.policy.bundle import load_bundle, shipped_policies, write_bundle

    return start_opa(write_bundle(load_bundle(shipped_policies()), tmp_path_factory.mktemp("opa") / "bundle"))
