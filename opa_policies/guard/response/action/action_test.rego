package guard.response.action_test

import data.guard.fixture_test as fixture
import data.guard.response.action

question(level) := {
	"principal": object.union(fixture.principal, {"kind": "system", "user": "trainguard"}),
	"now_ns": fixture.now_ns,
	"action": {"level": level, "target": {"tenant": "acme", "node": "n1"}},
	"incident": {"id": "i", "kind": "quota-escape", "tenant": "acme", "severity": "incident"},
	"approvals": [],
	"playbook": null,
	"blast": {"actions_last_hour": 0, "tenants_affected": 1},
	"dry_run": false,
}

decided(level, part, config) := value if {
	value := action.decision with input as object.union(question(level), part)
		with data.guard.config as object.union(fixture.config, config)
}

denied(level, part) := fixture.rules(decided(level, part, {}).deny)

by(people) := {"approvals": [{"by": who, "role": "incident-approver", "at_ns": fixture.now_ns} | some who in people]}

test_the_ladder_needs_nobody_then_one_then_two if {
	every level, people in [[], [], [], [], ["a"], ["a"], ["a", "b"], ["a", "b"]] {
		decided(level, by(people), {}).allow == true
	}
	every level, people in {4: [], 5: [], 6: ["a"], 7: ["a"]} {
		denied(level, by(people)) == {"approvals-missing"}
	}
}

test_one_person_twice_is_one_person if denied(6, by(["a", "a"])) == {"approvals-missing"}

test_who_asks_does_not_approve if denied(4, by(["trainguard"])) == {"approvals-missing"}

at(ns) := {"approvals": [{"by": "a", "role": "incident-approver", "at_ns": ns}]}

test_an_approval_expires_and_does_not_come_from_the_future if {
	decided(4, at(fixture.now_ns - 3600000000000), {}).allow == true
	denied(4, at(fixture.now_ns - 3600000000001)) == {"approvals-missing"}
	denied(4, at(fixture.now_ns + 1)) == {"approvals-missing"}
}

test_the_kill_switch_stops_level_three_and_up if {
	decided(2, {}, {"playbooks": {"kill_switch": true}}).allow == true
	fixture.rules(decided(3, {}, {"playbooks": {"kill_switch": true}}).deny) == {"kill-switch"}
	fixture.rules(decided(3, {}, {"playbooks": {"kill_switch": "off"}}).deny) == {"kill-switch"}
}

drill := {"playbook": {"name": "drill"}}

test_a_playbook_replaces_one_approval_and_never_two if {
	decided(5, drill, {}).allow == true
	denied(6, drill) == {"approvals-missing"}
}

test_a_playbook_has_limits if {
	every part in [
		{"enabled": false},
		{"kinds": ["mining"]},
		{"tenants": ["beta"]},
		{"max_level": 4},
		{"expires": "2026-01-01T00:00:00Z"},
	] {
		fixture.rules(decided(5, drill, {"playbooks": {"playbooks": {"drill": part}}}).deny) == {"approvals-missing"}
	}
}

test_the_blast_is_capped_from_level_three if {
	over := {"blast": {"actions_last_hour": 5, "tenants_affected": 2}}
	denied(3, over) == {"blast-actions", "blast-tenants"}
	decided(2, over, {}).allow == true
	denied(3, {"blast": {"actions_last_hour": null}}) == {"blast-actions"}
}

test_a_dry_run_says_what_it_would_need if {
	dry := decided(7, {"dry_run": true}, {"playbooks": {"kill_switch": true}})
	dry.allow == true
	fixture.rules(dry.warn) == {"kill-switch", "approvals-missing"}
	dry.approvals == {"needed": 2, "given": 0}
}

test_a_warning_is_not_acted_upon_unless_a_person_vouches if {
	warning := {"incident": {"severity": "warning"}}
	denied(3, warning) == {"severity-too-low"}
	decided(3, object.union(warning, by(["a"])), {}).allow == true
	decided(2, warning, {}).allow == true
}

test_the_target_is_the_incidents_tenant_or_a_node if {
	denied(3, {"action": {"target": {"tenant": "beta"}}}) == {"target-mismatch"}
	denied(7, object.union(by(["a", "b"]), {"action": {"target": {"node": null}}})) == {"target-missing"}
}

test_only_responders_respond if {
	denied(0, {"principal": {"kind": "tenant"}}) == {"not-a-responder"}
	denied(0, {"principal": {"kind": "tenant", "roles": ["incident-responder"]}}) == set()
}

test_an_action_off_the_ladder_is_refused if {
	every level in [-1, 8, "5", null, [5]] { "action-incomplete" in denied(level, {}) }
}
