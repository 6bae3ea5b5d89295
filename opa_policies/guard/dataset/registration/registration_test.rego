package guard.dataset.registration_test

import data.guard.dataset.registration
import data.guard.fixture_test as fixture

question := {
	"principal": fixture.principal,
	"now_ns": fixture.now_ns,
	"dataset": {"tenant": "acme", "name": "digits", "rows": 10, "columns": 2},
	"findings": [],
	"baseline": {"present": false},
}

decided(part, config) := value if {
	value := registration.decision with input as object.union(question, part)
		with data.guard.config as object.union(fixture.config, config)
}

found(rule, severity) := {"rule_id": rule, "severity": severity, "rows_ppm": 100}

verdict(findings) := decided({"findings": findings}, {}).verdict

test_the_worst_finding_decides if {
	verdict([]) == "allow"
	verdict([found("QUAL001", "info")]) == "allow"
	verdict([found("QUAL001", "info"), found("QUAL002", "warning")]) == "warn"
	verdict([found("QUAL002", "warning"), found("LEAK001", "critical")]) == "quarantine"
	verdict([found("QUAL001", "warning"), found("QUAL001", "critical")]) == "quarantine"
}

test_an_unknown_severity_is_critical if verdict([found("QUAL001", "")]) == "quarantine"

test_the_strict_tier_denies_and_quarantines if {
	strict := {"principal": {"tenant": "beta", "user": "bo"}, "dataset": {"tenant": "beta"}, "baseline": {"present": true}}
	decided(object.union(strict, {"findings": [found("LEAK001", "critical")]}), {}).verdict == "deny"
	decided(object.union(strict, {"findings": [found("LEAK001", "critical")]}), {}).allow == true
	decided(object.union(strict, {"findings": [found("QUAL001", "warning")]}), {}).verdict == "quarantine"
	decided(strict, {}).verdict == "allow"
}

test_a_tier_may_require_a_baseline if {
	strict := {"principal": {"tenant": "beta", "user": "bo"}, "dataset": {"tenant": "beta"}}
	fixture.rules(decided(strict, {}).deny) == {"baseline-required"}
}

all_ran := {"left_out": [], "changed": [], "cut_short": []}

test_a_tier_may_require_all_checks_as_they_ship if {
	required := setting({"checks": "required"})
	decided({"checks": all_ran}, required).deny == set()
	fixture.rules(decided({}, required).deny) == {"checks-required"}
	some field in ["left_out", "changed", "cut_short"]
	part := object.union(all_ran, {field: ["secrets", "label_errors"]})
	some reason in decided({"checks": part}, required).deny
	reason.rule == "checks-required"
	contains(reason.msg, "secrets, label_errors")
}

test_a_tier_may_warn_of_checks_that_did_not_run if {
	warned := setting({"checks": "warn"})
	fixture.rules(decided({"checks": all_ran}, warned).warn) == set()
	some reason in decided({"checks": object.union(all_ran, {"left_out": ["secrets"]})}, warned).warn
	reason.msg == "the verdict rests on fewer checks than ship (left out: secrets)"
	decided({}, warned).verdict == "allow"
}

tolerating(ppm) := {"thresholds": {"tiers": {"basic": {"registration": {"tolerated_ppm": {"QUAL001": ppm}}}}}}

test_a_tolerated_share_is_only_noted if {
	decided({"findings": [found("QUAL001", "critical")]}, tolerating(100)).verdict == "allow"
	decided({"findings": [found("QUAL001", "critical")]}, tolerating(99)).verdict == "quarantine"
	decided({"findings": [found("LEAK001", "critical")]}, tolerating(100)).verdict == "quarantine"
}

setting(part) := {"thresholds": {"tiers": {"basic": {"registration": part}}}}

test_a_tier_may_say_what_a_rule_weighs if {
	lowered := setting({"severities": {"POIS002": "info"}})
	decided({"findings": [found("POIS002", "critical")]}, lowered).verdict == "allow"
	decided({"findings": [found("POIS002", "unheard-of")]}, lowered).verdict == "allow"
	raised := setting({"severities": {"POIS002": "critical"}})
	decided({"findings": [found("POIS002", "info")]}, raised).verdict == "quarantine"
	decided({"findings": [found("POIS001", "warning")]}, raised).verdict == "warn"
}

test_a_budget_is_for_all_findings_of_a_rule_together if {
	two := {"findings": [found("POIS011", "critical"), found("POIS011", "warning")]}
	decided(two, setting({"budgets_ppm": {"POIS011": 200}})).verdict == "allow"
	decided(two, setting({"budgets_ppm": {"POIS011": 199}})).verdict == "quarantine"
	decided(two, setting({"budgets_ppm": {"POIS010": 1000000}})).verdict == "quarantine"
}

test_a_finding_about_the_set_is_beyond_any_budget if {
	unsaid := {"rule_id": "POIS011", "severity": "critical", "rows_ppm": null}
	both := {"findings": [found("POIS011", "critical"), unsaid]}
	decided(both, setting({"budgets_ppm": {"POIS011": 1000000}})).verdict == "quarantine"
}

test_a_finding_without_a_share_is_not_tolerated if {
	finding := {"rule_id": "QUAL001", "severity": "critical", "rows_ppm": null}
	decided({"findings": [finding]}, tolerating(1000000)).verdict == "quarantine"
}

waiver := {
	"tenant": "acme",
	"dataset": "digits",
	"rule_id": "LEAK001",
	"author": "alice",
	"approver": "bob",
	"reason": "known",
	"expires": "2036-01-01T00:00:00Z",
}

waiving(part) := {"waivers": {"waivers": [object.union(waiver, part)]}}

critical := {"findings": [found("LEAK001", "critical")]}

test_a_waiver_lowers_its_rule_to_a_warning if {
	decided(critical, waiving({})).verdict == "warn"
	some reason in decided(critical, waiving({})).warn
	reason.severity == "waived"
}

test_a_waiver_covers_nothing_else if {
	every part in [
		{"rule_id": "LEAK002"},
		{"dataset": "other"},
		{"tenant": "beta"},
		{"author": "bob"},
		{"expires": "2026-01-01T00:00:00Z"},
	] {
		decided(critical, waiving(part)).verdict == "quarantine"
	}
}

test_findings_that_cannot_be_read_refuse_the_dataset if {
	every findings in [null, "none", [1], [{"rule_id": "LEAK001"}], [{"severity": "info"}]] {
		fixture.rules(decided({"findings": findings}, {}).deny) == {"dataset-incomplete"}
		decided({"findings": findings}, {}).verdict == "deny"
	}
}

test_an_empty_dataset_is_refused if {
	fixture.rules(decided({"dataset": {"rows": 0}}, {}).deny) == {"dataset-empty"}
}
