"""Signals merged into observations, and the hysteresis before they open anything."""

from __future__ import annotations

from compute_guard.incidents.observations import Hysteresis, merge
from compute_guard.usage.attribution import Lease, LeaseBook
from compute_guard.usage.detectors.base import Signal


def signal(channel="telemetry", device="n/GPU-1", **more):
    values = {"rule_id": "USAG001", "kind": "mining", "score": 800, "message": "x", **more}
    return Signal(channel=channel, device=device, **values)


BOOK = LeaseBook.of(
    [Lease("n/GPU-1", "acme", "job-1"), Lease("n/GPU-2", "acme", "job-1"), Lease("n/GPU-3", "beta", "job-2")]
)


def test_signals_of_all_devices_and_channels_of_a_job_become_one_observation():
    signals = [signal(), signal(device="n/GPU-2", score=500), signal("indicator", score=900)]
    (one,) = merge(signals, BOOK, 0)
    assert one.key == ("acme", "job-1", "mining")
    assert sorted(one.channels) == ["indicator", "telemetry"]
    assert one.channels["telemetry"]["score"] == 800  # the strongest of a channel speaks for it
    assert one.devices == ("n/GPU-1", "n/GPU-2")
    assert one.score == 900


def test_jobs_tenants_and_kinds_are_kept_apart():
    signals = [signal(), signal(device="n/GPU-3"), signal(kind="idle_hoard", rule_id="USAG002")]
    assert [o.key for o in merge(signals, BOOK, 0)] == [
        ("acme", "job-1", "idle_hoard"),
        ("acme", "job-1", "mining"),
        ("beta", "job-2", "mining"),
    ]


def test_a_signal_on_a_device_nobody_leased_is_nobodys():
    assert [o.key for o in merge([signal(device="n/GPU-9")], BOOK, 0)] == [
        ("unattributed", "n/GPU-9", "mining")
    ]


def test_one_made_up_signal_makes_the_observation_made_up():
    (one,) = merge([signal(), signal("indicator", synthetic=True)], BOOK, 0)
    assert one.synthetic


def test_a_single_flicker_raises_nothing_and_a_single_gap_clears_nothing(seen):
    hysteresis, one = Hysteresis(raise_after=2, clear_after=3), seen("telemetry")
    assert hysteresis.step([one]) == ((), ())
    assert hysteresis.step([]) == ((), ())
    hysteresis.step([one])
    assert hysteresis.step([one]) == ((one,), ())
    assert hysteresis.step([]) == ((), ())
    assert hysteresis.step([one]) == ((one,), ())
    assert [hysteresis.step([])[1] for _ in range(4)] == [(), (), (one.key,), ()]
