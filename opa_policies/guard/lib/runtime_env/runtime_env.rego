# METADATA
# title: Which fields of a runtime environment a tenant may use
# description: |
#   Only fields the tier allows: pip, conda, container, py_executable and the like run code outside the job's
#   own sandbox, as the user of Ray's agent. `env_vars.NAME` is judged by the name too.
# custom:
#   article: 4
#   instead:
#     runtime-env-field: leave the field out; packages belong into the cluster's image
#     runtime-env-variable: leave the variable out
package guard.lib.runtime_env

# METADATA
# title: Every reason against these fields under the tier
denials(fields, tier, tenant) := fields_denied(fields, tier, tenant) | variables_denied(fields, tier)

fields_denied(fields, tier, tenant) := {reason |
	is_array(fields)
	allowed := {field |
		some field in fields
		is_string(field)
		split(field, ".")[0] in tier.runtime_env_allowed
	}
	some field in ({given | some given in fields} - allowed)
	reason := {
		"rule": "runtime-env-field",
		"msg": sprintf("runtime_env field %v is not allowed for tenant %v", [shown(field), tenant]),
		"field": field,
	}
}

variables_denied(fields, tier) := {reason |
	is_array(fields)
	some field in fields
	is_string(field)
	startswith(field, "env_vars.")
	name := trim_prefix(field, "env_vars.")
	name in tier.env_vars_denied
	reason := {
		"rule": "runtime-env-variable",
		"msg": sprintf("environment variable %v may not be set by a job", [name]),
		"field": field,
	}
}

shown(field) := field if is_string(field)

shown(field) := "(not text)" if not is_string(field)
