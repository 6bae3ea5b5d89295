package guard.compute.runtime_test

import data.guard.compute.runtime
import data.guard.fixture_test as fixture

question := {
	"principal": fixture.principal,
	"now_ns": fixture.now_ns,
	"workload": {"submission_id": "w-1", "tenant": "acme", "state": "running"},
	"task": {"requests": {"cpu_milli": 500}, "runtime_env_fields": []},
	"left": {"cpu_milli": 500},
}

decided(part) := value if {
	value := runtime.decision with input as object.union(question, part)
		with data.guard.config as fixture.config
}

denied(part) := fixture.rules(decided(part).deny)

test_what_is_left_may_be_used if decided({}).allow == true

test_and_no_more if {
	denied({"task": {"requests": {"cpu_milli": 501}}}) == {"request-over-reservation"}
	denied({"task": {"requests": {"gpu_milli": 1}}}) == {"request-over-reservation"}
	denied({"task": {"requests": {"gpu_milli": 0}}}) == set()
	denied({"left": {"cpu_milli": "500"}}) == {"request-over-reservation"}
}

test_a_task_brings_no_forbidden_environment if {
	denied({"task": {"runtime_env_fields": ["pip"]}}) == {"runtime-env-field"}
	denied({"task": {"runtime_env_fields": ["env_vars.LD_PRELOAD"]}}) == {"runtime-env-variable"}
}

test_the_job_was_admitted if {
	every state in ["pending", "finished", "evicted", null] {
		denied({"workload": {"state": state}}) == {"job-not-admitted"}
	}
}

test_the_job_is_the_callers if denied({"workload": {"tenant": "beta"}}) == {"tenant-mismatch"}

test_the_task_is_described if {
	denied({"task": {"requests": null}}) == {"task-incomplete"}
	denied({"task": {"runtime_env_fields": null}}) == {"task-incomplete"}
	denied({"task": {"requests": {"cpu_milli": "500"}}}) == {"task-incomplete"}
}
