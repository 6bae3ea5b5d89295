# METADATA
# title: May a running job start this task or actor?
# description: |
#   A task asks for no more than the job can have, and brings no runtime environment the tier forbids. Input:
#   principal, now_ns, workload {submission_id, tenant, state}, task {requests, runtime_env_fields}, left (what
#   the job can have for it at most, by resource: all that its queue can, less what its entrypoint holds).
# custom:
#   article: 4
#   instead:
#     task-incomplete: ask with the task's requests, its runtime environment's fields and what is left
#     tenant-mismatch: run tasks in jobs of your own tenant
#     job-not-admitted: submit the job through the gateway and wait until it is admitted
#     request-over-reservation: ask for less per task, or let the entrypoint, which keeps its part, ask for less
package guard.compute.runtime

import data.guard.lib.amounts
import data.guard.lib.caller
import data.guard.lib.runtime_env

default decision := {"allow": false, "deny": [{"rule": "undecided", "msg": "no rule could be evaluated"}], "warn": []}

# METADATA
# title: The decision
# description: Allowed only when no rule refuses; what callers read.
# scope: document
# entrypoint: true
# custom:
#   article: 4
decision := {"allow": count(deny) == 0, "deny": deny, "warn": []}

# METADATA
# title: The caller
# description: |
#   Refused as for any question: incomplete, unknown, inactive or not a member.
# custom:
#   article: 4
deny contains reason if some reason in caller.deny

# METADATA
# title: The task is described
# description: |
#   Reason given: the request does not describe the task.
# custom:
#   article: 4
deny contains {"rule": "task-incomplete", "msg": "the request does not describe the task"} if not complete

# METADATA
# title: The job is the tenant's own
# description: |
#   Reason given: the job is another tenant's.
# custom:
#   article: 4
deny contains {"rule": "tenant-mismatch", "msg": "the job is another tenant's"} if {
	not input.workload.tenant == input.principal.tenant
}

# METADATA
# title: The job has been admitted
# description: Tasks run for jobs that admission let in, and for no others.
# custom:
#   article: 4
deny contains {"rule": "job-not-admitted", "msg": "the job has not been admitted"} if not admitted

# METADATA
# title: Runtime environment
# description: A task or actor brings its own; it is judged as the job's was.
# custom:
#   article: 4
deny contains reason if {
	is_array(input.task.runtime_env_fields)
	some reason in runtime_env.denials(input.task.runtime_env_fields, caller.tier, caller.name)
}

# METADATA
# title: Within the reservation
# description: What can never be had beside the entrypoint is refused; what cannot be had now waits at the gate.
# custom:
#   article: 4
deny contains {"rule": "request-over-reservation", "msg": msg, "resource": resource} if {
	some resource, amount in requests
	is_number(amount)
	amount > 0
	not enough(resource, amount)
	msg := sprintf("the task asks for %v, and the job can have %v for it at most", [
		amounts.spoken(resource, amount),
		amounts.amount(resource, at_most(resource)),
	])
}

# METADATA
# title: The job was admitted
# description: And has not ended; a waiting job starts nothing.
# custom:
#   article: 4
admitted if input.workload.state in {"admitted", "running"}

# METADATA
# title: The task is described
# description: Its job, fields and amounts are of the right kind.
# custom:
#   article: 4
complete if {
	is_string(input.workload.submission_id)
	is_array(input.task.runtime_env_fields)
	is_object(left)
	is_object(requests)
	every _, amount in requests { is_number(amount) }
}

# METADATA
# title: What the task asks for
# description: Amounts by resource; undefined when they are no object.
# custom:
#   article: 4
requests := input.task.requests if is_object(input.task.requests)

# METADATA
# title: What the job has left
# description: Of what was reserved for it, by resource.
# custom:
#   article: 4
left := input.left if is_object(input.left)

# METADATA
# title: What the job can have of a resource
# description: For a message; what is not said is nothing.
# custom:
#   article: 4
at_most(resource) := available if {
	some name, available in left
	name == resource
	is_number(available)
} else := 0

# METADATA
# title: Enough is left
# description: The resource is reserved, and the rest covers the amount.
# custom:
#   article: 4
enough(resource, amount) if {
	some name, available in left
	name == resource
	is_number(available)
	amount <= available
}
