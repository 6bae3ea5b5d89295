package guard.lib.calendar_test

import data.guard.fixture_test as fixture
import data.guard.lib.calendar

# Monday 2026-11-23 04:00 UTC is 12:00 in Shanghai.
noon := 1795406400000000000

hours(n) := noon + ((n * 3600) * 1000000000)

calendars := fixture.config.calendars

working(now_ns, part) if {
	calendar.working with input as {"now_ns": now_ns} with data.guard.config.calendars as object.union(calendars, part)
}

test_noon_on_a_working_day_is_working_time if working(noon, {})

test_hours_are_those_of_the_time_zone if {
	not working(hours(-4), {})
	working(hours(-3), {})
	working(hours(5), {})
	not working(hours(6), {})
}

test_other_days_are_not_worked if not working(hours(24), {})

test_holidays_are_not_worked if {
	not working(noon, {"holidays": ["2026-11-23"]})
	working(noon, {"holidays": ["2026-11-24"]})
}

test_no_time_is_no_working_time if not working(null, {})

period := {"title": "upgrade", "from": "2026-11-23T04:00:00Z", "to": "2026-11-23T05:00:00Z", "pools": ["shared"]}

test_a_freeze_begins_on_time_and_ends_before_its_end if {
	every offset, titles in {0: {"upgrade"}, 1: set(), -1: set()} {
		found := calendar.freezes with input as {"now_ns": hours(offset)}
			with data.guard.config.calendars as object.union(calendars, {"freezes": [period]})
		found == titles
	}
}

test_maintenance_names_its_pools if {
	found := calendar.pools_under_maintenance with input as {"now_ns": noon}
		with data.guard.config.calendars as object.union(calendars, {"maintenance": [period]})
	found == {"shared"}
}

test_months_and_days_have_two_digits if {
	january := 1767582000000000000
	not working(january, {"holidays": ["2026-01-05"]})
	working(january, {"holidays": ["2026-1-5"]})
}
