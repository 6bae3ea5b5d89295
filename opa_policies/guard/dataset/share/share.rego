# METADATA
# title: May another tenant use this dataset?
# description: |
#   The owner shares a sound dataset with an active tenant; a second person authorises it (approvers.yaml).
#   Input: principal, now_ns, dataset (a dataset fact), to (tenant), approvals.
# custom:
#   article: 5
#   instead:
#     dataset-incomplete: name the dataset as name@version
#     dataset-not-own: its owner shares it
#     receiver-unknown: name an active tenant of tenants.yaml, not your own
#     approvals-missing: have others of your tenant approve it
package guard.dataset.share

import data.guard.lib.approvals
import data.guard.lib.caller
import data.guard.lib.facts

default decision := {"allow": false, "deny": [{"rule": "undecided", "msg": "no rule could be evaluated"}], "warn": []}

# METADATA
# entrypoint: true
decision := {
	"allow": count(deny) == 0,
	"deny": deny,
	"warn": warn,
	"approvals": {"needed": needed, "given": count(people)},
}

config := data.guard.config.approvers

operation := config.operations["dataset-share"]

deny contains reason if some reason in caller.deny

deny contains {"rule": "dataset-incomplete", "msg": "the request does not say which dataset"} if {
	caller.tier
	not denials
}

deny contains reason if some reason in denials

deny contains {"rule": "dataset-not-own", "msg": msg, "dataset": facts.name(input.dataset)} if {
	is_object(input.dataset)
	not own
	msg := sprintf("dataset %v is shared by its own tenant only", [facts.name(input.dataset)])
}

deny contains {"rule": "receiver-unknown", "msg": "a dataset is shared with another, active tenant"} if not receiver

deny contains {"rule": "approvals-missing", "msg": msg} if {
	given := count(people)
	given < needed
	msg := sprintf("sharing needs %v approvals, %v given", [needed, given])
}

warn contains reason if {
	is_object(input.dataset)
	some reason in facts.warnings(input.dataset, caller.tier)
}

denials := facts.denials(input.dataset, input.principal.tenant, "export", caller.tier) if is_object(input.dataset)

own if input.dataset.tenant == input.principal.tenant

receiver if {
	input.to != input.principal.tenant
	data.guard.config.tenants[input.to].state == "active"
}

people := approvals.people(
	object.get(input, "approvals", []),
	caller.user,
	operation.roles,
	caller.name,
	object.get(input, "now_ns", null),
	config.ttl_seconds,
)

default needed := 2

needed := operation.needed[caller.tenant.tier]
