"""Held against reserved, granted and allowed."""

from dataclasses import replace

import numpy as np
import pytest

from compute_guard.monitoring.monitor import Monitor
from compute_guard.quota.gpu_time import gpu_limits
from compute_guard.usage.attribution import Lease, LeaseBook
from compute_guard.usage.detectors import View
from compute_guard.usage.detectors.base import Entitlement
from compute_guard.usage.detectors.over_quota import OverQuota
from compute_guard.usage.rolling import Rolling
from compute_guard.usage.samples import Device, Frame
from compute_guard.usage.sources.synthetic import SECOND, Load, SyntheticSource

DEVICES = tuple(Device("n", f"GPU-{i}", i) for i in range(3))
HOUR_MS = 3_600_000


def signals(leases, at_s=3_600, **entitled):
    rolling = Rolling(15 * SECOND, 48)
    rolling.push(Frame(DEVICES, np.full(3, at_s * SECOND), np.arange(3, dtype=np.int32), {}))
    entitlements = {"acme": Entitlement(**entitled)} if entitled else {}
    view = View(rolling.snapshot(), LeaseBook.of(leases), {}, entitlements)
    return {signal.channel: signal for signal in OverQuota().detect(view)}


def lease(device=0, job="job-1", tenant="acme", milli=1000, granted=1000):
    return Lease(DEVICES[device].key, tenant, job, gpu_milli=milli, granted_milli=granted)


def test_a_job_that_holds_what_it_reserved_is_left_alone():
    assert signals([lease(), lease(1, "job-2", milli=500)], limit_milli=2000) == {}


def test_a_job_that_holds_more_than_it_reserved_is_a_warning_about_that_job():
    found = signals([lease(0), lease(1)], limit_milli=3000)
    assert set(found) == {"reservation"}
    assert (found["reservation"].job, found["reservation"].invariant) == ("job-1", False)
    assert found["reservation"].evidence == {"held_milli": 2000, "reserved_milli": 1000}


def test_slices_of_one_gpu_count_as_the_gpu():
    slices = [replace(lease(i), quota_milli=1000 if i == 0 else 0) for i in range(3)]
    assert signals(slices, limit_milli=1000) == {}


def test_a_tenant_beyond_what_its_queues_could_have_is_a_broken_invariant():
    found = signals([lease(i, granted=3000) for i in range(3)], limit_milli=2000)
    assert set(found) == {"limit"}
    assert found["limit"].invariant
    assert (found["limit"].tenant, found["limit"].job) == ("acme", "")


def test_a_reservation_that_is_not_known_is_not_held_against_anybody():
    assert signals([lease(i, granted=None) for i in range(3)], limit_milli=0) == {}


@pytest.mark.parametrize(
    ("spent_hours", "minutes"),
    [(9.0, None), (9.5, 15.0), (10.0, 0.0), (12.0, 0.0)],  # two GPUs burn two hours an hour
)
def test_an_allowance_is_announced_an_hour_before_it_ends_at_the_present_rate(spent_hours, minutes):
    found = signals(
        [lease(0, granted=2000), lease(1, granted=2000)],
        daily_ms=10 * HOUR_MS,
        spent_ms=int(spent_hours * HOUR_MS) - (0 if minutes is not None else 2 * HOUR_MS),
    )
    if minutes is None:
        assert found == {}
    else:
        assert found["allowance"].evidence["minutes_left"] == minutes


def test_an_allowance_that_lasts_to_midnight_is_not_announced():
    late = 86_400 - 600
    assert signals([lease()], late, daily_ms=10 * HOUR_MS, spent_ms=int(9.7 * HOUR_MS)) == {}
    assert signals([lease()], 3_600, daily_ms=10 * HOUR_MS, spent_ms=int(9.7 * HOUR_MS)) != {}


def test_what_a_tenants_queues_could_have_counts_what_they_may_borrow(home):
    limits = gpu_limits(home.policy_data()["quotas"])
    assert limits["acme"] == 2000  # beta lends no GPU, so the cohort has none to borrow
    assert limits["canary"] == 0


def test_what_was_spent_today_is_carried_over_a_restart_and_ends_with_the_day(still_home):
    load = Load("training", node="n1")
    book = LeaseBook.of([Lease(load.device.key, "acme", "job-1")])

    def run(spent=None, start=0):
        monitor = Monitor(still_home, book, None, record=False)
        if spent is not None:
            monitor.gpu_time.restore(spent)
        source = SyntheticSource((load,), 10, seed=3, start_ns=(1_800_000_000 + start) * SECOND)
        for frame in source.frames():
            monitor.judge(frame, int(np.median(frame.ts_ns)))
        return monitor.gpu_time.spent()

    once = run()
    assert once["gpu_ms"]["acme"] == pytest.approx(9 * 15_000, abs=400)
    assert run(once)["gpu_ms"]["acme"] == 2 * once["gpu_ms"]["acme"]
    assert run(once, start=86_400)["gpu_ms"]["acme"] == pytest.approx(9 * 15_000, abs=400)
