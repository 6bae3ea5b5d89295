"""The collector waits for a batch, and only for it."""

from __future__ import annotations

import gc

import pytest

from compute_guard.admission.garbage import garbage_waits


@pytest.fixture(autouse=True)
def collecting():
    gc.enable()
    yield
    gc.enable()


def test_it_collects_again_after_a_batch_that_failed():
    with pytest.raises(OSError, match="disk"), garbage_waits():
        assert not gc.isenabled()
        raise OSError("disk")
    assert gc.isenabled()


def test_a_batch_within_a_batch_does_not_end_the_wait():
    with garbage_waits():
        with garbage_waits():
            pass
        assert not gc.isenabled()


def test_a_process_that_never_collects_is_left_so():
    gc.disable()
    with garbage_waits():
        pass
    assert not gc.isenabled()
