# METADATA
# title: May this dataset be recorded, and for what may it be used?
# description: |
#   Turns findings into a verdict under the tenant's protection tier. A critical finding quarantines (or
#   denies) the version; an unknown severity counts as critical. The tier may say what a rule's findings weigh
#   (`severities`). A waiver lowers one rule's findings to a warning until it expires; a tolerated share (per
#   finding) or a budget (per rule, all its findings together) lowers them to a note.
#   Input: principal, now_ns, dataset, findings, checks, baseline.
# custom:
#   article: 4
#   instead:
#     dataset-incomplete: register through trainguard dataset register, which describes the data
#     tenant-mismatch: use a credential of that tenant
#     dataset-empty: give data with at least one row
#     baseline-required: "register with --trusted name@version"
#     baseline-missing: name a trusted version to compare with (--trusted N@V)
#     checks-required: "register without --checks, --set and --budget"
#     checks-missing: "register without --checks, --set and --budget"
package guard.dataset.registration

import data.guard.lib.caller

default decision := {
	"allow": false,
	"verdict": "deny",
	"deny": [{"rule": "undecided", "msg": "no rule could be evaluated"}],
	"warn": [],
}

# METADATA
# title: The decision
# description: Recorded unless refused; the verdict says what the dataset is good for.
# scope: document
# entrypoint: true
# custom:
#   article: 4
decision := {"allow": count(deny) == 0, "verdict": verdict, "deny": deny, "warn": warn}

# METADATA
# title: The caller
# description: |
#   Refused as for any question: incomplete, unknown, inactive or not a member.
# custom:
#   article: 4
deny contains reason if some reason in caller.deny

# METADATA
# title: The dataset is described
# description: |
#   Reason given: the request does not describe the dataset (tenant, name, rows, columns) and its findings.
# custom:
#   article: 4
deny contains {"rule": "dataset-incomplete", "msg": msg} if {
	not complete
	msg := "the request does not describe the dataset (tenant, name, rows, columns) and its findings"
}

# METADATA
# title: The dataset is the tenant's own
# description: |
#   Reason given: a dataset is recorded for its own tenant … only.
# custom:
#   article: 4
deny contains {"rule": "tenant-mismatch", "msg": msg} if {
	not input.dataset.tenant == input.principal.tenant
	msg := sprintf("a dataset is recorded for its own tenant %v only", [caller.name])
}

# METADATA
# title: The dataset holds rows
# description: |
#   Reason given: dataset … has no rows.
# custom:
#   article: 4
deny contains {"rule": "dataset-empty", "msg": msg} if {
	input.dataset.rows == 0
	is_string(input.dataset.name)
	msg := sprintf("dataset %v has no rows", [input.dataset.name])
}

# METADATA
# title: A trusted version where the tier requires one
# description: Poisoning is judged beside a trusted version; the tier says whether that is a must.
# custom:
#   article: 4
deny contains {"rule": "baseline-required", "msg": msg} if {
	caller.tier.registration.baseline == "required"
	not input.baseline.present == true
	msg := "this protection tier records a dataset only beside a trusted version (--trusted)"
}

# METADATA
# title: All checks where the tier requires them
# description: |
#   A check that was left out finds nothing: a verdict says no more than the checks behind it.
#   Reason given: this protection tier records a dataset only after all checks as they ship (…).
# custom:
#   article: 4
deny contains {"rule": "checks-required", "msg": msg} if {
	caller.tier.registration.checks == "required"
	not all_checks
	msg := sprintf("this protection tier records a dataset only after all checks as they ship (%v)", [shortfall])
}

# METADATA
# title: A trusted version where the tier recommends one
# description: |
#   Reason given: no trusted version was given, so poisoning is judged without a reference (--trusted).
# custom:
#   article: 4
warn contains {"rule": "baseline-missing", "msg": msg} if {
	caller.tier.registration.baseline == "warn"
	not input.baseline.present == true
	msg := "no trusted version was given, so poisoning is judged without a reference (--trusted)"
}

# METADATA
# title: All checks where the tier recommends them
# description: |
#   Reason given: the verdict rests on fewer checks than ship (…).
# custom:
#   article: 4
warn contains {"rule": "checks-missing", "msg": msg} if {
	caller.tier.registration.checks == "warn"
	not all_checks
	msg := sprintf("the verdict rests on fewer checks than ship (%v)", [shortfall])
}

# METADATA
# title: Findings that count
# description: |
#   Reason given: …: a … finding.
# custom:
#   article: 4
warn contains {"rule": rule_id, "msg": msg, "severity": weight} if {
	some rule_id, weight in weights
	weight in {"critical", "warning"}
	msg := sprintf("%v: a %v finding", [rule_id, weight])
}

# METADATA
# title: Findings that two people have waived
# description: |
#   Reason given: …: waived by … until …: ….
# custom:
#   article: 4
warn contains {"rule": waiver.rule_id, "msg": msg, "severity": "waived"} if {
	some waiver in waivers
	waiver.rule_id in rule_ids
	msg := sprintf("%v: waived by %v until %v: %v", [waiver.rule_id, waiver.approver, waiver.expires, waiver.reason])
}

# METADATA
# title: The dataset is described
# description: With its counts, and findings that say their rule and severity.
# custom:
#   article: 4
complete if {
	is_string(input.dataset.tenant)
	is_string(input.dataset.name)
	is_number(input.dataset.rows)
	is_number(input.dataset.columns)
	is_array(input.findings)
	count(findings) == count(input.findings)
}

# METADATA
# title: All checks ran as they ship
# description: None that has a say for such data was left out, set otherwise or stopped by a budget. Unsaid is no.
# custom:
#   article: 4
all_checks if {
	input.checks.left_out == []
	input.checks.changed == []
	input.checks.cut_short == []
}

default shortfall := "the request does not say which ran"

# METADATA
# title: What falls short
# description: The checks that were left out, set otherwise or stopped, for a person to read.
# scope: document
# custom:
#   article: 4
shortfall := concat("; ", parts) if {
	parts := [part |
		some field, how in {"left_out": "left out", "changed": "set otherwise", "cut_short": "stopped by the budget"}
		names := input.checks[field]
		is_array(names)
		named := [name | some name in names; is_string(name)]
		count(named) > 0
		part := sprintf("%v: %v", [how, concat(", ", named)])
	]
	count(parts) > 0
}

# METADATA
# title: Findings that can be judged
# description: |
#   Only findings that say their rule and severity; `complete` refuses the others.
# custom:
#   article: 4
findings := [finding |
	some finding in input.findings
	is_string(finding.rule_id)
	is_string(finding.severity)
] if {
	is_array(input.findings)
}

# METADATA
# title: What findings weigh
# description: What each rule's findings weigh after tolerance and waivers; the worst of a rule's findings counts.
# scope: document
# custom:
#   article: 4
weights[rule_id] := "critical" if {
	some rule_id in rule_ids
	some finding in findings
	finding.rule_id == rule_id
	weight_of(finding) == "critical"
}

weights[rule_id] := "warning" if {
	some rule_id in rule_ids
	not any_critical(rule_id)
	some finding in findings
	finding.rule_id == rule_id
	weight_of(finding) == "warning"
}

# METADATA
# title: Rules with findings
# description: Of the checks that found something.
# custom:
#   article: 4
rule_ids contains finding.rule_id if some finding in findings

# METADATA
# title: A finding of the rule is critical
# description: As it weighs here, after the tier has spoken.
# custom:
#   article: 4
any_critical(rule_id) if {
	some finding in findings
	finding.rule_id == rule_id
	weight_of(finding) == "critical"
}

# METADATA
# title: What a finding weighs
# description: Its severity, or note where it is tolerated, or waived.
# scope: document
# custom:
#   article: 4
weight_of(finding) := "note" if tolerated(finding)

weight_of(finding) := "waived" if {
	not tolerated(finding)
	waived(finding.rule_id)
}

weight_of(finding) := weight if {
	not tolerated(finding)
	rule_id := finding.rule_id
	not waived(rule_id)
	weight := severity(finding)
}

# METADATA
# title: Severity of a finding
# description: What the tier says of its rule, else what its check said.
# scope: document
# custom:
#   article: 4
severity(finding) := set_severity(finding.rule_id)

severity(finding) := finding.severity if {
	rule_id := finding.rule_id
	not weighed(rule_id)
	known_severity(finding)
}

severity(finding) := "critical" if {
	rule_id := finding.rule_id
	not weighed(rule_id)
	not known_severity(finding)
}

# METADATA
# title: Severity that the tier sets
# description: What the tier says a rule's findings weigh, whatever their check said.
# custom:
#   article: 4
set_severity(rule_id) := caller.tier.registration.severities[rule_id]

# METADATA
# title: The tier weighs the rule
# description: Its severities name it (thresholds.yaml).
# custom:
#   article: 4
weighed(rule_id) if set_severity(rule_id)

# METADATA
# title: The severity is known
# description: An unknown one counts as critical, never as nothing.
# custom:
#   article: 4
known_severity(finding) if finding.severity in {"info", "warning", "critical"}

# METADATA
# title: The finding is tolerated
# description: It touches no larger share of the rows than the tier lets pass, alone or with its kind.
# scope: document
# custom:
#   article: 4
tolerated(finding) if {
	is_number(finding.rows_ppm)
	finding.rows_ppm <= caller.tier.registration.tolerated_ppm[finding.rule_id]
}

tolerated(finding) if within_budget(finding.rule_id)

# METADATA
# title: Within the budget
# description: A budget is for all findings of a rule together; one that states no share of rows is beyond any budget.
# custom:
#   article: 4
within_budget(rule_id) if {
	shares := [finding.rows_ppm | some finding in findings; finding.rule_id == rule_id]
	stated := [share | some share in shares; is_number(share)]
	count(stated) == count(shares)
	sum(stated) <= caller.tier.registration.budgets_ppm[rule_id]
}

# METADATA
# title: The rule is waived
# description: For this dataset, by two people, and not expired (waivers.yaml).
# custom:
#   article: 4
waived(rule_id) if {
	some waiver in waivers
	waiver.rule_id == rule_id
}

# Waivers in force for this dataset. The author of a waiver is not its approver.
# METADATA
# title: Waivers in force
# description: Of this dataset, by one person, approved by another, not yet expired (waivers.yaml).
# custom:
#   article: 4
waivers contains waiver if {
	some waiver in data.guard.config.waivers.waivers
	waiver.tenant == input.dataset.tenant
	waiver.dataset == input.dataset.name
	waiver.author != waiver.approver
	input.now_ns < time.parse_rfc3339_ns(waiver.expires)
}

default verdict := "allow"

# METADATA
# title: The verdict
# description: By the worst that is left, as the tier says (thresholds.yaml).
# scope: document
# custom:
#   article: 4
verdict := "deny" if {
	count(deny) > 0
} else := caller.tier.registration.critical if {
	some weight in weights
	weight == "critical"
} else := caller.tier.registration.warning if {
	some weight in weights
	weight == "warning"
} else := "warn" if {
	some rule_id in rule_ids
	waived(rule_id)
}
