"""Frames, their Arrow form, and where made-up data says that it is made up."""

import numpy as np
import pytest

from compute_guard.usage.samples import SCHEMA, Device, Frame, Processes, concat, from_table, to_table
from compute_guard.usage.sources.synthetic import Load, SyntheticSource
from guard_core.errors import UserError

REAL = Device("node-a", "GPU-1", 0, "H100")


def frame(device=REAL, ts=(1, 2), **values):
    arrays = {
        name: np.asarray(v, dtype=np.float64 if name == "energy_j" else np.float32)
        for name, v in values.items()
    }
    return Frame((device,), np.asarray(ts, dtype=np.int64), np.zeros(len(ts), dtype=np.int32), arrays)


def test_a_metric_nobody_read_is_nan_and_not_zero():
    assert np.isnan(frame(util_percent=[1, 2]).metric("tensor_active")).all()


def test_a_frame_survives_arrow_with_its_gaps_and_processes():
    seen = Processes.of([(2, 0, 4242, 1 << 30, float("nan"), "python")])
    before = frame(util_percent=[np.nan, 50], energy_j=[1e9 + 0.5, 1e9 + 1.5])
    before = Frame(before.devices, before.ts_ns, before.device, before.values, seen)
    after = from_table(to_table(before), origin="test")
    assert after.devices == before.devices
    np.testing.assert_array_equal(after.metric("util_percent"), before.metric("util_percent"))
    np.testing.assert_array_equal(after.metric("energy_j"), before.metric("energy_j"))
    assert [row[:4] for row in after.processes.rows()] == [(2, 0, 4242, 1 << 30)]
    assert after.processes.name == ("python",)


def test_made_up_telemetry_says_so_in_every_stored_row():
    table = to_table(SyntheticSource((Load("training"),), samples=5, seed=1).read())
    assert table.schema.equals(SCHEMA)
    assert table.column("synthetic").to_pylist() == [True] * 5
    assert all(uuid.startswith("SYN-") for uuid in table.column("gpu_uuid").to_pylist())


def test_mixing_real_and_made_up_devices_keeps_them_apart():
    fake = Device("node-a", "GPU-1", 0, "H100", synthetic=True)
    both = concat([frame(util_percent=[1, 2]), frame(fake, util_percent=[90, 90])])
    assert both.synthetic
    assert len(both.devices) == 2
    assert not frame(util_percent=[1, 2]).synthetic


def test_telemetry_of_unknown_provenance_is_refused_by_name():
    table = to_table(frame(util_percent=[1, 2])).drop_columns(["synthetic"])
    with pytest.raises(UserError, match=r"recording\.parquet has no column 'synthetic'"):
        from_table(table, origin="recording.parquet")


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="util_percent has 1 rows, ts_ns has 2"):
        frame(util_percent=[1])


def test_taking_samples_takes_the_processes_seen_with_them():
    both = Frame(
        (REAL,),
        np.asarray([1, 2]),
        np.zeros(2, dtype=np.int32),
        {},
        Processes.of([(1, 0, 7, 0, 0.0, "a"), (2, 0, 8, 0, 0.0, "b")]),
    )
    assert both.take(np.asarray([1])).processes.pid.tolist() == [8]
