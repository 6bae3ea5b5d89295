# METADATA
# title: Working hours, holidays, maintenance and freezes
# description: Read from calendars.yaml; the time is always input.now_ns.
# custom:
#   article: 5
package guard.lib.calendar

# METADATA
# title: The admins' calendars
# description: calendars.yaml.
# custom:
#   article: 5
config := data.guard.config.calendars

# Whether people can be expected to look.
default working := false

# METADATA
# title: Working hours
# description: Whether people can be expected to look; a working day, between its hours, no holiday.
# scope: document
# custom:
#   article: 5
working if {
	is_number(input.now_ns)
	time.weekday([input.now_ns, config.time_zone]) in config.working_hours.days
	hour := time.clock([input.now_ns, config.time_zone])[0]
	hour >= config.working_hours.from_hour
	hour < config.working_hours.to_hour
	not holiday
}

# METADATA
# title: A holiday
# description: By its date in the time zone of the calendar.
# custom:
#   article: 5
holiday if {
	is_number(input.now_ns)
	date := time.date([input.now_ns, config.time_zone])
	sprintf("%v-%v-%v", [date[0], two(date[1]), two(date[2])]) in config.holidays
}

# Freezes in force, by title.
# METADATA
# title: Freezes in force
# description: |
#   By title (calendars.yaml): while one lasts, policy does not change.
# custom:
#   article: 5
freezes contains period.title if {
	is_number(input.now_ns)
	some period in config.freezes
	covers(period, input.now_ns)
}

# METADATA
# title: Pools under maintenance
# description: |
#   By name (calendars.yaml): nothing starts on them now.
# custom:
#   article: 5
pools_under_maintenance contains pool if {
	is_number(input.now_ns)
	some period in config.maintenance
	covers(period, input.now_ns)
	some pool in period.pools
}

# METADATA
# title: The period covers the time
# description: Its end is not part of it.
# custom:
#   article: 5
covers(period, now_ns) if {
	now_ns >= time.parse_rfc3339_ns(period.from)
	now_ns < time.parse_rfc3339_ns(period.to)
}

# METADATA
# title: Two digits
# description: Of a month or day, as dates are written.
# scope: document
# custom:
#   article: 5
two(number) := sprintf("%v", [number]) if number > 9

two(number) := sprintf("0%v", [number]) if number < 10
