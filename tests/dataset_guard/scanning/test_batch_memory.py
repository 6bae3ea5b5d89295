"""Allocators are told when their library is loaded, and nothing of that stays in the environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dataset_guard.scanning.batch_memory import HUGE_PAGES, PURGE_DELAY, memory_for_batches

SETTINGS = ((PURGE_DELAY, "pyarrow"), (HUGE_PAGES, "numpy"))


@pytest.fixture
def not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, library in SETTINGS:
        monkeypatch.delitem(sys.modules, library, raising=False)
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.usefixtures("not_loaded")
def test_who_loads_a_library_in_the_block_finds_its_setting_and_who_comes_later_does_not() -> None:
    with memory_for_batches():
        assert int(os.environ[PURGE_DELAY]) > 1000
        assert os.environ[HUGE_PAGES] == "0"
        with memory_for_batches():
            pass
        assert {PURGE_DELAY, HUGE_PAGES} <= set(os.environ)
    assert not {PURGE_DELAY, HUGE_PAGES} & set(os.environ)


@pytest.mark.usefixtures("not_loaded")
@pytest.mark.parametrize(("variable", "library"), SETTINGS)
def test_what_somebody_chose_stays(monkeypatch: pytest.MonkeyPatch, variable: str, library: str) -> None:
    monkeypatch.setenv(variable, "1")
    with memory_for_batches():
        assert os.environ[variable] == "1"
    assert os.environ[variable] == "1"


@pytest.mark.usefixtures("not_loaded")
@pytest.mark.parametrize(("variable", "library"), SETTINGS)
def test_nothing_is_said_to_a_library_that_is_loaded(
    monkeypatch: pytest.MonkeyPatch, variable: str, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, sys)
    with memory_for_batches():
        assert variable not in os.environ


def test_whoever_registers_first_of_all_has_loaded_numpy_without_huge_pages() -> None:
    program = (
        "import dataset_guard; dataset_guard.register\n"
        "from numpy._core.multiarray import _set_madvise_hugepage\n"
        "print(_set_madvise_hugepage(True))"
    )
    clean = {name: value for name, value in os.environ.items() if name not in {PURGE_DELAY, HUGE_PAGES}}
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, check=True)
    assert done.stdout.strip() in (b"0", b"False")
