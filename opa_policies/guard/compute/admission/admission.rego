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

import data.guard.lib.amounts
import data.guard.lib.facts
import data.guard.lib.runtime_env

default decision := {
	"allow": false,
	"deny": [{"rule": "undecided", "msg": "no rule could be evaluated"}],
	"hold": [],
	"warn": [],
}

# METADATA
# title: The decision
# description: Admitted only when nothing refuses and nothing lets the job wait; what the gateway reads.
# scope: document
# entrypoint: true
# custom:
#   article: 4
decision := {"allow": (count(deny) + count(hold)) == 0, "deny": deny, "hold": hold, "warn": warn}

# METADATA
# title: The queue asked for
# description: As quotas.yaml describes it; undefined when it is not there.
# custom:
#   article: 4
queue := data.guard.config.quotas.queues[input.workload.queue] if is_string(input.workload.queue)

# A rule added here is evaluated for every job. The shipped ones that are about who asks and what, not about
# room, are evaluated for no job that is as usual: they are most of what a decision costs.
# METADATA
# title: What is wrong with the job
# description: Nothing, where the job is as usual, which is told apart first.
# custom:
#   article: 4
deny contains reason if {
	not usual
	some reason in refusals
}

# METADATA
# title: Requests that can never fit
# description: What is wrong with the request's amounts; a request with room is asked nothing more.
# custom:
#   article: 4
deny contains reason if {
	not roomy
	not possible
	some reason in quota_problems
}

# METADATA
# title: Room in line
# description: A queue takes only so many waiting jobs (max_pending in quotas.yaml).
# custom:
#   article: 4
deny contains {"rule": "queue-full", "msg": msg} if {
	is_number(input.quota.max_pending)
	not room_in_line
	msg := sprintf("%v jobs wait in queue %v, no more may", [show(input.quota, "pending"), queue_name])
}

# METADATA
# title: The caller
# description: |
#   Refused as for any question: incomplete, unknown, inactive or not a member.
# custom:
#   article: 4
refusals contains reason if {
	# Named in full, the caller's rules are evaluated alone; imported, their whole package is.
	some reason in data.guard.lib.caller.problems
}

# METADATA
# title: Runtime environment
# description: Only what the tenant's protection tier allows; other fields run code outside the job.
# custom:
#   article: 4
refusals contains reason if {
	some reason in runtime_env.denials(
		input.workload.runtime_env_fields,
		data.guard.lib.caller.tier,
		data.guard.lib.caller.name,
	)
}

# METADATA
# title: Data the tenant may not use
# description: A job is refused when it would be refused the data it declares.
# custom:
#   article: 4
refusals contains reason if {
	some fact in datasets
	is_object(fact)
	some reason in facts.denials(fact, input.principal.tenant, "train", data.guard.lib.caller.tier)
}

# METADATA
# title: Data that cannot be judged
# description: A dataset fact that is no object says nothing, so it is refused.
# custom:
#   article: 4
refusals contains {"rule": "dataset-incomplete", "msg": "a declared dataset could not be judged"} if {
	some fact in datasets
	not is_object(fact)
}

# METADATA
# title: Data without facts
# description: Every declared dataset comes with a fact; one that is missing is not taken for clean.
# custom:
#   article: 4
refusals contains {"rule": "dataset-incomplete", "msg": msg} if {
	is_array(input.workload.declared)
	count(input.workload.declared) > count(datasets)
	asked := count({ref | some ref in input.workload.declared})
	known := count(datasets)
	known < asked
	msg := sprintf("%v datasets are declared, but facts of only %v are known", [asked, known])
}

# METADATA
# title: A snapshot of the queue asked for
# description: Amounts of another queue say nothing about this one.
# custom:
#   article: 4
refusals contains {"rule": "quota-mismatch", "msg": msg} if {
	not input.quota.queue == input.workload.queue
	msg := "the quota snapshot is of another queue"
}

# METADATA
# title: The job is described
# description: Everything the other rules read is there and of the right kind.
# custom:
#   article: 4
refusals contains {"rule": "workload-incomplete", "msg": msg} if {
	not complete
	msg := "the request does not describe the job (submission id, queue, requests, runtime environment, datasets)"
}

# METADATA
# title: Jobs submit no jobs
# description: A job's credential reads its data; it starts nothing, or a leaked one could.
# custom:
#   article: 4
refusals contains {"rule": "principal-kind", "msg": msg} if {
	input.principal.kind == "job"
	msg := "a job may not submit jobs"
}

# METADATA
# title: The queue is known
# description: |
#   Reason given: queue … is not in the policy data (quotas.yaml).
# custom:
#   article: 4
refusals contains {"rule": "queue-unknown", "msg": msg} if {
	not queue
	msg := sprintf("queue %v is not in the policy data (quotas.yaml)", [queue_name])
}

# METADATA
# title: The queue is the tenant's own
# description: |
#   Reason given: queue … is not a queue of tenant ….
# custom:
#   article: 4
refusals contains {"rule": "tenant-mismatch", "msg": msg} if {
	queue
	not queue.tenant == input.principal.tenant
	msg := sprintf("queue %v is not a queue of tenant %v", [queue_name, data.guard.lib.caller.name])
}

# METADATA
# title: The job names no other tenant
# description: The tenant is the credential's; a request that claims another one is refused.
# custom:
#   article: 4
refusals contains {"rule": "tenant-mismatch", "msg": msg} if {
	is_string(input.workload.tenant)
	input.workload.tenant != input.principal.tenant
	msg := sprintf("the job says tenant %v, its credential says %v", [input.workload.tenant, data.guard.lib.caller.name])
}

# METADATA
# title: Requests that do not fit now
# description: They wait until the queue, or the user, has room again.
# custom:
#   article: 4
hold contains reason if {
	not roomy
	some reason in quota_waits
}

# METADATA
# title: Queues that wait
# description: A hold, a budget spent, maintenance; a queue with none of them is asked nothing more.
# custom:
#   article: 4
hold contains reason if {
	not calm
	some reason in queue_waits
}

# METADATA
# title: Queues on hold
# description: An incident holds the queue; its jobs wait until it is closed.
# custom:
#   article: 4
queue_waits contains {"rule": "queue-on-hold", "msg": msg} if {
	is_string(input.quota.hold)
	msg := sprintf("queue %v is on hold: %v", [queue_name, input.quota.hold])
}

# METADATA
# title: Budgets
# description: A queue that has used up its GPU-hours waits until enough of them are forgotten.
# custom:
#   article: 4
queue_waits contains {"rule": "budget-spent", "msg": msg} if {
	is_object(input.quota.budget)
	not input.quota.budget.fits == true
	msg := sprintf("queue %v has used %v of %v GPU-hours; half of it is forgotten in %v h", [
		queue_name,
		amounts.amount("gpu_milli", show(input.quota.budget, "used_milli_gpu_hours")),
		amounts.amount("gpu_milli", show(input.quota.budget, "limit_milli_gpu_hours")),
		show(input.quota.budget, "half_life_hours"),
	])
}

# METADATA
# title: Maintenance
# description: Jobs wait while every pool they could run on is under maintenance.
# custom:
#   article: 4
queue_waits contains {"rule": "pool-maintenance", "msg": input.quota.maintenance} if is_string(input.quota.maintenance)

# METADATA
# title: What to mind about the data
# description: The reasons of the dataset, or of the findings, that do not refuse.
# custom:
#   article: 4
warn contains reason if {
	not usual
	some fact in datasets
	is_object(fact)
	some reason in facts.warnings(fact, data.guard.lib.caller.tier)
}

# METADATA
# title: Resources without quota
# description: What the queue has no quota of, it may not ask for.
# custom:
#   article: 4
quota_problems contains {"rule": "quota-unknown", "msg": msg, "resource": resource} if {
	not exact
	some resource, amount in requests
	amount > 0
	not resource in judged
	msg := sprintf("queue %v has no quota of %v", [queue_name, resource])
}

# METADATA
# title: Amounts counted in full
# description: The snapshot counts what the job requests, so it cannot be admitted for less.
# custom:
#   article: 4
quota_problems contains {"rule": "quota-mismatch", "msg": msg, "resource": resource} if {
	not exact
	some resource, amount in requests
	resource in judged
	resources[resource].requested < amount
	msg := sprintf("the quota snapshot counts less %v than the job requests", [resource])
}

# METADATA
# title: More than the queue can ever have
# description: |
#   Reason given: … requested, but queue … can have … even when idle.
# custom:
#   article: 4
quota_problems contains {"rule": "quota-never-fits", "msg": msg, "resource": resource} if {
	some resource, share in resources
	not share.ever_fits == true
	msg := sprintf(
		"%v requested, but queue %v can have %v even when idle",
		[amounts.spoken(resource, show(share, "requested")), queue_name, amounts.amount(resource, most(share))],
	)
}

# METADATA
# title: More than a user may ever hold
# description: |
#   Reason given: … requested, but a user may hold … in queue ….
# custom:
#   article: 4
quota_problems contains {"rule": "user-never-fits", "msg": msg, "resource": resource} if {
	some resource, share in resources
	is_number(share.user_limit)
	not share.user_ever_fits == true
	msg := sprintf(
		"%v requested, but a user may hold %v in queue %v",
		[
			amounts.spoken(resource, show(share, "requested")),
			amounts.amount(resource, show(share, "user_limit")),
			queue_name,
		],
	)
}

# METADATA
# title: More than the user may hold now
# description: |
#   Reason given: … requested, but a user may hold … in queue … and this one holds ….
# custom:
#   article: 4
quota_waits contains {"rule": "user-busy", "msg": msg, "resource": resource} if {
	some resource, share in resources
	share.user_ever_fits == true
	not share.user_fits == true
	is_number(share.user_limit)
	msg := sprintf(
		"%v requested, but a user may hold %v in queue %v and this one holds %v",
		[
			amounts.spoken(resource, show(share, "requested")),
			amounts.amount(resource, show(share, "user_limit")),
			queue_name,
			amounts.amount(resource, show(share, "user_used")),
		],
	)
}

# METADATA
# title: More than the queue has now
# description: |
#   Reason given: … requested, … available now in queue ….
# custom:
#   article: 4
quota_waits contains {"rule": "quota-busy", "msg": msg, "resource": resource} if {
	some resource, share in resources
	share.ever_fits == true
	not share.fits == true
	msg := sprintf(
		"%v requested, %v available now in queue %v",
		[
			amounts.spoken(resource, show(share, "requested")),
			amounts.amount(resource, show(share, "available")),
			queue_name,
		],
	)
}

# METADATA
# title: The line has room
# description: Fewer jobs wait than may, or this one waits in it already.
# scope: document
# custom:
#   article: 4
room_in_line if {
	is_number(input.quota.pending)
	is_number(input.quota.max_pending)
	input.quota.pending < input.quota.max_pending
}

room_in_line if input.quota.in_line == true

# METADATA
# title: A job as usual
# description: |
#   Told apart first, for speed; no refusal and no remark applies to it. A credential of an active tenant, which
#   asks for its own queue, says everything, with an ordinary runtime environment and data of its own that is
#   signed and clean. As few rules as may be, since each rule asked costs as much as a dozen comparisons.
# custom:
#   article: 4
usual if {
	described
	is_number(input.now_ns)
	asker := input.principal
	user := asker.user
	is_string(user)
	is_array(asker.roles)
	asker.kind == "tenant"
	asker.on_behalf_of == null
	tenant := data.guard.config.tenants[asker.tenant]
	tenant.state == "active"
	not unlisted(tenant, user)
	not input.workload.tenant
	data.guard.config.quotas.queues[input.workload.queue].tenant == asker.tenant
	input.quota.queue == input.workload.queue
	runtime_env.ordinary(input.workload.runtime_env_fields, data.guard.config.thresholds.tiers[tenant.tier])
	is_array(input.workload.datasets)
	every fact in input.workload.datasets {
		fact.exists == true
		fact.tenant == asker.tenant
		fact.record_ok == true
		fact.tampered == false
		fact.signed == true
		fact.verdict == "allow"
		facts.entitled(fact)
	}
}

# METADATA
# title: The tenant lists its members, and not this one
# description: Then nobody else acts for it.
# custom:
#   article: 4
unlisted(of, user) if {
	is_object(of.members)
	not listed(of, user)
}

# METADATA
# title: The tenant lists this member
# description: With a list of roles, which may be empty.
# custom:
#   article: 4
listed(of, user) if is_array(of.members[user])

# METADATA
# title: It says everything
# description: It says everything, with a fact for every dataset.
# custom:
#   article: 4
described if {
	is_string(input.workload.submission_id)
	is_array(input.workload.declared)
	is_array(input.workload.datasets)
	count(input.workload.declared) <= count(input.workload.datasets)
	is_array(input.workload.runtime_env_fields)
	is_object(input.quota.resources)
	is_object(input.workload.requests)
	every field in input.workload.runtime_env_fields { is_string(field) }
	every _, amount in input.workload.requests { is_number(amount) }
}

# METADATA
# title: A queue that lets jobs pass
# description: The queue has nothing of its own that lets jobs wait.
# custom:
#   article: 4
calm if {
	input.quota.hold == null
	not input.quota.budget
	not input.quota.maintenance
} else if {
	not input.quota.hold
	not input.quota.budget
	not input.quota.maintenance
}

# METADATA
# title: The job is described in full
# description: Everything that the other rules read is there and of the right kind.
# custom:
#   article: 4
complete if {
	described
	is_string(input.workload.queue)
} else if {
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

# METADATA
# title: Name of the queue
# description: As text, for messages; "?" where the request gives none.
# scope: document
# custom:
#   article: 4
queue_name := input.workload.queue if is_string(input.workload.queue)

# METADATA
# title: Facts of the declared datasets
# description: One each, looked up by the gateway; undefined when they are no list.
# custom:
#   article: 4
datasets := input.workload.datasets if is_array(input.workload.datasets)

# METADATA
# title: What the job asks for
# description: Amounts by resource; undefined when they are no object.
# custom:
#   article: 4
requests := input.workload.requests if is_object(input.workload.requests)

# METADATA
# title: The queue's amounts
# description: By resource, from the snapshot; undefined when they are no object.
# custom:
#   article: 4
resources := input.quota.resources if is_object(input.quota.resources)

# METADATA
# title: Room for everything
# description: |
#   The usual case, told apart first: every resource is judged, counted in full, and fits. No rule of quota
#   applies to it.
# custom:
#   article: 4
roomy if {
	is_object(input.workload.requests)
	is_object(input.quota.resources)
	count(input.workload.requests) == count(input.quota.resources)
	every resource, share in input.quota.resources {
		share.fits == true
		share.ever_fits == true
		share.requested == input.workload.requests[resource]
		not share.user_limit
	}
} else if {
	count(requests) == count(resources)
	every resource, share in resources {
		share.fits == true
		share.ever_fits == true
		share.requested == input.workload.requests[resource]
		share.user_fits == true
		share.user_ever_fits == true
	}
}

# METADATA
# title: Counted exactly
# description: Every resource is judged, and counted for what the job asks, no less and no more.
# custom:
#   article: 4
exact if {
	described
	count(requests) == count(resources)
	every resource, share in resources {
		share.fits in {true, false}
		share.ever_fits in {true, false}
		share.requested == input.workload.requests[resource]
	}
}

# METADATA
# title: Room some day
# description: Next to the usual case; everything is counted exactly, and has to wait at most.
# custom:
#   article: 4
possible if {
	described
	count(requests) == count(resources)
	every resource, share in resources {
		is_boolean(share.fits)
		share.ever_fits == true
		share.requested == input.workload.requests[resource]
		not share.user_limit
	}
} else if {
	exact
	every _, share in resources {
		share.ever_fits == true
		share.user_ever_fits == true
	}
}

# METADATA
# title: Resources of which the snapshot says everything
# description: Whether it fits now, whether it ever can, and how much was asked.
# custom:
#   article: 4
judged contains resource if {
	some resource, share in resources
	is_boolean(share.fits)
	is_boolean(share.ever_fits)
	is_number(share.requested)
}

# METADATA
# title: An amount
# description: An amount, when it is one.
# custom:
#   article: 4
show(share, key) := share[key] if {
	is_number(share[key])
} else := "?"

# METADATA
# title: What an idle cluster could give
# description: |
#   What an idle cluster could give: the snapshot says it, since it depends on the cohort's other queues.
# custom:
#   article: 4
most(share) := share.potential if {
	is_number(share.potential)
} else := "less"
