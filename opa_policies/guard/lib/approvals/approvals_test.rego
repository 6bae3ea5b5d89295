package guard.lib.approvals_test

import data.guard.lib.approvals

counted(part) := approvals.people(
	[object.union({"by": "bob", "role": "steward", "tenant": "acme", "at_ns": 1000}, part)],
	"alice",
	["steward"],
	"acme",
	1000,
	1,
)

test_another_person_with_the_role_counts if counted({}) == {"bob"}

test_the_one_who_asks_does_not_count if counted({"by": "alice"}) == set()

test_another_role_does_not_count if counted({"role": "user"}) == set()

test_another_tenant_does_not_count if {
	counted({"tenant": "beta"}) == set()
	counted({"tenant": null}) == set()
}

test_a_nameless_approval_does_not_count if counted({"by": null}) == set()

test_the_future_does_not_count if counted({"at_ns": 1001}) == set()

test_a_time_that_is_none_does_not_count if counted({"at_ns": "1000"}) == set()

test_any_tenant_counts_when_none_is_asked if {
	given := [{"by": "bob", "role": "steward", "at_ns": 1}]
	approvals.people(given, "alice", ["steward"], null, 1, 1) == {"bob"}
}

test_old_approvals_do_not_count if {
	given := [{"by": "bob", "role": "steward", "at_ns": 0}]
	approvals.people(given, "alice", ["steward"], null, 1000000000, 1) == {"bob"}
	approvals.people(given, "alice", ["steward"], null, 1000000001, 1) == set()
}

test_approvals_that_are_no_list_count_for_nothing if {
	every given in [null, "bob", {"by": "bob"}] { approvals.people(given, "a", ["steward"], null, 1, 1) == set() }
}
