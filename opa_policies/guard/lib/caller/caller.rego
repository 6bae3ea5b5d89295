# METADATA
# title: Who is asking
# description: |
#   What every decision checks first: a complete principal of a known, active tenant. `principal.tenant` is
#   the tenant acted for; when a platform admin acts for another tenant, `on_behalf_of` repeats its name.
# custom:
#   article: 4
package guard.lib.caller

tenant := data.guard.config.tenants[input.principal.tenant]

tier := data.guard.config.thresholds.tiers[tenant.tier]

is_admin if "platform-admin" in input.principal.roles

# Reasons to refuse the caller whatever it asks. Stated as "not good", so that a missing field refuses too.
deny contains {"rule": "caller-unknown", "msg": "the request carries no complete principal"} if not complete

deny contains {"rule": "tenant-unknown", "msg": msg} if {
	complete
	not tenant
	msg := sprintf("tenant %v is not in the policy data (tenants.yaml)", [input.principal.tenant])
}

deny contains {"rule": "tenant-not-active", "msg": msg} if {
	complete
	tenant.state != "active"
	msg := sprintf("tenant %v is %v", [input.principal.tenant, tenant.state])
}

deny contains {"rule": "tier-unknown", "msg": msg} if {
	complete
	tenant
	not tier
	msg := sprintf("tenant %v has no protection tier in the policy data (thresholds.yaml)", [input.principal.tenant])
}

deny contains {"rule": "not-a-member", "msg": msg} if {
	complete
	is_object(tenant.members)
	input.principal.kind in {"tenant", "job"}
	not member
	msg := sprintf("user %v is not a member of tenant %v", [input.principal.user, input.principal.tenant])
}

deny contains {"rule": "not-on-behalf", "msg": msg} if {
	complete
	not own_or_admin
	msg := sprintf("user %v may not act on behalf of tenant %v", [input.principal.user, input.principal.tenant])
}

deny contains {"rule": "clock-missing", "msg": "the request carries no time (now_ns)"} if not timed

timed if is_number(input.now_ns)

member if is_array(tenant.members[input.principal.user])

complete if {
	is_string(input.principal.tenant)
	is_string(input.principal.user)
	is_array(input.principal.roles)
	input.principal.kind in {"local", "tenant", "job", "system"}
}

own_or_admin if object.get(input.principal, "on_behalf_of", null) == null

own_or_admin if {
	input.principal.on_behalf_of == input.principal.tenant
	is_admin
}
