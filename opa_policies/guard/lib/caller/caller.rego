# METADATA
# title: Who is asking
# description: |
#   What every decision checks first: a complete principal of a known, active tenant. `principal.tenant` is
#   the tenant acted for; when a platform admin acts for another tenant, `on_behalf_of` repeats its name.
# custom:
#   article: 4
#   instead:
#     caller-unknown: use a credential (trainguard tenant issue), which names its tenant and user
#     tenant-unknown: add the tenant to tenants.yaml, or use a credential of a tenant that is there
#     tenant-not-active: a platform admin sets the tenant's state to active in tenants.yaml
#     tier-unknown: set the tenant's tier in tenants.yaml to one of thresholds.yaml
#     not-a-member: a platform admin adds the user to the tenant's members in tenants.yaml
#     not-on-behalf: use a credential of that tenant, or one with the role platform-admin
#     clock-missing: send now_ns, the time in nanoseconds since 1970
package guard.lib.caller

# The tenant's name and the user's, when they are text.
default name := "?"

# METADATA
# title: The tenant's name
# description: As text, for messages.
# scope: document
# custom:
#   article: 4
name := input.principal.tenant if is_string(input.principal.tenant)

default user := "?"

# METADATA
# title: The user's name
# description: As text, for messages.
# scope: document
# custom:
#   article: 4
user := input.principal.user if is_string(input.principal.user)

# METADATA
# title: The tenant
# description: As tenants.yaml describes it; undefined when it is not there.
# custom:
#   article: 4
tenant := data.guard.config.tenants[input.principal.tenant] if is_string(input.principal.tenant)

# METADATA
# title: The tenant's protection tier
# description: As thresholds.yaml describes it; undefined when it is not there.
# custom:
#   article: 4
tier := data.guard.config.thresholds.tiers[tenant.tier]

# METADATA
# title: A platform admin
# description: Who may reach across tenants, and is noted.
# custom:
#   article: 4
is_admin if "platform-admin" in input.principal.roles

# Reasons to refuse the caller whatever it asks; the usual caller, told apart first, is asked nothing more.
# METADATA
# title: Reasons to refuse the caller
# description: Whatever is asked. The usual caller, told apart first, is asked nothing more.
# custom:
#   article: 4
deny contains reason if {
	not sound
	some reason in problems
}

# Stated as "not good", so that a missing field refuses too.
# METADATA
# title: The principal is complete
# description: |
#   Stated as "not good", as all of these are, so that a missing field refuses too.
# custom:
#   article: 4
problems contains {"rule": "caller-unknown", "msg": "the request carries no complete principal"} if {
	not complete
}

# METADATA
# title: The tenant is known
# description: |
#   Reason given: tenant … is not in the policy data (tenants.yaml).
# custom:
#   article: 4
problems contains {"rule": "tenant-unknown", "msg": msg} if {
	complete
	not tenant
	msg := sprintf("tenant %v is not in the policy data (tenants.yaml)", [name])
}

# METADATA
# title: The tenant is active
# description: |
#   Reason given: tenant … is ….
# custom:
#   article: 4
problems contains {"rule": "tenant-not-active", "msg": msg} if {
	complete
	tenant.state != "active"
	msg := sprintf("tenant %v is %v", [name, tenant.state])
}

# METADATA
# title: The tenant's tier is known
# description: |
#   Reason given: tenant … has no protection tier in the policy data (thresholds.yaml).
# custom:
#   article: 4
problems contains {"rule": "tier-unknown", "msg": msg} if {
	complete
	tenant
	not tier
	msg := sprintf("tenant %v has no protection tier in the policy data (thresholds.yaml)", [name])
}

# METADATA
# title: The user is a member
# description: Where the tenant lists its members (tenants.yaml), nobody else acts for it.
# custom:
#   article: 4
problems contains {"rule": "not-a-member", "msg": msg} if {
	complete
	stranger(input.principal.kind, input.principal.user, tenant)
	msg := sprintf("user %v is not a member of tenant %v", [user, name])
}

# METADATA
# title: Nobody acts for another tenant
# description: But a platform admin, who says so in the request.
# custom:
#   article: 4
problems contains {"rule": "not-on-behalf", "msg": msg} if {
	complete
	not own_or_admin
	msg := sprintf("user %v may not act on behalf of tenant %v", [user, name])
}

# METADATA
# title: The time is given
# description: |
#   Reason given: the request carries no time (now_ns).
# custom:
#   article: 4
problems contains {"rule": "clock-missing", "msg": "the request carries no time (now_ns)"} if {
	not timed
}

# METADATA
# title: A caller without fault
# description: None of the problems applies to such a caller. (Only a text finds a tenant, so its name is one.)
# custom:
#   article: 4
sound if {
	is_string(input.principal.user)
	is_array(input.principal.roles)
	input.principal.on_behalf_of == null
	is_number(input.now_ns)
	tenant.state == "active"
	tier
	welcome
}

# METADATA
# title: The user may act for the tenant
# description: |
#   The usual case first: a tenant that lists no members.
# custom:
#   article: 4
welcome if {
	input.principal.kind in {"tenant", "job"}
	not tenant.members
} else if {
	belongs(input.principal.kind, input.principal.user, tenant)
}

# METADATA
# title: The time is given
# description: As a number; rules about time cannot be left out by leaving it out.
# custom:
#   article: 4
timed if is_number(input.now_ns)

# METADATA
# title: The principal is complete
# description: Tenant, user, roles and kind are there and of the right type.
# custom:
#   article: 4
complete if {
	is_string(input.principal.tenant)
	is_string(input.principal.user)
	is_array(input.principal.roles)
	input.principal.kind in {"local", "tenant", "job", "system"}
}

# METADATA
# title: The user belongs to the tenant
# description: |
#   The usual ways first: a chain ends at the first that holds, several definitions are all tried.
# custom:
#   article: 4
belongs(kind, member, of) if {
	kind in {"tenant", "job"}
	is_array(of.members[member])
} else if {
	kind in {"local", "system"}
} else if {
	kind in {"tenant", "job"}
	not closed(of)
}

# METADATA
# title: The user is not a member
# description: Stated as the opposite, so that a missing name is one.
# custom:
#   article: 4
stranger(kind, member, of) if not belongs(kind, member, of)

# METADATA
# title: The tenant lists its members
# description: Then nobody else acts for it.
# custom:
#   article: 4
closed(of) if is_object(of.members)

# METADATA
# title: Nobody is acted for, or rightly
# description: A platform admin says for whom.
# scope: document
# custom:
#   article: 4
own_or_admin if not delegated

own_or_admin if {
	input.principal.on_behalf_of == input.principal.tenant
	is_admin
}

# METADATA
# title: Somebody is acted for
# description: The request says so.
# custom:
#   article: 4
delegated if input.principal.on_behalf_of != null
