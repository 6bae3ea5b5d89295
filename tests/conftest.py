"""Fixtures every test may use. Nothing here stands in for a real part."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "1"

from guard_core.config import load_settings
from guard_core.home import Home
from guard_core.storage import Storage
from guard_core.testing import FrozenClock


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own TRAINGUARD_* variables change no test (the OPA binary's place is not a setting)."""
    for name in list(os.environ):
        if name.startswith("TRAINGUARD_") and name != "TRAINGUARD_OPA":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, migrated for real, once: copying it saves every test a third of a second."""
    folder = tmp_path_factory.mktemp("migrated")
    storage = Storage.in_home(folder)
    storage.upgrade()
    storage.close()
    return storage.sqlite_path


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
