# METADATA
# title: May this job run now?
# description: |
#   Denies what may never run (foreign queue, a dataset its tenant may not use, a risky runtime environment,
#   more than the queue can ever have) and holds what does not fit now. Nothing is admitted unless both are empty.
#   Input: principal, now_ns, workload (with a dataset fact per declared dataset), quota (a snapshot of its queue).
# custom:
#   article: 4
package guard.compute.admission

import data.guard.lib.caller
import data.guard.lib.facts

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

deny contains reason if some reason in caller.deny

deny contains {"rule": "workload-incomplete", "msg": msg} if {
	not complete
	msg := "the request does not describe the job (submission id, queue, requests, runtime environment, datasets)"
}

deny contains {"rule": "principal-kind", "msg": "a job may not submit jobs"} if input.principal.kind == "job"

deny contains {"rule": "queue-unknown", "msg": msg} if {
	not is_object(queue)
	msg := sprintf("queue %v is not in the policy data (quotas.yaml)", [object.get(input.workload, "queue", "?")])
}

deny contains {"rule": "tenant-mismatch", "msg": msg} if {
	is_object(queue)
	not queue.tenant == input.principal.tenant
	msg := sprintf("queue %v is not a queue of tenant %v", [input.workload.queue, input.principal.tenant])
}

deny contains {"rule": "tenant-mismatch", "msg": msg} if {
	is_string(input.workload.tenant)
	input.workload.tenant != input.principal.tenant
	msg := sprintf("the job says tenant %v, its credential says %v", [input.workload.tenant, input.principal.tenant])
}

# METADATA
# title: Datasets
# description: A job is refused when it would be refused the data it declares.
deny contains reason if {
	some fact in input.workload.datasets
	some reason in facts.denials(fact, input.principal.tenant, "train", caller.tier)
}

deny contains {"rule": "dataset-incomplete", "msg": "a declared dataset could not be judged"} if {
	some fact in input.workload.datasets
	not is_set(facts.denials(fact, input.principal.tenant, "train", caller.tier))
}

deny contains {"rule": "dataset-incomplete", "msg": msg} if {
	asked := count({ref | some ref in input.workload.declared})
	known := count(input.workload.datasets)
	known < asked
	msg := sprintf("%v datasets are declared, but facts of only %v are known", [asked, known])
}

# METADATA
# title: Runtime environment
# description: |
#   Only fields the tier allows: pip, conda, container, py_executable and the like run code outside the job's
#   own sandbox, as the user of Ray's agent. `env_vars.NAME` is judged by the name too.
deny contains {"rule": "runtime-env-field", "msg": msg, "field": field} if {
	some field in input.workload.runtime_env_fields
	not split(field, ".")[0] in caller.tier.runtime_env_allowed
	msg := sprintf("runtime_env field %v is not allowed for tenant %v", [field, input.principal.tenant])
}

deny contains {"rule": "runtime-env-variable", "msg": msg, "field": field} if {
	some field in input.workload.runtime_env_fields
	startswith(field, "env_vars.")
	some name in caller.tier.env_vars_denied
	upper(trim_prefix(field, "env_vars.")) == name
	msg := sprintf("environment variable %v may not be set by a job", [name])
}

# METADATA
# title: Quota
# description: A request that can never fit is denied; one that does not fit now waits.
deny contains {"rule": "quota-unknown", "msg": msg, "resource": resource} if {
	some resource, amount in input.workload.requests
	amount > 0
	not judged(input.quota, resource)
	msg := sprintf("queue %v has no quota of %v", [object.get(input.workload, "queue", "?"), resource])
}

deny contains {"rule": "quota-mismatch", "msg": msg, "resource": resource} if {
	some resource, amount in input.workload.requests
	judged(input.quota, resource)
	input.quota.resources[resource].requested < amount
	msg := sprintf("the quota snapshot counts less %v than the job requests", [resource])
}

deny contains {"rule": "quota-mismatch", "msg": msg} if {
	not input.quota.queue == input.workload.queue
	msg := "the quota snapshot is of another queue"
}

deny contains {"rule": "quota-never-fits", "msg": msg, "resource": resource} if {
	some resource, share in input.quota.resources
	not share.ever_fits == true
	msg := sprintf(
		"%v %v requested, but queue %v can have at most %v even when idle",
		[show(share, "requested"), resource, object.get(input.quota, "queue", "?"), most(share)],
	)
}

hold contains {"rule": "quota-busy", "msg": msg, "resource": resource} if {
	some resource, share in input.quota.resources
	share.ever_fits == true
	not share.fits == true
	msg := sprintf(
		"%v %v requested, %v available now in queue %v",
		[show(share, "requested"), resource, show(share, "available"), object.get(input.quota, "queue", "?")],
	)
}

warn contains reason if {
	some fact in input.workload.datasets
	some reason in facts.warnings(fact, caller.tier)
}

complete if {
	is_string(input.workload.submission_id)
	is_string(input.workload.queue)
	is_object(input.workload.requests)
	is_array(input.workload.runtime_env_fields)
	is_array(input.workload.datasets)
	is_array(input.workload.declared)
	is_object(input.quota.resources)
	every _, amount in input.workload.requests { is_number(amount) }
	every field in input.workload.runtime_env_fields { is_string(field) }
}

judged(quota, resource) if {
	is_boolean(quota.resources[resource].fits)
	is_boolean(quota.resources[resource].ever_fits)
	is_number(quota.resources[resource].requested)
}

show(share, key) := object.get(share, key, "?")

most(share) := share.nominal + share.borrowing_limit if is_number(share.borrowing_limit)

most(share) := "its cohort" if not is_number(share.borrowing_limit)
