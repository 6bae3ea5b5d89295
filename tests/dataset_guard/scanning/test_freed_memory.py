"""Arrow's allocator is told to wait when pyarrow is loaded, and nothing of that stays in the environment."""

from __future__ import annotations

import os
import sys

import pyarrow as pa
import pytest

from dataset_guard.scanning.freed_memory import PURGE_DELAY, arrow_waits


@pytest.fixture
def not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pyarrow", raising=False)
    monkeypatch.delenv(PURGE_DELAY, raising=False)


@pytest.mark.usefixtures("not_loaded")
def test_whoever_loads_pyarrow_in_the_block_finds_a_delay_and_whoever_comes_later_does_not() -> None:
    with arrow_waits():
        assert int(os.environ[PURGE_DELAY]) > 1000
        with arrow_waits():
            pass
        assert PURGE_DELAY in os.environ
    assert PURGE_DELAY not in os.environ


@pytest.mark.usefixtures("not_loaded")
def test_a_delay_that_somebody_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PURGE_DELAY, "7")
    with arrow_waits():
        assert os.environ[PURGE_DELAY] == "7"
    assert os.environ[PURGE_DELAY] == "7"


def test_once_pyarrow_is_loaded_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pa.__name__ in sys.modules
    monkeypatch.delenv(PURGE_DELAY, raising=False)
    with arrow_waits():
        assert PURGE_DELAY not in os.environ
