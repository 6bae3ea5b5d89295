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
# title: The decision
# description: Allowed only when no rule refuses; what callers read.
# scope: document
# entrypoint: true
# custom:
#   article: 4
decision := {"allow": count(deny) == 0, "deny": deny, "warn": warn}

# METADATA
# title: Known operations
# description: What a caller can do to an object of the cluster; others are refused.
# custom:
#   article: 4
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

# METADATA
# title: The operation is known
# description: A name outside the list is refused rather than guessed.
# custom:
#   article: 4
known if input.operation in operations

# METADATA
# title: The target is described
# description: Its kind, tenant and id are text.
# custom:
#   article: 4
complete if {
	is_string(input.target.kind)
	is_string(input.target.tenant)
	is_string(input.target.id)
}

# METADATA
# title: Kind of the target
# description: As text, for messages; "object" where the request gives none.
# custom:
#   article: 4
kind := input.target.kind if is_string(input.target.kind)

# METADATA
# title: Id of the target
# description: As text, for messages.
# custom:
#   article: 4
id := input.target.id if is_string(input.target.id)

# METADATA
# title: The target is the tenant's own
# description: Compared with the tenant of the credential.
# custom:
#   article: 4
own if input.target.tenant == input.principal.tenant

# METADATA
# title: The caller may reach the target
# description: It is the own one, or a platform admin asks.
# scope: document
# custom:
#   article: 4
reachable if own

reachable if caller.is_admin

# METADATA
# title: The namespace is the tenant's own
# description: Its name begins with the tenant and a slash; a platform admin may use any.
# scope: document
# custom:
#   article: 4
own_namespace if {
	is_string(input.target.namespace)
	startswith(input.target.namespace, sprintf("%v/", [caller.name]))
}

own_namespace if caller.is_admin
