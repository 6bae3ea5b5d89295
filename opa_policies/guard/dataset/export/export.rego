# METADATA
# title: May this dataset leave the cluster?
# description: |
#   Needs what using it needs, and the customer's or a second person's authorisation (approvers.yaml).
#   Input: principal, now_ns, dataset (a dataset fact), destination {kind, name}, approvals.
# custom:
#   article: 5
#   instead:
#     dataset-incomplete: name the dataset as name@version
#     dataset-not-own: its owner exports it
#     destination-missing: say where the data goes (kind and name)
#     approvals-missing: "have others of your tenant approve it: trainguard dataset approve"
#     outside-working-hours: export when others can look at it (calendars.yaml)
package guard.dataset.export

import data.guard.lib.approvals
import data.guard.lib.calendar
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
operation := config.operations["dataset-export"]

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
#   Reason given: dataset … is exported by its own tenant only.
# custom:
#   article: 5
deny contains {"rule": "dataset-not-own", "msg": msg, "dataset": facts.name(input.dataset)} if {
	is_object(input.dataset)
	not own
	msg := sprintf("dataset %v is exported by its own tenant only", [facts.name(input.dataset)])
}

# METADATA
# title: The destination is named
# description: |
#   Reason given: the request does not say where the data goes.
# custom:
#   article: 5
deny contains {"rule": "destination-missing", "msg": "the request does not say where the data goes"} if not destination

# METADATA
# title: Enough people approve
# description: |
#   Export is a high-risk operation: people with an approver's role decide with the caller.
# custom:
#   article: 5
deny contains {"rule": "approvals-missing", "msg": msg} if {
	given := count(people)
	given < needed
	msg := sprintf("%v of %v approvals given", [given, needed])
}

# METADATA
# title: Outside working hours
# description: Exports at night or on a holiday are allowed and noted (calendars.yaml).
# custom:
#   article: 5
warn contains {"rule": "outside-working-hours", "msg": "exported outside working hours"} if not calendar.working

# METADATA
# title: Why the data may not be used
# description: What is refused for use may not leave either.
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
# title: The destination is named
# description: Its kind and name are text.
# custom:
#   article: 5
destination if {
	is_string(input.destination.kind)
	is_string(input.destination.name)
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
