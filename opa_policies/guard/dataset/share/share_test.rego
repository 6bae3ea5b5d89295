package guard.dataset.share_test

import data.guard.dataset.share
import data.guard.fixture_test as fixture

question := {
	"principal": fixture.principal,
	"now_ns": fixture.now_ns,
	"dataset": fixture.fact,
	"destination": {"kind": "bucket", "name": "b"},
	"to": "beta",
	"approvals": fixture.approved(["bob"]),
}

decided(part) := value if {
	value := share.decision with input as object.union(question, part)
		with data.guard.config as fixture.config
}

denied(part) := fixture.rules(decided(part).deny)

test_one_approval_is_enough_below_the_strict_tier if decided({}).allow == true

test_the_strict_tier_needs_two if {
	strict := {
		"principal": {"tenant": "beta", "user": "bo"},
		"dataset": {"tenant": "beta"},
		"to": "acme",
		"approvals": [object.union(approval, {"tenant": "beta"}) | some approval in fixture.approved(["a", "b"])],
	}
	decided(strict).allow == true
	one := object.union(strict, {"approvals": array.slice(strict.approvals, 0, 1)})
	denied(one) == {"approvals-missing"}
}

test_nobody_does_it_alone if {
	every people in [[], ["alice"]] { denied({"approvals": fixture.approved(people)}) == {"approvals-missing"} }
	denied({"approvals": null}) == {"approvals-missing"}
}

test_only_sound_data if denied({"dataset": {"tampered": true}}) == {"dataset-tampered"}

test_only_own_data if denied({"dataset": {"tenant": "beta", "shared_with": ["acme"]}}) == {"dataset-not-own"}

test_a_request_names_the_dataset if denied({"dataset": null}) == {"dataset-incomplete"}

test_the_receiver_is_another_active_tenant if {
	every to in [null, "acme", "gone", "nobody", ["beta"]] { denied({"to": to}) == {"receiver-unknown"} }
}

test_a_warning_is_passed_on if fixture.rules(decided({"dataset": {"verdict": "warn"}}).warn) == {"dataset-warned"}
