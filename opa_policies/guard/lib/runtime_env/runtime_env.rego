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
# description: One reason a field and kind of problem.
# custom:
#   article: 4
denials(fields, tier, tenant) := {reason |
	is_array(fields)
	allowed := tier.runtime_env_allowed
	some field in {given | some given in fields; not given in allowed}
	some reason in (unknown_field(field, tier, tenant) | refused_variable(field, tier))
}

# METADATA
# title: Nothing to deny
# description: |
#   Told apart first: every field is allowed by its name (names of fields have no dot, thresholds.yaml), or is a
#   variable that may be set.
# custom:
#   article: 4
ordinary(fields, tier) if {
	is_array(fields)
	allowed := tier.runtime_env_allowed
	every field in fields { field in allowed }
} else if {
	is_array(fields)
	"env_vars" in tier.runtime_env_allowed
	allowed := tier.runtime_env_allowed
	refused := tier.env_vars_denied
	every field in {given | some given in fields; not given in allowed} {
		is_string(field)
		name := trim_prefix(field, "env_vars.")
		name != field
		not name in refused
	}
}

# METADATA
# title: The variable may not be set
# description: The tier lists it (thresholds.yaml).
# custom:
#   article: 4
denied(name, tier) if name in tier.env_vars_denied

# METADATA
# title: Fields the tier allows
# description: |
#   Reason given: runtime_env field … is not allowed for tenant ….
# custom:
#   article: 4
unknown_field(field, tier, tenant) := {{"rule": "runtime-env-field", "msg": msg, "field": field}} if {
	not known(field, tier)
	msg := sprintf("runtime_env field %v is not allowed for tenant %v", [shown(field), tenant])
} else := set()

# METADATA
# title: Variables a job may set
# description: Some decide what code runs (LD_PRELOAD and the like, thresholds.yaml).
# custom:
#   article: 4
refused_variable(field, tier) := {{"rule": "runtime-env-variable", "msg": msg, "field": field}} if {
	is_string(field)
	startswith(field, "env_vars.")
	name := trim_prefix(field, "env_vars.")
	denied(name, tier)
	msg := sprintf("environment variable %v may not be set by a job", [name])
} else := set()

# METADATA
# title: The tier allows the field
# description: |
#   By its first part: env_vars.NAME is judged as env_vars here.
# custom:
#   article: 4
known(field, tier) if {
	is_string(field)
	parts := split(field, ".")
	parts[0] in tier.runtime_env_allowed
}

# METADATA
# title: The field as text
# description: For messages; other types are not printed.
# custom:
#   article: 4
shown(field) := field if {
	is_string(field)
} else := "(not text)"
