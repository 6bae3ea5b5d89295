# METADATA
# title: Which fields of a decision do not leave the home?
# description: |
#   The pointers of masks.yaml that concern this decision, as JSON pointers below `input` (OPA writes them
#   /input/...), each to be removed, or an object {pointer, replace, part} to replace a field, or for one below
#   `result`. Asked when a record is exported or shipped, and with audit.mask_on_write when it is written.
#   Input: principal (who asked then), now_ns, decision (rule path; of another record, its kind).
# custom:
#   article: 4
#   instead:
#     decision-missing: say which decision is to be logged
package guard.audit.mask

default decision := {
	"allow": false,
	"deny": [{"rule": "undecided", "msg": "no rule could be evaluated"}],
	"warn": [],
	"mask": [],
}

# METADATA
# entrypoint: true
decision := {"allow": count(deny) == 0, "deny": deny, "warn": [], "mask": hidden}

deny contains {"rule": "decision-missing", "msg": "the request does not say which decision"} if not named

hidden contains entry.pointer if {
	some entry in concerned
	not replaced(entry)
	not answered(entry)
}

hidden contains {"pointer": entry.pointer, "replace": entry.replace} if {
	some entry in concerned
	replaced(entry)
	not answered(entry)
}

hidden contains {"pointer": entry.pointer, "part": "result"} if {
	some entry in concerned
	not replaced(entry)
	answered(entry)
}

hidden contains {"pointer": entry.pointer, "replace": entry.replace, "part": "result"} if {
	some entry in concerned
	replaced(entry)
	answered(entry)
}

answered(entry) if entry.part == "result"

replaced(entry) if is_string(entry.replace)

concerned contains entry if {
	some entry in data.guard.config.masks.masks
	entry.decision in {"*", name}
}

named if is_string(input.decision)

default name := "*"

name := input.decision if is_string(input.decision)
