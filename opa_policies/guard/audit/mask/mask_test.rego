package guard.audit.mask_test

import data.guard.audit.mask
import data.guard.fixture_test as fixture

masked(decision) := value if {
	value := mask.decision with input as {"decision": decision} with data.guard.config as fixture.config
}

test_a_decision_is_masked_by_its_own_rules_and_the_general_ones if {
	masked("guard/x/decision").mask == {"/a", "/b"}
	masked("guard/y/decision").mask == {"/a"}
}

test_a_field_may_be_replaced_instead_of_removed if {
	masked("guard/z/decision").mask == {"/a", {"pointer": "/c", "replace": "(kept back)"}}
}

test_a_field_of_the_answer_may_be_hidden_too if {
	masked("guard/r/decision").mask == {
		"/a",
		{"pointer": "/deny/*/msg", "replace": "(kept back)", "part": "result"},
		{"pointer": "/warn", "part": "result"},
	}
}

test_who_asked_and_about_what_may_be_hidden_too if {
	masked("guard/s/decision").mask == {
		"/a",
		{"pointer": "/requested_by", "replace": "(kept back)", "part": "record"},
		{"pointer": "/subject", "part": "record"},
	}
}

test_a_nameless_decision_is_refused_and_still_masked if {
	masked(null).allow == false
	masked(null).mask == {"/a"}
}
