package guard.dataset.destroy_test

import data.guard.dataset.destroy
import data.guard.fixture_test as fixture

question := {
	"principal": fixture.principal,
	"now_ns": fixture.now_ns,
	"dataset": fixture.fact,
	"confirm": "acme/digits@1",
	"in_use": 0,
	"legal_hold": false,
	"approvals": fixture.approved(["bob"]),
}

decided(part) := value if {
	value := destroy.decision with input as object.union(question, part)
		with data.guard.config as fixture.config
}

denied(part) := fixture.rules(decided(part).deny)

test_an_unused_own_dataset_is_destroyed_with_an_approval if decided({}).allow == true

test_even_a_broken_one if decided({"dataset": {"verdict": "deny", "signed": false, "record_ok": false}}).allow == true

test_nobody_does_it_alone if denied({"approvals": []}) == {"approvals-missing"}

test_only_own_data if denied({"dataset": {"tenant": "beta"}}) == {"dataset-not-own"}

test_only_what_exists if denied({"dataset": {"exists": false}}) == {"dataset-missing"}

test_only_what_was_named_again if {
	every confirm in [null, "", "digits@1", "acme/digits@2"] { denied({"confirm": confirm}) == {"not-confirmed"} }
}

test_not_while_it_is_used_or_nobody_knows if {
	every in_use in [1, -1, null, "0", false] { denied({"in_use": in_use}) == {"dataset-in-use"} }
}

test_not_while_it_is_held_or_nobody_knows if {
	every legal_hold in [true, null, "false", 0] { denied({"legal_hold": legal_hold}) == {"dataset-held"} }
}
