# METADATA
# title: What is wrong with using a dataset
# description: |
#   One place for the rules about a dataset fact, shared by the decisions about using data and about admitting
#   jobs that will use it. Every rule is stated as "not good": a fact with a field missing is refused.
# custom:
#   article: 4
#   instead:
#     dataset-missing: register it first (trainguard dataset register)
#     dataset-foreign: use a dataset of your own tenant, or ask its owner to share it
#     dataset-tampered: restore it, or register it anew as a new version; or have it endorsed, if its key was revoked
#     dataset-unsigned: register it again, so that its record is signed
#     dataset-signer: have it signed by a key of its tenant, or name its key in signers.yaml
#     dataset-denied: correct the data and register a new version
#     dataset-quarantined: correct what its findings name and register a new version, or have a waiver approved
#     dataset-unchecked: register it again, so that its checks run
#     dataset-waived: correct what its findings name before the waivers expire
#     dataset-warned: correct what its findings name, or have a waiver approved (waivers.yaml)
package guard.lib.facts

# METADATA
# title: Why a dataset may not be used
# description: |
#   Every reason why `tenant` may not use the dataset for `purpose`; `tier` is its protection tier
#   (thresholds.yaml). The usual case is told apart first: no problem below applies to it.
# custom:
#   article: 4
denials(fact, tenant, purpose, tier) := set() if {
	fact.exists == true
	is_string(fact.tenant)
	fact.record_ok == true
	fact.tampered == false
	fact.signed == true
	fact.verdict == "allow"
	shared(fact, tenant)
	entitled(fact)
} else := problems(fact, tenant, purpose, tier)

# METADATA
# title: Everything that is wrong with a dataset
# description: |
#   One function a problem, not one with the rule's name for its first argument: every definition of that name
#   would be tried for each rule.
# custom:
#   article: 4
problems(fact, tenant, purpose, tier) := missing(fact) if {
	not present(fact)
} else := union({
	foreign(fact, tenant),
	tampered(fact),
	unsigned(fact, tier),
	unentitled(fact),
	denied(fact),
	quarantined(fact, purpose),
	unchecked(fact),
	warned(fact, purpose, tier),
})

# METADATA
# title: What to mind although it is allowed
# description: Nothing where the dataset is signed and its verdict is allow.
# custom:
#   article: 4
warnings(fact, tier) := set() if {
	fact.signed == true
	fact.verdict == "allow"
} else := remarks(fact, tier)

# METADATA
# title: Everything to mind about a dataset
# description: One that is not registered has nothing to be minded.
# custom:
#   article: 4
remarks(fact, tier) := set() if {
	not present(fact)
} else := union({mind_unsigned(fact, tier), mind_warned(fact), mind_waived(fact)})

# METADATA
# title: Name of the dataset
# description: The reference as people write it.
# custom:
#   article: 4
name(fact) := fact.ref if {
	is_string(fact.ref)
} else := "(a dataset without a reference)"

# METADATA
# title: The dataset is registered
# description: |
#   Reason given: dataset … is not registered.
# custom:
#   article: 4
missing(fact) := {{"rule": "dataset-missing", "msg": msg, "dataset": name(fact)}} if {
	not present(fact)
	msg := sprintf("dataset %v is not registered", [name(fact)])
} else := set()

# METADATA
# title: The dataset is the tenant's, or shared with it
# description: |
#   Reason given: dataset … belongs to another tenant and is not shared with ….
# custom:
#   article: 4
foreign(fact, tenant) := {{"rule": "dataset-foreign", "msg": msg, "dataset": name(fact)}} if {
	not shared(fact, tenant)
	msg := sprintf("dataset %v belongs to another tenant and is not shared with %v", [name(fact), tenant])
} else := set()

# METADATA
# title: The data is what was registered
# description: |
#   Reason given: dataset … no longer matches what was registered; or, to its own tenant, what is wrong with its
#   record.
# custom:
#   article: 4
tampered(fact) := {{"rule": "dataset-tampered", "msg": untrusted(fact), "dataset": name(fact)}} if {
	not intact(fact)
} else := set()

# METADATA
# title: Why the dataset is not to be trusted
# description: The fact's own words where it has any, such as which key was revoked and when.
# custom:
#   article: 4
untrusted(fact) := fact.problem if {
	is_string(fact.problem)
} else := sprintf("dataset %v no longer matches what was registered", [name(fact)])

# METADATA
# title: The record is signed
# description: Where the tier lets unsigned records pass, this is a remark only.
# custom:
#   article: 4
unsigned(fact, tier) := {{"rule": "dataset-unsigned", "msg": msg, "dataset": name(fact)}} if {
	not fact.signed == true
	not tier.use.unsigned == "warn"
	msg := sprintf("dataset %v has no valid signature", [name(fact)])
} else := set()

# METADATA
# title: The signer may sign for the tenant
# description: |
#   Reason given: dataset … is signed by a key that may not sign for its tenant.
# custom:
#   article: 4
unentitled(fact) := {{"rule": "dataset-signer", "msg": msg, "dataset": name(fact)}} if {
	fact.signed == true
	not entitled(fact)
	msg := sprintf("dataset %v is signed by a key that may not sign for its tenant", [name(fact)])
} else := set()

# METADATA
# title: The dataset was not refused
# description: |
#   Reason given: dataset … was refused when it was registered.
# custom:
#   article: 4
denied(fact) := {{"rule": "dataset-denied", "msg": msg, "dataset": name(fact)}} if {
	fact.verdict == "deny"
	msg := sprintf("dataset %v was refused when it was registered", [name(fact)])
} else := set()

# METADATA
# title: The dataset is not quarantined
# description: Looking at it is allowed, and training where two people have waived what was found.
# custom:
#   article: 4
quarantined(fact, purpose) := {{"rule": "dataset-quarantined", "msg": msg, "dataset": name(fact)}} if {
	fact.verdict == "quarantine"
	not purpose == "inspect"
	not excused(fact, purpose)
	msg := sprintf("dataset %v is quarantined: see its findings with trainguard dataset show", [name(fact)])
} else := set()

# METADATA
# title: The dataset has a verdict
# description: |
#   Reason given: dataset … has no verdict.
# custom:
#   article: 4
unchecked(fact) := {{"rule": "dataset-unchecked", "msg": msg, "dataset": name(fact)}} if {
	not judged(fact)
	msg := sprintf("dataset %v has no verdict", [name(fact)])
} else := set()

# METADATA
# title: The dataset has no warnings
# description: Where the tier accepts warnings, this is a remark only.
# custom:
#   article: 4
warned(fact, purpose, tier) := {{"rule": "dataset-warned", "msg": msg, "dataset": name(fact)}} if {
	fact.verdict == "warn"
	not purpose == "inspect"
	not tier.use.warn_verdict == "allow"
	msg := sprintf("dataset %v has warnings, which this protection tier does not accept", [name(fact)])
} else := set()

# METADATA
# title: Unsigned, as the tier lets pass
# description: |
#   Reason given: dataset … has no valid signature.
# custom:
#   article: 4
mind_unsigned(fact, tier) := {{"rule": "dataset-unsigned", "msg": msg, "dataset": name(fact)}} if {
	not fact.signed == true
	tier.use.unsigned == "warn"
	msg := sprintf("dataset %v has no valid signature", [name(fact)])
} else := set()

# METADATA
# title: Warnings, as the tier lets pass
# description: |
#   Reason given: dataset … has warnings.
# custom:
#   article: 4
mind_warned(fact) := {{"rule": "dataset-warned", "msg": msg, "dataset": name(fact)}} if {
	fact.verdict == "warn"
	msg := sprintf("dataset %v has warnings", [name(fact)])
} else := set()

# METADATA
# title: Quarantined, and waived
# description: |
#   Reason given: dataset … is quarantined, and its findings are waived.
# custom:
#   article: 4
mind_waived(fact) := {{"rule": "dataset-waived", "msg": msg, "dataset": name(fact)}} if {
	fact.verdict == "quarantine"
	covered(fact)
	msg := sprintf("dataset %v is quarantined, and its findings are waived", [name(fact)])
} else := set()

# METADATA
# title: Excused by waivers
# description: |
#   A quarantined set may train and be evaluated, not leave, while two people's waivers cover its critical
#   findings.
# custom:
#   article: 4
excused(fact, purpose) if {
	purpose in {"train", "evaluate"}
	covered(fact)
}

# METADATA
# title: Waivers cover every critical finding
# description: A dataset without a list of them is not covered.
# custom:
#   article: 4
covered(fact) if {
	is_array(fact.critical_rules)
	count(fact.critical_rules) > 0
	every rule_id in fact.critical_rules { waived(fact, rule_id) }
}

# METADATA
# title: Two people waived a rule's findings
# description: Author and approver differ, and the waiver has not expired.
# custom:
#   article: 4
waived(fact, rule_id) if {
	is_number(input.now_ns)
	is_array(fact.waived)
	some waiver in fact.waived
	waiver.rule_id == rule_id
	is_string(waiver.author)
	is_string(waiver.approver)
	waiver.author != waiver.approver
	is_number(waiver.expires_ns)
	input.now_ns < waiver.expires_ns
}

# METADATA
# title: The dataset is registered
# description: And its record says whose it is.
# custom:
#   article: 4
present(fact) if {
	fact.exists == true
	is_string(fact.tenant)
}

# Who may sign for whom: signers.yaml. Without an entry, every key that the home trusts.
default signers := []

# METADATA
# title: Who may sign for whom
# description: As signers.yaml says; without an entry, every key that the home trusts.
# scope: document
# custom:
#   article: 4
signers := data.guard.config.signers.signers

# METADATA
# title: The signer may sign for the tenant
# description: Nobody limits who signs, told apart first; else signers.yaml names the key.
# custom:
#   article: 4
entitled(fact) if {
	signers == []
} else if {
	is_string(fact.signer)
	some entry in signers
	startswith(fact.signer, entry.key)
	may_sign(entry, fact)
}

# METADATA
# title: The entry is for the tenant
# description: It lists the tenant, or all.
# scope: document
# custom:
#   article: 4
may_sign(entry, fact) if fact.tenant in entry.tenants

may_sign(entry, _) if "*" in entry.tenants

# METADATA
# title: The data is what was registered
# description: Its record verifies and its bytes are unchanged.
# custom:
#   article: 4
intact(fact) if {
	fact.record_ok == true
	fact.tampered == false
}

# METADATA
# title: The dataset is the tenant's
# description: Its own, or shared with it.
# custom:
#   article: 4
shared(fact, tenant) if {
	fact.tenant == tenant
} else if {
	tenant in fact.shared_with
}

# METADATA
# title: The verdict is one of four
# description: Anything else is no verdict.
# custom:
#   article: 4
judged(fact) if fact.verdict in {"allow", "warn", "quarantine", "deny"}
