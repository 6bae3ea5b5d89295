package guard.lib.facts_test

import data.guard.fixture_test as fixture
import data.guard.lib.facts

denied(part, tier) := fixture.rules(facts.denials(object.union(fixture.fact, part), "acme", "train", tier))

test_a_clean_fact_has_no_problem if denied({}, fixture.tier) == set()

test_each_missing_field_is_a_problem if {
	every field, rule in {
		"exists": "dataset-missing",
		"tenant": "dataset-missing",
		"record_ok": "dataset-tampered",
		"tampered": "dataset-tampered",
		"signed": "dataset-unsigned",
		"verdict": "dataset-unchecked",
	} {
		fact := object.remove(fixture.fact, [field])
		fixture.rules(facts.denials(fact, "acme", "train", fixture.tier)) == {rule}
	}
}

test_truth_is_true_and_nothing_else if {
	every value in [1, "true", "yes", [true], {"a": true}] {
		denied({"signed": value}, fixture.tier) == {"dataset-unsigned"}
		denied({"record_ok": value}, fixture.tier) == {"dataset-tampered"}
	}
}

test_sharing_names_the_tenant if {
	denied({"tenant": "beta", "shared_with": ["acme"]}, fixture.tier) == set()
	denied({"tenant": "beta", "shared_with": ["acme2"]}, fixture.tier) == {"dataset-foreign"}
	denied({"tenant": "beta", "shared_with": "acme"}, fixture.tier) == {"dataset-foreign"}
}

test_several_problems_are_all_said if {
	denied({"verdict": "quarantine", "signed": false, "tampered": true}, fixture.tier) == {
		"dataset-quarantined",
		"dataset-unsigned",
		"dataset-tampered",
	}
}

test_what_is_wrong_with_a_record_is_said_in_its_own_words if {
	some problem, said in {
		"signed by key 01, which was revoked": "signed by key 01, which was revoked",
		7: "dataset acme/digits@1 no longer matches what was registered",
	}
	fact := object.union(fixture.fact, {"tampered": true, "problem": problem})
	facts.denials(fact, "acme", "train", fixture.tier) == {{
		"rule": "dataset-tampered",
		"msg": said,
		"dataset": "acme/digits@1",
	}}
}

test_the_strict_tier_does_not_accept_warnings if {
	denied({"verdict": "warn"}, fixture.tier) == set()
	denied({"verdict": "warn"}, fixture.strict) == {"dataset-warned"}
}

test_a_tier_may_accept_unsigned_data_with_a_warning if {
	tier := object.union(fixture.tier, {"use": {"unsigned": "warn"}})
	denied({"signed": false}, tier) == set()
	fact := object.union(fixture.fact, {"signed": false})
	fixture.rules(facts.warnings(fact, tier)) == {"dataset-unsigned"}
}

test_a_fact_without_a_reference_is_named_so if {
	some reason in facts.denials({}, "acme", "train", fixture.tier)
	reason.dataset == "(a dataset without a reference)"
}

# Who may sign for whom.
signed_by(key, entries) := rules if {
	rules := denied({"signer": key}, fixture.tier) with data.guard.config as {"signers": {"signers": entries}}
}

test_without_entries_every_trusted_key_signs if {
	signed_by("aa", []) == set()
	facts.denials(fixture.fact, "acme", "train", fixture.tier) == set() with data.guard.config as {}
}

test_a_key_signs_for_its_tenants_only if {
	entries := [
		{"key": "0123", "tenants": ["acme"]},
		{"key": "4567", "tenants": ["beta"]},
		{"key": "89", "tenants": ["*"]},
	]
	signed_by("0123ab", entries) == set()
	signed_by("89ab", entries) == set()
	every key in ["4567ab", "ffff", null, 7] { signed_by(key, entries) == {"dataset-signer"} }
}
