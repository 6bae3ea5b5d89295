"""Scans have the collector look less often, and leave it as they found it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from dataset_guard.scanning.collecting import YOUNG_OBJECTS, collecting_seldom


@pytest.fixture(autouse=True)
def threshold() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 11, 12)
    yield
    gc.set_threshold(*before)


def test_the_threshold_is_higher_until_the_last_of_them_ends() -> None:
    with collecting_seldom():
        with collecting_seldom():
            assert gc.get_threshold() == (YOUNG_OBJECTS, 11, 12)
        assert gc.get_threshold() == (YOUNG_OBJECTS, 11, 12)
    assert gc.get_threshold() == (700, 11, 12)


def test_a_scan_that_fails_puts_it_back_too() -> None:
    with pytest.raises(ValueError, match="no data"), collecting_seldom():
        raise ValueError("no data")
    assert gc.get_threshold() == (700, 11, 12)


def test_a_collector_that_is_off_or_rarer_still_stays_so() -> None:
    for chosen in ((0, 11, 12), (10 * YOUNG_OBJECTS, 11, 12)):
        gc.set_threshold(*chosen)
        with collecting_seldom():
            assert gc.get_threshold() == chosen
        assert gc.get_threshold() == chosen
