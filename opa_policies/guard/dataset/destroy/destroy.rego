# METADATA
# title: May this dataset be destroyed?
# description: |
#   Only by its owner, written out once more, while nothing uses it and nobody holds it, and with a second
#   person's authorisation (approvers.yaml).
#   Input: principal, now_ns, dataset (a dataset fact), confirm (its reference), in_use (number of jobs and
#   datasets that depend on it), legal_hold, approvals.
# custom:
#   article: 5
#   instead:
#     dataset-missing: there is nothing to destroy
#     dataset-not-own: its owner destroys it
#     not-confirmed: "give its full reference once more (--confirm tenant/name@version)"
#     dataset-in-use: move its aliases (or --remove them), end the jobs and delete the versions that depend on it first
#     dataset-held: a platform admin lifts the hold
#     approvals-missing: "have others of your tenant approve it: trainguard dataset approve"
package guard.dataset.destroy

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
	"warn": [],
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
operation := config.operations["dataset-destroy"]

# METADATA
# title: The caller
# description: |
#   Refused as for any question: incomplete, unknown, inactive or not a member.
# custom:
#   article: 5
deny contains reason if some reason in caller.deny

# METADATA
# title: The dataset exists
# description: |
#   Reason given: there is no such dataset.
# custom:
#   article: 5
deny contains {"rule": "dataset-missing", "msg": "there is no such dataset"} if not input.dataset.exists == true

# METADATA
# title: The dataset is the tenant's own
# description: |
#   Reason given: dataset … is destroyed by its own tenant only.
# custom:
#   article: 5
deny contains {"rule": "dataset-not-own", "msg": msg, "dataset": facts.name(input.dataset)} if {
	is_object(input.dataset)
	not own
	msg := sprintf("dataset %v is destroyed by its own tenant only", [facts.name(input.dataset)])
}

# METADATA
# title: The name is repeated
# description: Whoever destroys types the reference, so that nothing goes by mistake.
# custom:
#   article: 5
deny contains {"rule": "not-confirmed", "msg": "the confirmation is not the dataset's reference"} if not confirmed

# METADATA
# title: Nothing depends on it
# description: |
#   Reason given: jobs or datasets depend on it.
# custom:
#   article: 5
deny contains {"rule": "dataset-in-use", "msg": "jobs or datasets depend on it"} if not input.in_use == 0

# METADATA
# title: No hold forbids it
# description: A legal hold (holds.yaml) keeps evidence; an unknown one counts as a hold.
# custom:
#   article: 5
deny contains {"rule": "dataset-held", "msg": "a hold forbids destroying it"} if not input.legal_hold == false

# METADATA
# title: Enough people approve
# description: |
#   Destruction is a high-risk operation: people with an approver's role decide with the caller.
# custom:
#   article: 5
deny contains {"rule": "approvals-missing", "msg": msg} if {
	given := count(people)
	given < needed
	msg := sprintf("%v of %v approvals given", [given, needed])
}

# METADATA
# title: The dataset is the tenant's own
# description: Compared with the tenant of the credential, never with what the request claims.
# custom:
#   article: 5
own if input.dataset.tenant == input.principal.tenant

# METADATA
# title: The caller repeated the name
# description: The whole reference, so that nothing is destroyed by a slip.
# custom:
#   article: 5
confirmed if {
	is_string(input.confirm)
	input.confirm == input.dataset.ref
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
