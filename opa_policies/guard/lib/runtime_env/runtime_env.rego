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
denials(fields, tier, tenant) := {reason |
	is_array(fields)
	some field in ({given | some given in fields} - usual(fields, tier))
	some reason in problems(field, tier, tenant)
}

# The usual cases, told apart first: no problem below applies to them.
usual(fields, tier) := {field |
	is_array(fields)
	some field in fields
	field in tier.runtime_env_allowed
	not startswith(field, "env_vars.")
}

denied(name, tier) if name in tier.env_vars_denied

problems(field, tier, tenant) := set() if {
	is_string(field)
	name := trim_prefix(field, "env_vars.")
	name != field
	"env_vars" in tier.runtime_env_allowed
	not denied(name, tier)
} else := every_problem(field, tier, tenant)

every_problem(field, tier, tenant) := {reason |
	some rule in ["runtime-env-field", "runtime-env-variable"]
	msg := problem(rule, field, tier, tenant)
	reason := {"rule": rule, "msg": msg, "field": field}
}

# METADATA
# title: Fields the tier allows
# description: |
#   Reason given: runtime_env field … is not allowed for tenant ….
# custom:
#   article: 4
problem("runtime-env-field", field, tier, tenant) := msg if {
	not known(field, tier)
	msg := sprintf("runtime_env field %v is not allowed for tenant %v", [shown(field), tenant])
}

# METADATA
# title: Variables a job may set
# description: Some decide what code runs (LD_PRELOAD and the like, thresholds.yaml).
# custom:
#   article: 4
problem("runtime-env-variable", field, tier, _) := msg if {
	is_string(field)
	startswith(field, "env_vars.")
	name := trim_prefix(field, "env_vars.")
	denied(name, tier)
	msg := sprintf("environment variable %v may not be set by a job", [name])
}

known(field, tier) if {
	is_string(field)
	parts := split(field, ".")
	parts[0] in tier.runtime_env_allowed
}

shown(field) := field if is_string(field)

shown(field) := "(not text)" if not is_string(field)
