package guard.compute.isolation_test

import data.guard.compute.isolation
import data.guard.fixture_test as fixture

question := {
	"principal": fixture.principal,
	"now_ns": fixture.now_ns,
	"operation": "stop",
	"target": {"kind": "job", "tenant": "acme", "id": "w-1"},
}

decided(part) := value if {
	value := isolation.decision with input as object.union(question, part)
		with data.guard.config as fixture.config
}

denied(part) := fixture.rules(decided(part).deny)

admin := {"principal": {"roles": ["platform-admin"]}}

test_a_tenant_reaches_its_own if decided({}).allow == true

test_a_tenant_reaches_nobody_elses if {
	every operation in ["status", "logs", "stop", "delete", "get-actor"] {
		denied({"operation": operation, "target": {"tenant": "beta"}}) == {"target-foreign"}
	}
}

test_an_admin_reaches_all_and_it_is_noted if {
	reached := decided(object.union(admin, {"target": {"tenant": "beta", "namespace": "beta/x"}}))
	reached.allow == true
	fixture.rules(reached.warn) == {"admin-access"}
	decided(admin).warn == set()
}

test_a_namespace_begins_with_the_tenant_and_a_slash if {
	denied({"target": {"namespace": "acme/x"}}) == set()
	every namespace in ["beta/x", "acme", "acmex", "", "/acme/x", "Acme/x"] {
		denied({"target": {"namespace": namespace}}) == {"namespace-foreign"}
	}
}

test_an_operation_nobody_defined_is_refused if denied({"operation": "own"}) == {"operation-unknown"}

test_a_target_is_named if {
	every part in [{"kind": null}, {"id": 7}, {"tenant": null}] { denied({"target": part}) == {"target-incomplete"} }
}
