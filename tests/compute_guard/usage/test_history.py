"""Telemetry on disk: read back what was written, once, for as long as it is kept."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from compute_guard.usage.history import History
from compute_guard.usage.sources.synthetic import SECOND, Load, SyntheticSource
from guard_core.errors import UserError

START = 1_800_000_000 * SECOND


def recording(samples=20):
    return SyntheticSource((Load("training"), Load("idle-hold", index=1)), samples=samples, seed=4).read()


def test_what_was_written_is_read_back_in_time_order(tmp_path):
    before = recording()
    History(tmp_path).append(before)
    after = History(tmp_path).read(START, START + 3600 * SECOND)
    assert len(after) == len(before)
    assert (np.diff(after.ts_ns) >= 0).all()
    assert after.synthetic
    np.testing.assert_allclose(np.sort(after.metric("power_w")), np.sort(before.metric("power_w")))


def test_a_window_of_one_gpu_is_just_that(tmp_path):
    History(tmp_path).append(recording())
    part = History(tmp_path).read(START, START + 150 * SECOND, gpu_uuids=frozenset({"SYN-syn-node-1"}))
    assert {d.uuid for d in part.devices} == {"SYN-syn-node-1"}
    assert len(part) == 10


def test_writing_the_same_frame_twice_leaves_one_file(tmp_path):
    history = History(tmp_path)
    assert history.append(recording()) == history.append(recording())
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


def test_a_recording_over_an_hour_boundary_is_split_by_hour(tmp_path):
    assert len(History(tmp_path).append(recording(samples=300))) == 2


def test_retention_removes_whole_hours_and_nothing_newer(tmp_path):
    history = History(tmp_path, keep=timedelta(hours=1))
    history.append(recording(samples=300))
    first_hour_over = datetime.fromtimestamp(1_800_000_000, UTC) + timedelta(hours=2, minutes=1)
    assert history.expire(first_hour_over) == 1
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    assert not list(tmp_path.rglob(".*.tmp"))


def test_a_damaged_file_is_named(tmp_path):
    (path,) = History(tmp_path).append(recording())
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match=path.name):
        History(tmp_path).read(START, START + 60 * SECOND)


def test_a_disk_that_refuses_is_a_sentence_and_not_a_traceback(tmp_path):
    (tmp_path / "occupied").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        History(tmp_path / "occupied").append(recording())
