"""A tenant's use over weeks: what is counted, what is told, and that a restarted monitor knows last week."""

import numpy as np
import pytest

from compute_guard.usage.attribution import Lease, LeaseBook
from compute_guard.usage.courses import CELL_NS, DAY, Courses
from compute_guard.usage.detectors import View
from compute_guard.usage.detectors.unusual_course import UnusualCourse
from compute_guard.usage.roster import roster
from compute_guard.usage.samples import Device
from compute_guard.usage.window import NEVER, Traits, Window
from guard_core.errors import UserError

BEGIN = 20_000 * 86_400 * 1_000_000_000
GPUS = tuple(Device("n1", f"GPU-{i}", i, "H100", synthetic=False) for i in range(2))
BOOK = LeaseBook.of([Lease(GPUS[0].key, "acme", "a"), Lease(GPUS[1].key, "beta", "b", gpu_milli=500)])


class Watched:
    """Courses fed with one scrape per point."""

    def __init__(self, courses, devices=GPUS):
        self.courses, self.devices, self.at = courses, devices, BEGIN
        self._columns = {device.key: number for number, device in enumerate(devices)}
        self._roster = roster(BOOK, self._columns, len(devices))

    def scrape(self, *util):
        seen = np.full((1, len(self.devices)), self.at)
        window = Window(
            self.devices, CELL_NS, self.at + CELL_NS, seen,
            {"util_percent": np.asarray([util], dtype=np.float32)}, {}, np.full_like(seen[0], NEVER),
            Traits.of(self.devices), self._columns,
        )  # fmt: skip
        found = self.courses.take(window, self._roster)
        self.at += CELL_NS
        return window, found


def night_and_day(days, seed=3):
    rng = np.random.default_rng(seed)
    hours = np.arange(days * DAY) % DAY / DAY * 24
    busy = np.where((hours >= 8) & (hours < 18), 90.0, 0.0) + rng.uniform(0, 4, days * DAY)
    return np.stack([busy, np.full(days * DAY, 60.0)], axis=1)


@pytest.fixture(scope="module")
def habit():
    """Five days of a habit, and what was told meanwhile."""
    watched = Watched(Courses(quiet_days=3.0))
    told = [tenant for row in night_and_day(5) for tenant, c in watched.scrape(*row)[1].items() if c.told]
    return watched, told


def test_use_is_counted_by_tenant_and_by_share_of_a_device(habit):
    watched, told = habit
    assert told == []
    values = {name: one.values for name, one in watched.courses._tenants.items()}
    assert set(values) == {"acme", "beta"}
    assert values["beta"][10] == pytest.approx(0.3)
    assert values["acme"][12 * 12] == pytest.approx(0.92, abs=0.03)


def test_a_night_of_computing_is_a_warning_about_the_tenant_and_survives_a_restart(habit, tmp_path):
    habit[0].courses.save(tmp_path / "courses.npz")
    again = Courses(quiet_days=3.0, reheard=10_000)
    again.load(tmp_path / "courses.npz")
    watched = Watched(again)
    watched.at = habit[0].at
    signals = []
    for _ in range(24):  # midnight to two
        window, found = watched.scrape(95.0, 60.0)
        signals += UnusualCourse(floor=0.5).detect(View(window, BOOK, courses=found))
    assert {(s.tenant, s.job, s.kind, s.channel) for s in signals} == {
        ("acme", "", "unusual_course", "course")
    }
    assert signals[0].evidence["usual_at_this_hour"] < 0.1 < 0.9 < signals[0].evidence["busy"]
    assert "0.9 accelerators busy, 0.0 is usual at this hour" in signals[0].message
    assert "该时段通常为0.0张" in signals[0].message_zh
    few = UnusualCourse(floor=2.0).detect(View(window, BOOK, courses=found))
    assert list(few) == []


def test_hours_that_nobody_watched_are_taken_to_be_as_the_day_before(tmp_path):
    watched = Watched(Courses(quiet_days=1.0))
    for row in night_and_day(2):
        watched.scrape(*row)
    watched.at += 6 * 12 * CELL_NS  # the monitor was away from midnight to six
    watched.scrape(0.0, 60.0)
    watched.scrape(0.0, 60.0)
    values = watched.courses._tenants["acme"].values
    assert len(values) == 2 * DAY + 72 + 1
    assert values[2 * DAY : 2 * DAY + 72] == values[DAY : DAY + 72]


def test_made_up_readings_teach_nothing():
    watched = Watched(Courses(), tuple(Device("n1", f"S-{i}", i, "H100", synthetic=True) for i in range(2)))
    for _ in range(5):
        _, found = watched.scrape(90.0, 90.0)
    assert found == {}


def test_a_clock_that_was_far_ahead_is_followed_back():
    watched = Watched(Courses(quiet_days=1.0))
    for ahead in (0, 0, 50, -50, 0, 0):
        watched.at += ahead * CELL_NS
        watched.scrape(90.0, 90.0)
    assert len(watched.courses._tenants["acme"].values) > 50


def test_damaged_points_are_said_and_not_overwritten(tmp_path):
    path = tmp_path / "courses.npz"
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(UserError, match="damaged"):
        Courses().load(path)
    Courses().save(path)  # nothing new: nothing is written
    assert path.read_bytes() == b"PK\x03\x04 nothing"
