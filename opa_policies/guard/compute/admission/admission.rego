# METADATA
# title: May this job run now?
# description: |
#   Denies what may never run (foreign queue, a dataset its tenant may not use, a risky runtime environment,
#   more than the queue can ever have) and holds what does not fit now. Nothing is admitted unless both are empty.
#   Input: principal, now_ns, workload (with a dataset fact per declared dataset), quota (a snapshot of its queue).
# custom:
#   article: 4
#   instead:
#     workload-incomplete: submit through the gateway of trainguard compute, which describes the job
#     principal-kind: submit with a credential of the tenant, outside a job
#     queue-unknown: use a queue of quotas.yaml
#     tenant-mismatch: submit to a queue of your own tenant
#     dataset-incomplete: declare datasets that are registered, each once
#     quota-unknown: ask for resources that the queue has a quota of
#     quota-mismatch: submit again; the ledger changed in between
#     quota-never-fits: ask for less, or have the queue's nominal quota raised (quotas.yaml)
#     queue-on-hold: nothing to do; a platform admin ends the hold when its incident is closed
#     quota-busy: nothing to do; the job starts when the queue has room
#     user-never-fits: ask for less, or have the cap per user raised (per_user in quotas.yaml)
#     queue-full: wait until some of the queue's waiting jobs have started, or stop some of them
#     budget-spent: nothing to do; the budget refills with its half-life, or a platform admin raises it
#     pool-maintenance: nothing to do; the job starts when the window has passed
#     user-busy: nothing to do; the job starts when enough of the user's other jobs have ended
package guard.compute.admission

import data.guard.lib.facts
import data.guard.lib.runtime_env

default decision := {
	"allow": false,
	"deny": [{"rule": "undecided", "msg": "no rule could be evaluated"}],
	"hold": [],
	"warn": [],
}

# METADATA
# entrypoint: true
decision := {"allow": (count(deny) + count(hold)) == 0, "deny": deny, "hold": hold, "warn": warn}

queue := data.guard.config.quotas.queues[input.workload.queue]

# Asked for every job: named in full, the caller's rules are evaluated alone; imported, their whole package is.
deny contains reason if some reason in data.guard.lib.caller.deny

deny contains reason if {
	not plain
	some reason in request_problems
}

# METADATA
# title: Datasets
# description: A job is refused when it would be refused the data it declares.
deny contains reason if {
	some fact in datasets
	is_object(fact)
	some reason in facts.denials(fact, input.principal.tenant, "train", data.guard.lib.caller.tier)
}

deny contains {"rule": "dataset-incomplete", "msg": "a declared dataset could not be judged"} if {
	some fact in datasets
	not is_object(fact)
}

deny contains {"rule": "dataset-incomplete", "msg": msg} if {
	is_array(input.workload.declared)
	count(input.workload.declared) > count(datasets)
	asked := count({ref | some ref in input.workload.declared})
	known := count(datasets)
	known < asked
	msg := sprintf("%v datasets are declared, but facts of only %v are known", [asked, known])
}

# METADATA
# title: Runtime environment
deny contains reason if {
	some reason in runtime_env.denials(
		input.workload.runtime_env_fields,
		data.guard.lib.caller.tier,
		data.guard.lib.caller.name,
	)
}

# METADATA
# title: Quota
# description: A request that can never fit is denied; one that does not fit now waits.
deny contains reason if {
	not roomy
	some reason in quota_problems
}

deny contains {"rule": "quota-mismatch", "msg": msg} if {
	not input.quota.queue == input.workload.queue
	msg := "the quota snapshot is of another queue"
}

deny contains {"rule": "queue-full", "msg": msg} if {
	is_number(input.quota.max_pending)
	not room_in_line
	msg := sprintf("%v jobs wait in queue %v, no more may", [show(input.quota, "pending"), queue_name])
}

hold contains reason if {
	not roomy
	some reason in quota_waits
}

hold contains {"rule": "queue-on-hold", "msg": msg} if {
	is_string(input.quota.hold)
	msg := sprintf("queue %v is on hold: %v", [queue_name, input.quota.hold])
}

hold contains {"rule": "budget-spent", "msg": msg} if {
	is_object(input.quota.budget)
	not input.quota.budget.fits == true
	msg := sprintf("queue %v has used %v of %v thousandths of a GPU-hour; half of it is forgotten in %v h", [
		queue_name,
		show(input.quota.budget, "used_milli_gpu_hours"),
		show(input.quota.budget, "limit_milli_gpu_hours"),
		show(input.quota.budget, "half_life_hours"),
	])
}

hold contains {"rule": "pool-maintenance", "msg": input.quota.maintenance} if is_string(input.quota.maintenance)

warn contains reason if {
	some fact in datasets
	is_object(fact)
	some reason in facts.warnings(fact, data.guard.lib.caller.tier)
}

request_problems contains {"rule": "workload-incomplete", "msg": msg} if {
	not complete
	msg := "the request does not describe the job (submission id, queue, requests, runtime environment, datasets)"
}

request_problems contains {"rule": "principal-kind", "msg": msg} if {
	input.principal.kind == "job"
	msg := "a job may not submit jobs"
}

request_problems contains {"rule": "queue-unknown", "msg": msg} if {
	not queue
	msg := sprintf("queue %v is not in the policy data (quotas.yaml)", [queue_name])
}

request_problems contains {"rule": "tenant-mismatch", "msg": msg} if {
	queue
	not queue.tenant == input.principal.tenant
	msg := sprintf("queue %v is not a queue of tenant %v", [queue_name, data.guard.lib.caller.name])
}

request_problems contains {"rule": "tenant-mismatch", "msg": msg} if {
	is_string(input.workload.tenant)
	input.workload.tenant != input.principal.tenant
	msg := sprintf("the job says tenant %v, its credential says %v", [input.workload.tenant, data.guard.lib.caller.name])
}

quota_problems contains {"rule": "quota-unknown", "msg": msg, "resource": resource} if {
	some resource, amount in requests
	amount > 0
	not resource in judged
	msg := sprintf("queue %v has no quota of %v", [queue_name, resource])
}

quota_problems contains {"rule": "quota-mismatch", "msg": msg, "resource": resource} if {
	some resource, amount in requests
	resource in judged
	resources[resource].requested < amount
	msg := sprintf("the quota snapshot counts less %v than the job requests", [resource])
}

quota_problems contains {"rule": "quota-never-fits", "msg": msg, "resource": resource} if {
	some resource, share in resources
	not share.ever_fits == true
	msg := sprintf(
		"%v %v requested, but queue %v can have %v even when idle",
		[show(share, "requested"), resource, queue_name, most(share)],
	)
}

quota_problems contains {"rule": "user-never-fits", "msg": msg, "resource": resource} if {
	some resource, share in resources
	is_number(share.user_limit)
	not share.user_ever_fits == true
	msg := sprintf(
		"%v %v requested, but a user may hold %v in queue %v",
		[show(share, "requested"), resource, show(share, "user_limit"), queue_name],
	)
}

quota_waits contains {"rule": "user-busy", "msg": msg, "resource": resource} if {
	some resource, share in resources
	is_number(share.user_limit)
	share.user_ever_fits == true
	not share.user_fits == true
	msg := sprintf(
		"%v %v requested, but a user may hold %v in queue %v and this one holds %v",
		[show(share, "requested"), resource, show(share, "user_limit"), queue_name, show(share, "user_used")],
	)
}

quota_waits contains {"rule": "quota-busy", "msg": msg, "resource": resource} if {
	some resource, share in resources
	share.ever_fits == true
	not share.fits == true
	msg := sprintf(
		"%v %v requested, %v available now in queue %v",
		[show(share, "requested"), resource, show(share, "available"), queue_name],
	)
}

room_in_line if {
	is_number(input.quota.pending)
	is_number(input.quota.max_pending)
	input.quota.pending < input.quota.max_pending
}

room_in_line if input.quota.in_line == true

# The usual request, told apart first: none of the request's problems applies to it.
plain if {
	complete
	input.principal.kind != "job"
	queue.tenant == input.principal.tenant
	not input.workload.tenant
}

complete if {
	is_string(input.workload.submission_id)
	is_string(input.workload.queue)
	requests
	is_array(input.workload.runtime_env_fields)
	datasets
	is_array(input.workload.declared)
	resources
	every field in input.workload.runtime_env_fields { is_string(field) }
	every _, amount in requests { is_number(amount) }
}

default queue_name := "?"

queue_name := input.workload.queue if is_string(input.workload.queue)

datasets := input.workload.datasets if is_array(input.workload.datasets)

requests := input.workload.requests if is_object(input.workload.requests)

resources := input.quota.resources if is_object(input.quota.resources)

# The usual case, told apart first: every resource is judged, counted in full, and fits. No rule of quota applies to it.
roomy if {
	count(requests) == count(resources)
	every resource, share in resources {
		share.fits == true
		share.ever_fits == true
		share.requested == requests[resource]
		not share.user_limit
	}
} else if {
	count(requests) == count(resources)
	every resource, share in resources {
		share.fits == true
		share.ever_fits == true
		share.requested == requests[resource]
		share.user_fits == true
		share.user_ever_fits == true
	}
}

judged contains resource if {
	some resource, share in resources
	is_boolean(share.fits)
	is_boolean(share.ever_fits)
	is_number(share.requested)
}

# An amount, when it is one.
show(share, key) := share[key] if is_number(share[key])

show(share, key) := "?" if not shown(share, key)

shown(share, key) if is_number(share[key])

# What an idle cluster could give: the snapshot says it, since it depends on the cohort's other queues.
most(share) := share.potential if is_number(share.potential)

most(share) := "less" if not known(share)

known(share) if is_number(share.potential)
