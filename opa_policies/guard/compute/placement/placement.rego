# METADATA
# title: May this job run on that node?
# description: |
#   A node belongs to a pool (nodes.yaml); a pool names its tenants and the labels its nodes carry. A pool under
#   maintenance (calendars.yaml) holds. Input: principal, now_ns, workload {submission_id}, node {id, pool,
#   labels, state}.
# custom:
#   article: 4
#   instead:
#     node-incomplete: ask about a node with its id, pool, labels and state
#     pool-unknown: add the pool to nodes.yaml
#     pool-foreign: use a pool that lists your tenant
#     node-not-ready: use another node; this one is cordoned or gone
#     label-mismatch: a platform admin corrects the node's labels, or the pool's
#     pool-maintenance: nothing to do; the job starts when the window has passed
package guard.compute.placement

import data.guard.lib.calendar
import data.guard.lib.caller

default decision := {
	"allow": false,
	"deny": [{"rule": "undecided", "msg": "no rule could be evaluated"}],
	"hold": [],
	"warn": [],
}

# METADATA
# title: The decision
# description: Placed only when nothing refuses and the pool is not under maintenance; what the scheduler reads.
# scope: document
# entrypoint: true
# custom:
#   article: 4
decision := {"allow": (count(deny) + count(hold)) == 0, "deny": deny, "hold": hold, "warn": []}

# METADATA
# title: The node's pool
# description: As nodes.yaml describes it; undefined when it is not there.
# custom:
#   article: 4
pool := data.guard.config.nodes.pools[input.node.pool]

# METADATA
# title: The caller
# description: |
#   Refused as for any question: incomplete, unknown, inactive or not a member.
# custom:
#   article: 4
deny contains reason if some reason in caller.deny

# METADATA
# title: The node is described
# description: |
#   Reason given: the request does not describe the node.
# custom:
#   article: 4
deny contains {"rule": "node-incomplete", "msg": "the request does not describe the node"} if not complete

# METADATA
# title: The pool is known
# description: |
#   Reason given: the node's pool is not in the policy data (nodes.yaml).
# custom:
#   article: 4
deny contains {"rule": "pool-unknown", "msg": "the node's pool is not in the policy data (nodes.yaml)"} if {
	complete
	not pool
}

# METADATA
# title: The pool takes the tenant
# description: |
#   Reason given: pool … is not for tenant ….
# custom:
#   article: 4
deny contains {"rule": "pool-foreign", "msg": msg} if {
	pool
	not member
	msg := sprintf("pool %v is not for tenant %v", [pool_name, caller.name])
}

# METADATA
# title: The node takes jobs
# description: A node that is cordoned, draining or lost runs nothing new.
# custom:
#   article: 4
deny contains {"rule": "node-not-ready", "msg": "the node takes no jobs"} if {
	complete
	not input.node.state == "ready"
}

# METADATA
# title: Labels are the pool's
# description: A node without its pool's labels is not what the pool's tenants were promised.
# custom:
#   article: 4
deny contains {"rule": "label-mismatch", "msg": msg, "label": label} if {
	some label, value in pool.labels
	not labelled(label, value)
	msg := sprintf("nodes of pool %v carry the label %v=%v", [pool_name, label, value])
}

# METADATA
# title: Maintenance
# description: Nothing starts on a pool during its maintenance window (calendars.yaml).
# custom:
#   article: 4
hold contains {"rule": "pool-maintenance", "msg": msg} if {
	pool_name in calendar.pools_under_maintenance
	msg := sprintf("pool %v is under maintenance", [pool_name])
}

# METADATA
# title: The node is described
# description: Its id and pool are text, its labels an object.
# custom:
#   article: 4
complete if {
	is_string(input.node.id)
	is_string(input.node.pool)
	is_object(input.node.labels)
	is_string(input.node.state)
	is_string(input.workload.submission_id)
}

# METADATA
# title: Name of the pool
# description: As text, for messages.
# custom:
#   article: 4
pool_name := input.node.pool if is_string(input.node.pool)

# METADATA
# title: The pool is for the tenant
# description: It lists the tenant, or everyone.
# scope: document
# custom:
#   article: 4
member if "*" in pool.tenants

member if input.principal.tenant in pool.tenants

# METADATA
# title: The node has the label
# description: With the very value that its pool asks for.
# custom:
#   article: 4
labelled(label, value) if {
	some name, given in node_labels
	name == label
	given == value
}

# METADATA
# title: The node's labels
# description: Undefined when they are no object.
# custom:
#   article: 4
node_labels := input.node.labels if is_object(input.node.labels)
