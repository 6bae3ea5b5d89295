# METADATA
# title: May this dataset be used?
# description: |
#   Asked before every verified read and before every job that reads it. Refuses what is missing, foreign,
#   tampered with, unsigned, quarantined or never checked; a job may read only what it declared.
#   Input: principal, now_ns, dataset (a dataset fact), purpose (train, evaluate, export, inspect), workload.
# custom:
#   article: 4
#   instead:
#     purpose-unknown: say train, evaluate, export or inspect
#     dataset-incomplete: name the dataset as name@version or tenant/name@version
#     dataset-undeclared: "submit the job with the dataset in its metadata (datasets: name@version)"
#     workload-mismatch: read with the credential of the job that reads
package guard.dataset.use

import data.guard.lib.facts

default decision := {"allow": false, "deny": [{"rule": "undecided", "msg": "no rule could be evaluated"}], "warn": []}

# METADATA
# title: The decision
# description: Allowed only when no rule refuses; what callers read.
# scope: document
# entrypoint: true
# custom:
#   article: 4
decision := {"allow": count(deny) == 0, "deny": deny, "warn": warn}

# Asked at every read: named in full, the caller's rules are evaluated alone; imported, their whole package is.
# METADATA
# title: The caller
# description: |
#   Refused as for any question: incomplete, unknown, inactive or not a member.
# custom:
#   article: 4
deny contains reason if {
	not data.guard.lib.caller.sound
	some reason in data.guard.lib.caller.problems
}

# METADATA
# title: The purpose is known
# description: |
#   Reason given: the purpose must be train, evaluate, export or inspect.
# custom:
#   article: 4
deny contains {"rule": "purpose-unknown", "msg": msg} if {
	not known_purpose
	msg := "the purpose must be train, evaluate, export or inspect"
}

# METADATA
# title: The dataset is named
# description: |
#   Reason given: the request does not say which dataset.
# custom:
#   article: 4
deny contains {"rule": "dataset-incomplete", "msg": "the request does not say which dataset"} if {
	data.guard.lib.caller.tier
	not denials
}

# METADATA
# title: The dataset may be used
# description: The reasons why the dataset may not be used, or the action not be taken.
# custom:
#   article: 4
deny contains reason if some reason in denials

# METADATA
# title: Jobs read what they declared
# description: A job's credential opens the data it was admitted for, and no other.
# custom:
#   article: 4
deny contains {"rule": "dataset-undeclared", "msg": msg, "dataset": facts.name(input.dataset)} if {
	input.principal.kind == "job"
	is_object(input.dataset)
	not declared
	msg := sprintf("job %v did not declare dataset %v", [job, facts.name(input.dataset)])
}

# METADATA
# title: The credential is the job's own
# description: |
#   Reason given: the credential is for job …, not for ….
# custom:
#   article: 4
deny contains {"rule": "workload-mismatch", "msg": msg} if {
	input.principal.kind == "job"
	is_string(input.workload)
	not input.workload == input.principal.workload
	msg := sprintf("the credential is for job %v, not for %v", [job, input.workload])
}

# METADATA
# title: What to mind about the data
# description: The reasons of the dataset, or of the findings, that do not refuse.
# custom:
#   article: 4
warn contains reason if {
	is_object(input.dataset)
	some reason in facts.warnings(input.dataset, data.guard.lib.caller.tier)
}

# METADATA
# title: The purpose is known
# description: A name outside the list is refused rather than guessed.
# custom:
#   article: 4
known_purpose if input.purpose in {"train", "evaluate", "export", "inspect"}

# METADATA
# title: Why the dataset may not be used
# description: Undefined when the request names no dataset.
# custom:
#   article: 4
denials := facts.denials(
	input.dataset,
	input.principal.tenant,
	input.purpose,
	data.guard.lib.caller.tier,
) if {
	is_object(input.dataset)
}

# METADATA
# title: The job declared the dataset
# description: |
#   By its reference, or by name: one without a version stands for any of its versions.
# scope: document
# custom:
#   article: 4
declared if input.dataset.ref in input.principal.datasets

# A reference without a version declares whichever version it resolved to, in the job's own tenant.
declared if {
	input.dataset.tenant == input.principal.tenant
	input.dataset.name in input.principal.datasets
}

declared if {
	input.dataset.tenant == input.principal.tenant
	is_string(input.dataset.name)
	is_number(input.dataset.version)
	sprintf("%v@%v", [input.dataset.name, input.dataset.version]) in input.principal.datasets
}

declared if {
	is_string(input.dataset.tenant)
	is_string(input.dataset.name)
	sprintf("%v/%v", [input.dataset.tenant, input.dataset.name]) in input.principal.datasets
}

default job := "?"

# METADATA
# title: The job that reads
# description: By its credential, for messages; "?" where it names none.
# scope: document
# custom:
#   article: 4
job := input.principal.workload if is_string(input.principal.workload)
