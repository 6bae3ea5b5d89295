"""Writers at once: real processes, on SQLite and on a real PostgreSQL. No version is lost or made twice."""

import subprocess
import sys
import textwrap

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_guard.registry.store import Registry
from guard_core.config import load_settings
from guard_core.home import Home
from guard_core.storage.tables import Base

EACH = 3
SCRIPT = """
    import os
    import sys
    import dataset_guard
    import dataset_guard.registration.register, dataset_guard.registration.commit, dataset_guard.scanning.scan
    from guard_core.config import load_settings
    from guard_core.home import Home
    from guard_core.policy.engine import accepted, bundle_in_force

    url, path, count, *homes = sys.argv[1:]
    dataset_guard.fingerprint(path)
    accepted(bundle_in_force(load_settings(home=homes[0])))

    def write(home):
        with Home.open(load_settings(home=home, storage_url=url)) as opened:
            for _ in range(int(count)):
                found = dataset_guard.register(path, name="x", home=opened, checks=["schema"])
                os.write(1, b"%d\\n" % found.version)

    running = []
    for home in homes:
        running.append(os.fork())
        if not running[-1]:
            status = 1
            try:
                write(home)
                status = 0
            except Exception as error:
                os.write(2, repr(error).encode())
            finally:
                os._exit(status)
    sys.exit(any([os.waitpid(pid, 0)[1] for pid in running]))
"""
"""One process imports and loads what takes seconds, and forks the writers before it has opened anything."""


def registered_at_once(homes, url, path):
    """The version numbers that ``EACH`` registrations in each of as many processes gave."""
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), url, str(path), str(EACH), *map(str, homes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-1_000:]
    return [int(line) for line in done.stdout.split()]


@pytest.fixture
def data(tmp_path):
    pq.write_table(pa.table({"x": range(20)}), tmp_path / "x.parquet")
    return tmp_path / "x.parquet"


def check(home, url, numbers, *, own):
    with Home.open(load_settings(home=home, storage_url=url)) as opened:
        registry = Registry(opened)
        kept = registry.versions("x", tenant="local")
        assert [v.version for v in kept] == sorted(numbers) == list(range(1, len(numbers) + 1))
        here = [v for v in kept if v.folder.exists()]
        assert len(here) == own
        for version in here:
            assert registry.record(version)["version"] == version.version
        said = [e["subject"] for e in opened.audit.records(kind="dataset.registered")]
        assert {v.ref for v in here} <= set(said)


@pytest.mark.slow
def test_processes_of_one_home_on_sqlite(home_dir, data):
    url = f"sqlite:///{home_dir / 'trainguard.db'}"
    numbers = registered_at_once([home_dir] * 3, url, data)
    check(home_dir, url, numbers, own=3 * EACH)


@pytest.mark.slow
def test_processes_of_one_home_and_of_another_on_one_postgresql(tmp_path, data, postgresql):
    """Two homes share the database but no file system: only the database can tell them apart."""
    homes = [tmp_path / "a", tmp_path / "b"]
    with Home.open(load_settings(home=homes[0], storage_url=postgresql)) as first:
        try:
            numbers = registered_at_once([homes[0], homes[0], homes[1]], postgresql, data)
            check(homes[0], postgresql, numbers, own=2 * EACH)
            check(homes[1], postgresql, numbers, own=EACH)
        finally:
            Base.metadata.drop_all(first.storage.engine)
            with first.storage.engine.begin() as connection:
                connection.exec_driver_sql("DROP TABLE alembic_version")
