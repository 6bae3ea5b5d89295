package guard.dataset.use_test

import data.guard.dataset.use
import data.guard.fixture_test as fixture

question := {
	"principal": fixture.principal,
	"now_ns": fixture.now_ns,
	"dataset": fixture.fact,
	"purpose": "train",
	"workload": null,
}

decided(part) := value if {
	value := use.decision with input as object.union(question, part)
		with data.guard.config as fixture.config
}

denied(part) := fixture.rules(decided(part).deny)

test_own_clean_data_is_used if decided({}).allow == true

test_every_purpose_is_known_or_refused if {
	every purpose in ["train", "evaluate", "export", "inspect"] { denied({"purpose": purpose}) == set() }
	denied({"purpose": "resell"}) == {"purpose-unknown"}
}

test_a_denial_is_never_allowed if decided({"dataset": {"exists": false}}).allow == false

test_a_request_without_a_dataset_is_refused if denied({"dataset": null}) == {"dataset-incomplete"}

job(datasets) := {"principal": {"kind": "job", "workload": "w-1", "datasets": datasets}, "workload": "w-1"}

test_a_job_reads_what_it_declared_however_it_wrote_it if {
	every ref in ["acme/digits@1", "digits@1", "digits", "acme/digits"] { denied(job([ref])) == set() }
}

test_a_job_reads_nothing_else if {
	every ref in ["acme/digits@2", "digits@2", "digit", "beta/digits", "", "*"] {
		denied(job([ref])) == {"dataset-undeclared"}
	}
}

test_a_short_name_means_the_jobs_own_tenant if {
	shared := object.union(job(["words"]), {"dataset": {"tenant": "beta", "name": "words", "shared_with": ["acme"]}})
	denied(object.union(shared, {"dataset": {"ref": "beta/words@1"}})) == {"dataset-undeclared"}
}

test_a_jobs_credential_serves_that_job_only if {
	denied(object.union(job(["digits"]), {"workload": "w-2"})) == {"workload-mismatch"}
}

test_a_warning_is_passed_on if fixture.rules(decided({"dataset": {"verdict": "warn"}}).warn) == {"dataset-warned"}

waiver := {"rule_id": "LEAK001", "author": "alice", "approver": "bob", "expires_ns": fixture.now_ns + 1}

quarantined := {"verdict": "quarantine", "critical_rules": ["LEAK001"], "waived": [waiver]}

test_waived_findings_do_not_stop_training if {
	every purpose in ["train", "evaluate"] {
		answer := decided({"dataset": quarantined, "purpose": purpose})
		answer.allow == true
		fixture.rules(answer.warn) == {"dataset-waived"}
	}
}

test_waived_findings_stop_data_from_leaving if {
	denied({"dataset": quarantined, "purpose": "export"}) == {"dataset-quarantined"}
}

test_every_critical_rule_needs_its_waiver if {
	every rules in [[], null, ["LEAK001", "POIS001"], ["POIS001"], "LEAK001"] {
		answer := decided({"dataset": object.union(quarantined, {"critical_rules": rules})})
		fixture.rules(answer.deny) == {"dataset-quarantined"}
		answer.warn == set()
	}
}

test_a_waiver_is_of_two_people_until_a_time if {
	every change in [
		{"approver": "alice"},
		{"approver": null},
		{"author": null},
		{"expires_ns": fixture.now_ns},
		{"expires_ns": "never"},
		{"rule_id": "LEAK002"},
	] {
		part := object.union(quarantined, {"waived": [object.union(waiver, change)]})
		denied({"dataset": part}) == {"dataset-quarantined"}
	}
}

test_waivers_that_are_no_list_are_none if {
	every waived in [null, "all", {"a": waiver}] {
		denied({"dataset": object.union(quarantined, {"waived": waived})}) == {"dataset-quarantined"}
	}
}

test_a_waiver_needs_to_know_the_time if {
	every now_ns in [null, "now"] {
		"dataset-quarantined" in denied({"dataset": quarantined, "now_ns": now_ns})
	}
}

test_a_waiver_changes_no_other_verdict if {
	denied({"dataset": object.union(quarantined, {"verdict": "deny"})}) == {"dataset-denied"}
	decided({"dataset": object.union(quarantined, {"verdict": "allow"})}).warn == set()
}
