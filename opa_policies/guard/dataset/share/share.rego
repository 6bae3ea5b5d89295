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
#     approvals-missing: "have others of your tenant approve it: trainguard dataset approve"
package guard.dataset.share

import data.guard.lib.approvals
import data.guard.lib.caller
import data.guard.lib.facts

default decision := {"allow": false, "deny": [{"rule": "undecided", "msg": "no rule could be evaluated"}], "warn": []}

# METADATA
# title: The decision
# description: Allowed only when no rule refuses; what callers read.
# scope: document
# entrypoint: true
# custom:
#   article: 5
decision := {
	"allow": count(deny) == 0,
	"deny": deny,
	"warn": warn,
	"approvals": {"needed": needed, "given": count(people)},
}

# METADATA
# title: Who approves
# description: The approvers that admins name (approvers.yaml).
# custom:
#   article: 5
config := data.guard.config.approvers

# METADATA
# title: What this operation needs
# description: Roles, number and age of approvals (approvers.yaml).
# custom:
#   article: 5
operation := config.operations["dataset-share"]

# METADATA
# title: The caller
# description: |
#   Refused as for any question: incomplete, unknown, inactive or not a member.
# custom:
#   article: 5
deny contains reason if some reason in caller.deny

# METADATA
# title: The dataset is named
# description: |
#   Reason given: the request does not say which dataset.
# custom:
#   article: 5
deny contains {"rule": "dataset-incomplete", "msg": "the request does not say which dataset"} if {
	caller.tier
	not denials
}

# METADATA
# title: The dataset may be used
# description: The reasons why the dataset may not be used, or the action not be taken.
# custom:
#   article: 5
deny contains reason if some reason in denials

# METADATA
# title: The dataset is the tenant's own
# description: |
#   Reason given: dataset … is shared by its own tenant only.
# custom:
#   article: 5
deny contains {"rule": "dataset-not-own", "msg": msg, "dataset": facts.name(input.dataset)} if {
	is_object(input.dataset)
	not own
	msg := sprintf("dataset %v is shared by its own tenant only", [facts.name(input.dataset)])
}

# METADATA
# title: The receiver is another, active tenant
# description: |
#   Reason given: a dataset is shared with another, active tenant.
# custom:
#   article: 5
deny contains {"rule": "receiver-unknown", "msg": "a dataset is shared with another, active tenant"} if not receiver

# METADATA
# title: Enough people approve
# description: |
#   Sharing across tenants is a high-risk operation: people with an approver's role decide with the caller.
# custom:
#   article: 5
deny contains {"rule": "approvals-missing", "msg": msg} if {
	given := count(people)
	given < needed
	msg := sprintf("%v of %v approvals given", [given, needed])
}

# METADATA
# title: What to mind about the data
# description: The reasons of the dataset, or of the findings, that do not refuse.
# custom:
#   article: 5
warn contains reason if {
	is_object(input.dataset)
	some reason in facts.warnings(input.dataset, caller.tier)
}

# METADATA
# title: Why the data may not be used
# description: What is refused for use may not be shared either.
# custom:
#   article: 5
denials := facts.denials(input.dataset, input.principal.tenant, "export", caller.tier) if is_object(input.dataset)

# METADATA
# title: The dataset is the tenant's own
# description: Compared with the tenant of the credential, never with what the request claims.
# custom:
#   article: 5
own if input.dataset.tenant == input.principal.tenant

# METADATA
# title: The receiver exists
# description: Another tenant of tenants.yaml, and an active one.
# custom:
#   article: 5
receiver if {
	input.to != input.principal.tenant
	data.guard.config.tenants[input.to].state == "active"
}

# METADATA
# title: People whose approval counts
# description: Of the approvals given with the request, as guard/lib/approvals reads them.
# custom:
#   article: 5
people := approvals.people(
	object.get(input, "approvals", []),
	caller.user,
	operation.roles,
	caller.name,
	object.get(input, "now_ns", null),
	config.ttl_seconds,
)

default needed := 2

# METADATA
# title: Approvals needed
# description: As many as approvers.yaml asks of the tenant's protection tier.
# scope: document
# custom:
#   article: 5
needed := operation.needed[caller.tenant.tier]
