# METADATA
# title: May this caller reach that object of the cluster?
# description: |
#   A tenant reaches its own jobs, logs, actors and namespaces, and nobody else's. Platform admins reach all,
#   which is noted. Input: principal, now_ns, operation, target {kind, tenant, id, namespace}.
# custom:
#   article: 4
#   instead:
#     operation-unknown: use one of the operations the gateway offers
#     target-incomplete: name the object and the tenant it belongs to
#     target-foreign: use a credential of that tenant
#     namespace-foreign: "use a Ray namespace that begins with your tenant's name and a slash"
#     admin-access: act with the role platform-admin only where it must be; the record names who did
package guard.compute.isolation

import data.guard.lib.caller

default decision := {"allow": false, "deny": [{"rule": "undecided", "msg": "no rule could be evaluated"}], "warn": []}

# METADATA
# entrypoint: true
decision := {"allow": count(deny) == 0, "deny": deny, "warn": warn}

operations := {"status", "list", "logs", "stop", "delete", "attach", "get-actor", "put-object", "get-object", "use"}

# METADATA
# title: The caller
# description: |
#   Refused as for any question: incomplete, unknown, inactive or not a member.
# custom:
#   article: 4
deny contains reason if some reason in caller.deny

# METADATA
# title: The operation is known
# description: |
#   Reason given: the request does not say what is to be done.
# custom:
#   article: 4
deny contains {"rule": "operation-unknown", "msg": "the request does not say what is to be done"} if not known

# METADATA
# title: The target is described
# description: |
#   Reason given: the request does not say what it concerns.
# custom:
#   article: 4
deny contains {"rule": "target-incomplete", "msg": "the request does not say what it concerns"} if not complete

# METADATA
# title: Targets are the tenant's own
# description: Jobs, their logs and their nodes are reached by their own tenant and by platform admins.
# custom:
#   article: 4
deny contains {"rule": "target-foreign", "msg": msg} if {
	complete
	not reachable
	msg := sprintf("%v %v belongs to another tenant than %v", [kind, id, caller.name])
}

# METADATA
# title: Namespaces are the tenant's own
# description: Named actors are found by namespace, so another tenant's namespace is another tenant's data.
# custom:
#   article: 4
deny contains {"rule": "namespace-foreign", "msg": msg} if {
	is_string(input.target.namespace)
	not own_namespace
	msg := sprintf("namespace %v is not one of tenant %v", [input.target.namespace, caller.name])
}

# METADATA
# title: Platform admins are noted
# description: |
#   Reason given: a platform admin reaches … … of another tenant.
# custom:
#   article: 4
warn contains {"rule": "admin-access", "msg": msg} if {
	complete
	not own
	caller.is_admin
	msg := sprintf("a platform admin reaches %v %v of another tenant", [kind, id])
}

known if input.operation in operations

complete if {
	is_string(input.target.kind)
	is_string(input.target.tenant)
	is_string(input.target.id)
}

kind := input.target.kind if is_string(input.target.kind)

id := input.target.id if is_string(input.target.id)

own if input.target.tenant == input.principal.tenant

reachable if own

reachable if caller.is_admin

own_namespace if {
	is_string(input.target.namespace)
	startswith(input.target.namespace, sprintf("%v/", [caller.name]))
}

own_namespace if caller.is_admin
