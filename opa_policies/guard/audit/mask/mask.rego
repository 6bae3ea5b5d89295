# METADATA
# title: Which fields of a decision's input stay out of the log?
# description: |
#   The pointers of masks.yaml that concern this decision, as JSON pointers below `input` (OPA writes them
#   /input/...). Input: principal, now_ns, decision (rule path).
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
decision := {"allow": count(deny) == 0, "deny": deny, "warn": [], "mask": pointers}

deny contains {"rule": "decision-missing", "msg": "the request does not say which decision"} if not named

pointers contains entry.pointer if {
	some entry in data.guard.config.masks.masks
	entry.decision in {"*", name}
}

named if is_string(input.decision)

default name := "*"

name := input.decision if is_string(input.decision)
