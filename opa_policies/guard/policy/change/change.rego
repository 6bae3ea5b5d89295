# METADATA
# title: May this policy change take effect?
# description: |
#   Watching a candidate (shadow, warn) is free to policy admins. Letting it decide (enforce, promote) needs a
#   signed bundle, a passed promotion gate, no freeze and a second person. Rollback to a signed bundle is
#   always possible. Break-glass needs a reason and an expiry, and leaves a review behind.
#   Input: principal, now_ns, change {kind, mode, author, signed, gate {ok}, reason, expires_ns}, approvals.
# custom:
#   article: 5
#   instead:
#     change-incomplete: "say what kind of change it is (stage, promote, rollback, break-glass) and who wrote it"
#     not-a-policy-admin: use a credential with the role policy-admin or platform-admin
#     unsigned: sign the bundle with the cluster's key
#     gate-failed: correct what the promotion gate names, or keep the candidate in shadow
#     frozen: wait until the freeze has passed, or break the glass with a reason
#     approvals-missing: "have someone other than the author and yourself approve it: trainguard policy approve"
#     break-glass-unexplained: say why
#     break-glass-unlimited: let it expire within a day
#     review-needed: have somebody else close the review (trainguard policy review)
package guard.policy.change

import data.guard.lib.approvals
import data.guard.lib.calendar
import data.guard.lib.caller

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
operation := config.operations["policy-promote"]

# METADATA
# title: The caller
# description: |
#   Refused as for any question: incomplete, unknown, inactive or not a member.
# custom:
#   article: 5
deny contains reason if some reason in caller.deny

# METADATA
# title: The change is described
# description: |
#   Reason given: the request does not describe the change.
# custom:
#   article: 5
deny contains {"rule": "change-incomplete", "msg": "the request does not describe the change"} if not complete

# METADATA
# title: Policy admins change policy
# description: |
#   Reason given: user … may not change policy.
# custom:
#   article: 5
deny contains {"rule": "not-a-policy-admin", "msg": msg} if {
	not admin
	msg := sprintf("user %v may not change policy", [caller.user])
}

# METADATA
# title: The bundle is signed
# description: |
#   Reason given: the bundle has no valid signature.
# custom:
#   article: 5
deny contains {"rule": "unsigned", "msg": "the bundle has no valid signature"} if not input.change.signed == true

# METADATA
# title: The promotion gate has passed
# description: No unexpected new denials, no errors, and answers in time on recorded decisions.
# custom:
#   article: 5
deny contains {"rule": "gate-failed", "msg": "the promotion gate has not passed"} if {
	decides
	not input.change.gate.ok == true
}

# METADATA
# title: No freeze
# description: While a freeze lasts (calendars.yaml) nothing new decides; going back is always possible.
# custom:
#   article: 5
deny contains {"rule": "frozen", "msg": msg} if {
	decides
	some title in calendar.freezes
	msg := sprintf("policy is frozen: %v", [title])
}

# METADATA
# title: Enough people approve
# description: |
#   Changing policy is a high-risk operation: the author's own approval does not count.
# custom:
#   article: 5
deny contains {"rule": "approvals-missing", "msg": msg} if {
	given := count(people)
	given < needed
	msg := sprintf("this change has %v of %v approvals", [given, needed])
}

# METADATA
# title: Emergencies are explained
# description: |
#   Reason given: breaking the glass needs a reason.
# custom:
#   article: 5
deny contains {"rule": "break-glass-unexplained", "msg": "breaking the glass needs a reason"} if {
	input.change.kind == "break-glass"
	not explained
}

# METADATA
# title: Emergencies end
# description: An emergency bundle decides for a day at most.
# custom:
#   article: 5
deny contains {"rule": "break-glass-unlimited", "msg": "breaking the glass needs an expiry within a day"} if {
	input.change.kind == "break-glass"
	not limited
}

# METADATA
# title: Emergencies are reviewed
# description: |
#   Reason given: this is to be reviewed afterwards by a second person.
# custom:
#   article: 5
warn contains {"rule": "review-needed", "msg": "this is to be reviewed afterwards by a second person"} if {
	input.change.kind == "break-glass"
}

# METADATA
# title: The change is described
# description: Its kind is known, its author named.
# custom:
#   article: 5
complete if {
	input.change.kind in {"stage", "promote", "rollback", "break-glass"}
	is_string(input.change.author)
	staged
}

# METADATA
# title: The mode is known where it counts
# description: A stage says shadow, warn or enforce; other changes have no mode.
# scope: document
# custom:
#   article: 5
staged if input.change.kind in {"promote", "rollback", "break-glass"}

staged if {
	input.change.kind == "stage"
	input.change.mode in {"shadow", "warn", "enforce"}
}

# METADATA
# title: The caller may change policy
# description: By one of the roles that approvers.yaml names.
# custom:
#   article: 5
admin if {
	is_array(input.principal.roles)
	some role in input.principal.roles
	role in {"platform-admin", "policy-admin"}
}

# METADATA
# title: The change decides
# description: The candidate's answers become the cluster's answers.
# scope: document
# custom:
#   article: 5
decides if input.change.kind == "promote"

decides if {
	input.change.kind == "stage"
	input.change.mode == "enforce"
}

# METADATA
# title: A reason is given
# description: In words, for the review.
# custom:
#   article: 5
explained if {
	is_string(input.change.reason)
	input.change.reason != ""
}

# METADATA
# title: The emergency ends
# description: Within the time that approvers.yaml allows.
# custom:
#   article: 5
limited if {
	is_number(input.now_ns)
	is_number(input.change.expires_ns)
	input.change.expires_ns > input.now_ns
	input.change.expires_ns - input.now_ns <= 86400000000000
}

# METADATA
# title: People whose approval counts
# description: The author is not an approver, whoever asks.
# custom:
#   article: 5
people := approvals.people(
	object.get(input, "approvals", []),
	caller.user,
	operation.roles,
	null,
	object.get(input, "now_ns", null),
	config.ttl_seconds,
) - authors

# METADATA
# title: Who wrote the change
# description: Their own approval does not count.
# custom:
#   article: 5
authors contains input.change.author if is_string(input.change.author)

default needed := 0

# METADATA
# title: Approvals needed
# description: As many as approvers.yaml asks of the tier, where the candidate decides.
# scope: document
# custom:
#   article: 5
needed := operation.needed[caller.tenant.tier] if decides
