package guard.policy.change_test

import data.guard.fixture_test as fixture
import data.guard.policy.change

question := {
	"principal": object.union(fixture.principal, {"roles": ["policy-admin"]}),
	"now_ns": fixture.now_ns,
	"change": {"kind": "promote", "author": "carol", "signed": true, "gate": {"ok": true}},
	"approvals": fixture.approved(["bob"]),
}

decided(part, config) := value if {
	value := change.decision with input as object.union(question, part)
		with data.guard.config as object.union(fixture.config, config)
}

denied(part) := fixture.rules(decided(part, {}).deny)

test_promoting_needs_a_second_person if {
	decided({}, {}).allow == true
	every people in [[], ["carol"], ["alice"], ["carol", "alice"]] {
		denied({"approvals": fixture.approved(people)}) == {"approvals-missing"}
	}
}

alone := {"approvals": []}

test_watching_needs_nobody if {
	every mode in ["shadow", "warn"] {
		denied(object.union(alone, {"change": {"kind": "stage", "mode": mode, "gate": null}})) == set()
	}
}

test_enforcing_for_a_part_is_deciding if {
	denied(object.union(alone, {"change": {"kind": "stage", "mode": "enforce"}})) == {"approvals-missing"}
}

test_going_back_needs_nobody_but_a_signature if {
	denied(object.union(alone, {"change": {"kind": "rollback", "gate": null}})) == set()
	denied(object.union(alone, {"change": {"kind": "rollback", "signed": "yes"}})) == {"unsigned"}
}

test_the_gate_passes_or_nothing_is_promoted if {
	every gate in [null, {"ok": false}, {"ok": "true"}] { denied({"change": {"gate": gate}}) == {"gate-failed"} }
}

freeze := {"calendars": {"freezes": [{
	"title": "year end",
	"from": "2026-01-01T00:00:00Z",
	"to": "2027-01-01T00:00:00Z",
}]}}

test_a_freeze_stops_what_decides_and_not_the_way_back if {
	fixture.rules(decided({}, freeze).deny) == {"frozen"}
	decided({"change": {"kind": "rollback"}}, freeze).allow == true
}

glass := {"kind": "break-glass", "reason": "stuck", "expires_ns": fixture.now_ns + 1}

test_breaking_the_glass_leaves_a_review if {
	broken := decided(object.union(alone, {"change": glass}), freeze)
	broken.allow == true
	fixture.rules(broken.warn) == {"review-needed"}
}

test_breaking_the_glass_is_explained_and_limited if {
	every reason in ["", null, 7] {
		denied({"change": object.union(glass, {"reason": reason})}) == {"break-glass-unexplained"}
	}
	every expires_ns in [null, "soon", fixture.now_ns, fixture.now_ns + 86400000000001] {
		denied({"change": object.union(glass, {"expires_ns": expires_ns})}) == {"break-glass-unlimited"}
	}
}

test_only_policy_admins_change_policy if {
	every roles in [[], ["tenant-admin"]] { denied({"principal": {"roles": roles}}) == {"not-a-policy-admin"} }
}

test_a_change_is_described if {
	every part in [{"kind": "replace"}, {"kind": "stage", "mode": "loud"}, {"author": null}] {
		"change-incomplete" in denied({"change": part})
	}
}
