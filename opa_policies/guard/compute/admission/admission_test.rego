package guard.compute.admission_test

import data.guard.compute.admission
import data.guard.fixture_test as fixture

question := {
	"principal": fixture.principal,
	"now_ns": fixture.now_ns,
	"workload": {
		"submission_id": "w-1",
		"queue": "acme",
		"requests": {"jobs": 1},
		"runtime_env_fields": ["working_dir"],
		"datasets": [fixture.fact],
		"declared": ["digits"],
	},
	"quota": {"queue": "acme", "resources": {"jobs": share}},
}

share := {"nominal": 2, "potential": 3, "available": 1, "requested": 1, "fits": true, "ever_fits": true}

decided(part) := value if {
	value := admission.decision with input as object.union(question, part)
		with data.guard.config as fixture.config
}

denied(part) := fixture.rules(decided(part).deny)

test_a_job_that_fits_is_admitted if {
	decided({}).allow == true
	decided({}).hold == set()
}

test_a_busy_queue_holds if {
	busy := decided({"quota": {"resources": {"jobs": {"fits": false}}}})
	busy.allow == false
	busy.deny == set()
	fixture.rules(busy.hold) == {"quota-busy"}
}

test_a_queue_on_hold_holds if {
	held := decided({"quota": {"hold": "incident i-1"}})
	held.deny == set()
	fixture.rules(held.hold) == {"queue-on-hold"}
}

test_what_never_fits_is_denied_and_not_held if {
	never := decided({"quota": {"resources": {"jobs": {"fits": false, "ever_fits": false}}}})
	fixture.rules(never.deny) == {"quota-never-fits"}
	never.hold == set()
	some reason in never.deny
	reason.msg == "jobs 1 requested, but queue acme can have 3 even when idle"
}

test_a_snapshot_without_an_answer_is_not_a_yes if {
	every part in [{"fits": null}, {"fits": 1}, {"ever_fits": null}, {"requested": "1"}] {
		not decided({"quota": {"resources": {"jobs": part}}}).allow
	}
}

test_every_requested_resource_has_a_quota if {
	denied({"workload": {"requests": {"tpu_milli": 1000}}}) == {"quota-unknown"}
	denied({"workload": {"requests": {"tpu_milli": 0}}}) == set()
}

test_the_snapshot_is_of_this_request if {
	denied({"workload": {"requests": {"jobs": 2}}}) == {"quota-mismatch"}
	denied({"quota": {"queue": "beta"}}) == {"quota-mismatch"}
}

test_a_dataset_that_may_not_be_used_may_not_be_trained_on if {
	denied({"workload": {"datasets": [object.union(fixture.fact, {"tampered": true})]}}) == {"dataset-tampered"}
	denied({"workload": {"datasets": ["acme/digits@1"]}}) == {"dataset-incomplete"}
	denied({"workload": {"datasets": []}}) == {"dataset-incomplete"}
}

test_a_runtime_environment_is_an_allow_list if {
	every field in ["pip", "conda", "uv", "container", "image_uri", "py_executable", "nsight", "", "working_dir2"] {
		denied({"workload": {"runtime_env_fields": [field]}}) == {"runtime-env-field"}
	}
	denied({"workload": {"runtime_env_fields": ["env_vars", "env_vars.A", "working_dir"]}}) == set()
}

test_some_variables_are_not_the_jobs_to_set if {
	denied({"workload": {"runtime_env_fields": ["env_vars.LD_PRELOAD"]}}) == {"runtime-env-variable"}
}

test_a_field_that_is_no_text_makes_the_request_incomplete if {
	denied({"workload": {"runtime_env_fields": ["working_dir", 1]}}) == {"workload-incomplete", "runtime-env-field"}
}

test_an_incomplete_job_is_refused if {
	every field in ["submission_id", "requests", "runtime_env_fields", "datasets", "declared"] {
		"workload-incomplete" in denied({"workload": {field: null}})
	}
}

test_a_queue_belongs_to_its_tenant if {
	"tenant-mismatch" in denied({"workload": {"queue": "beta"}, "quota": {"queue": "beta"}})
	"queue-unknown" in denied({"workload": {"queue": "other"}, "quota": {"queue": "other"}})
}

test_a_full_line_takes_no_more_and_keeps_who_is_in_it if {
	denied({"quota": {"pending": 3, "max_pending": 3}}) == {"queue-full"}
	denied({"quota": {"pending": "?", "max_pending": 3}}) == {"queue-full"}
	denied({"quota": {"pending": 2, "max_pending": 3}}) == set()
	denied({"quota": {"pending": 3, "max_pending": 3, "in_line": true}}) == set()
}

test_a_spent_budget_holds if {
	budget := {"limit_milli_gpu_hours": 9, "used_milli_gpu_hours": 9, "half_life_hours": 1, "fits": false}
	fixture.rules(decided({"quota": {"budget": budget}}).hold) == {"budget-spent"}
	decided({"quota": {"budget": object.union(budget, {"fits": true})}}).allow == true
	decided({"quota": {"budget": {}}}).allow == false
}

test_a_pool_under_maintenance_holds if {
	held := decided({"quota": {"maintenance": "pool a100 is under maintenance"}})
	fixture.rules(held.hold) == {"pool-maintenance"}
}
