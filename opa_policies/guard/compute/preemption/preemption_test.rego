package guard.compute.preemption_test

import data.guard.compute.preemption
import data.guard.fixture_test as fixture

rules := {"reclaim_within_cohort": "any", "within_queue": "lower_priority", "lowered_quota": "preempt"}

quotas(change) := object.union(
	{
		"cohorts": {"all": {}},
		"queues": {
			"acme": {"tenant": "acme", "cohort": "all", "preemption": rules},
			"beta": {"tenant": "beta", "cohort": "all", "preemption": rules},
		},
	},
	change,
)

question := {
	"principal": fixture.principal,
	"now_ns": fixture.now_ns,
	"cause": "reclaim",
	"victim": {"submission_id": "v-1", "tenant": "beta", "queue": "beta", "tree": "all", "priority": 5},
	"beneficiary": {"submission_id": "w-1", "tenant": "acme", "queue": "acme", "tree": "all", "priority": 5},
}

decided(part, change) := value if {
	value := preemption.decision with input as object.union(question, part)
		with data.guard.config as object.union(fixture.config, {"quotas": quotas(change)})
}

denied(part, change) := fixture.rules(decided(part, change).deny)

own := {"cause": "priority", "victim": {"queue": "acme", "tenant": "acme", "priority": 1}}

lowered := {"cause": "lowered_quota", "victim": {"queue": "acme", "tenant": "acme"}}

test_a_queue_takes_back_what_is_its_own if decided({}, {}).allow == true

test_only_where_the_quotas_say_so if {
	off := {"queues": {"acme": {"preemption": {
		"reclaim_within_cohort": "never",
		"within_queue": "never",
		"lowered_quota": "keep",
	}}}}
	denied({}, off) == {"reclaim-off"}
	denied(own, off) == {"priority-off"}
	denied(lowered, off) == {"lowered-keeps"}
}

test_borrowers_share_fairly_only_where_the_quotas_say_so if {
	denied({"cause": "fair_share"}, {}) == {"shares-off"}
	shared := {"fair_share": {"preempt": true}}
	decided({"cause": "fair_share"}, shared).allow == true
	denied({"cause": "fair_share", "victim": {"tree": "apart"}}, shared) == {"other-cohort"}
}

test_lower_priority_only_where_the_quotas_say_so if {
	lower_ranked := {"queues": {"acme": {"preemption": {"reclaim_within_cohort": "lower_priority"}}}}
	denied({}, lower_ranked) == {"priority-too-low"}
	denied({"victim": {"priority": 4}}, lower_ranked) == set()
}

test_a_higher_priority_ends_a_lower_one_in_its_own_queue if {
	decided(own, {}).allow == true
	denied(object.union(own, {"victim": {"priority": 5}}), {}) == {"priority-too-low"}
	denied({"cause": "priority", "victim": {"priority": 1}}, {}) == {"other-cohort"}
}

test_a_lowered_quota_ends_what_runs_beyond_it if decided(lowered, {}).allow == true

test_another_tree_of_cohorts_is_left_alone if {
	denied({"victim": {"tree": "apart"}}, {}) == {"other-cohort"}
	denied({"victim": {"tree": null}}, {}) == {"other-cohort"}
}

test_room_is_asked_for_the_own_tenant if {
	denied({}, {"queues": {"acme": {"tenant": "gamma"}}}) == {"tenant-mismatch"}
}

test_what_is_unknown_or_missing_is_no_yes if {
	denied({"cause": "mood"}, {}) == {"cause-unknown"}
	"queue-unknown" in denied({"victim": {"queue": "none"}}, {})
	"queue-unknown" in denied({"beneficiary": {"queue": "none"}}, {})
	"preemption-incomplete" in denied({"victim": null}, {})
	"preemption-incomplete" in denied({"beneficiary": null}, {})
}
