# METADATA
# title: Whose approval counts
# description: |
#   Different people with an approver's role, of the right tenant where that matters, not the one who asks,
#   and recently. The caller has verified each approver's credential.
# custom:
#   article: 5
package guard.lib.approvals

# METADATA
# title: The people whose approval counts
# description: |
#   `tenant` is null when people of any tenant may approve.
# custom:
#   article: 5
people(approvals, asked_by, roles, tenant, now_ns, ttl_seconds) := {approval.by |
	is_array(approvals)
	is_number(now_ns)
	some approval in approvals
	is_string(approval.by)
	approval.by != asked_by
	approval.role in roles
	is_number(approval.at_ns)
	approval.at_ns <= now_ns
	now_ns - approval.at_ns <= ttl_seconds * 1000000000
	of_tenant(approval, tenant)
}

# METADATA
# title: The approver is of the right tenant
# description: Of any, where the operation does not say one.
# scope: document
# custom:
#   article: 5
of_tenant(_, tenant) if is_null(tenant)

of_tenant(approval, tenant) if {
	is_string(tenant)
	approval.tenant == tenant
}
