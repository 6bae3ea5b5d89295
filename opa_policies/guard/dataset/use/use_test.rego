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
