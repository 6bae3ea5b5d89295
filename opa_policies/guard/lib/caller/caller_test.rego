package guard.lib.caller_test

import data.guard.fixture_test as fixture
import data.guard.lib.caller

denied(principal) := fixture.rules(reasons) if {
	reasons := caller.deny with input as {"principal": principal, "now_ns": fixture.now_ns}
		with data.guard.config as fixture.config
}

changed(part) := object.union(fixture.principal, part)

test_a_member_of_an_active_tenant_is_not_refused if denied(fixture.principal) == set()

test_nobody_is_refused if denied({}) == {"caller-unknown"}

test_a_principal_without_a_kind_is_refused if denied(object.remove(fixture.principal, ["kind"])) == {"caller-unknown"}

test_a_principal_without_roles_is_refused if denied(changed({"roles": "admin"})) == {"caller-unknown"}

test_an_unknown_tenant_is_refused if denied(changed({"tenant": "nobody"})) == {"tenant-unknown"}

test_a_suspended_tenant_is_refused if denied(changed({"tenant": "gone"})) == {"tenant-not-active"}

test_a_tenant_without_a_tier_is_refused if denied(changed({"tenant": "odd"})) == {"tier-unknown"}

test_a_member_is_let_in if denied(changed({"tenant": "beta", "user": "bo"})) == set()

test_a_stranger_to_a_tenant_with_members_is_refused if {
	denied(changed({"tenant": "beta", "user": "eve"})) == {"not-a-member"}
}

test_the_system_needs_no_membership if denied(changed({"tenant": "beta", "kind": "system"})) == set()

test_acting_for_another_tenant_needs_the_role if denied(changed({"on_behalf_of": "acme"})) == {"not-on-behalf"}

test_a_platform_admin_acts_for_a_tenant if {
	denied(changed({"on_behalf_of": "acme", "roles": ["platform-admin"]})) == set()
}

test_acting_for_one_tenant_is_not_acting_for_two if {
	denied(changed({"on_behalf_of": "beta", "roles": ["platform-admin"]})) == {"not-on-behalf"}
}

test_a_request_without_a_time_is_refused if {
	refused := caller.deny with input as {"principal": fixture.principal} with data.guard.config as fixture.config
	fixture.rules(refused) == {"clock-missing"}
}
