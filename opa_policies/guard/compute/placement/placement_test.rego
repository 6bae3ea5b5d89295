package guard.compute.placement_test

import data.guard.compute.placement
import data.guard.fixture_test as fixture

question := {
	"principal": fixture.principal,
	"now_ns": fixture.now_ns,
	"workload": {"submission_id": "w-1"},
	"node": {"id": "n1", "pool": "shared", "labels": {}, "state": "ready"},
}

decided(part, config) := value if {
	value := placement.decision with input as object.union(question, part)
		with data.guard.config as object.union(fixture.config, config)
}

denied(part) := fixture.rules(decided(part, {}).deny)

test_the_shared_pool_is_for_everyone if decided({}, {}).allow == true

test_a_pool_is_for_its_tenants_and_labels if {
	denied({"node": {"pool": "beta", "labels": {"zone": "b"}}}) == {"pool-foreign"}
	bo := {"principal": {"tenant": "beta", "user": "bo"}}
	denied(object.union(bo, {"node": {"pool": "beta", "labels": {"zone": "b"}}})) == set()
	denied(object.union(bo, {"node": {"pool": "beta", "labels": {"zone": "a"}}})) == {"label-mismatch"}
	denied(object.union(bo, {"node": {"pool": "beta", "labels": {}}})) == {"label-mismatch"}
}

test_a_pool_is_known if denied({"node": {"pool": "secret"}}) == {"pool-unknown"}

test_a_node_is_ready if denied({"node": {"state": "cordoned"}}) == {"node-not-ready"}

test_a_node_is_described if denied({"node": {"id": null}}) == {"node-incomplete"}

test_maintenance_holds_and_does_not_deny if {
	period := {"title": "x", "pools": ["shared"], "from": "2026-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}
	held := decided({}, {"calendars": {"maintenance": [period]}})
	held.allow == false
	held.deny == set()
	fixture.rules(held.hold) == {"pool-maintenance"}
}
