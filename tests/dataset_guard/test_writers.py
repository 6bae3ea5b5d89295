"""Writers at once: real processes, on SQLite and on a real PostgreSQL. No version is lost or made twice."""

import subprocess
import sys
import textwrap

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_guard.registry import Registry
from guard_core.config import load_settings
from guard_core.home import Home
from guard_core.storage.tables import Base

EACH = 3
SCRIPT = """
    import sys
    import dataset_guard
    from guard_core.config import load_settings
    from guard_core.home import Home

    home, url, path, count = sys.argv[1:]
    with Home.open(load_settings(home=home, storage_url=url)) as opened:
        for _ in range(int(count)):
            print(dataset_guard.register(path, name="x", home=opened, checks=["schema"]).version, flush=True)
"""


def registered_at_once(homes, url, path):
    """The version numbers that ``EACH`` registrations in each of these processes gave."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SCRIPT), str(home), url, str(path), str(EACH)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for home in homes
    ]
    found = []
    for process in running:
        out, err = process.communicate()
        assert process.returncode == 0, err[-1_000:]
        found += [int(line) for line in out.split()]
    return found


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
