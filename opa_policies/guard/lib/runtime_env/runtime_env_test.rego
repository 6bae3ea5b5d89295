package guard.lib.runtime_env_test

import data.guard.fixture_test as fixture
import data.guard.lib.runtime_env

denied(fields) := fixture.rules(runtime_env.denials(fields, fixture.tier, "acme"))

test_allowed_fields_are_not_denied if denied(["working_dir", "env_vars", "env_vars.EPOCHS"]) == set()

test_every_other_field_is_denied if {
	every field in ["pip", "", "working_dir2", " env_vars", 1, null, ["pip"]] { denied([field]) == {"runtime-env-field"} }
}

test_a_denied_variable_is_denied_by_its_whole_name if {
	denied(["env_vars.LD_PRELOAD"]) == {"runtime-env-variable"}
	denied(["env_vars.LD_PRELOAD2"]) == set()
}

test_a_field_is_shown_in_the_reason_when_it_is_text if {
	some reason in runtime_env.denials([1], fixture.tier, "acme")
	reason.msg == "runtime_env field (not text) is not allowed for tenant acme"
}
