# METADATA
# title: Which fields of a decision do not leave the home?
# description: |
#   The pointers of masks.yaml that concern this decision, as JSON pointers below `input` (OPA writes them
#   /input/...), each to be removed, or an object {pointer, replace, part} to replace a field, or for one below
#   `result` or of the `record` itself. Asked when a record is exported or shipped, and with
#   audit.mask_on_write when it is written.
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
# title: The pointers that leave no home
# description: Asked before a record is exported or shipped.
# scope: document
# entrypoint: true
# custom:
#   article: 4
decision := {"allow": count(deny) == 0, "deny": deny, "warn": [], "mask": hidden}

# METADATA
# title: A decision is named
# description: Without its name nobody knows which masks concern it, so nothing may leave.
# custom:
#   article: 4
deny contains {"rule": "decision-missing", "msg": "the request does not say which decision"} if not named

# METADATA
# title: Fields of the question that are removed
# description: By their JSON pointers (masks.yaml).
# custom:
#   article: 4
hidden contains entry.pointer if {
	some entry in concerned
	not replaced(entry)
	not elsewhere(entry)
}

# METADATA
# title: Fields of the question that are replaced
# description: By their JSON pointers (masks.yaml).
# custom:
#   article: 4
hidden contains {"pointer": entry.pointer, "replace": entry.replace} if {
	some entry in concerned
	replaced(entry)
	not elsewhere(entry)
}

# METADATA
# title: Fields of another part that are removed
# description: |
#   The answer, or the record's own members (masks.yaml, `part`).
# custom:
#   article: 4
hidden contains {"pointer": entry.pointer, "part": entry.part} if {
	some entry in concerned
	not replaced(entry)
	elsewhere(entry)
}

# METADATA
# title: Fields of another part that are replaced
# description: |
#   The answer, or the record's own members (masks.yaml, `part`).
# custom:
#   article: 4
hidden contains {"pointer": entry.pointer, "replace": entry.replace, "part": entry.part} if {
	some entry in concerned
	replaced(entry)
	elsewhere(entry)
}

# METADATA
# title: Entries for parts outside the input
# description: Their pointers begin in the result or in the record itself.
# custom:
#   article: 4
elsewhere(entry) if entry.part in {"result", "record"}

# METADATA
# title: Entries that replace
# description: The value is replaced by a text instead of being removed.
# custom:
#   article: 4
replaced(entry) if is_string(entry.replace)

# METADATA
# title: Masks that concern this decision
# description: Those of its rule path, and those of every decision.
# custom:
#   article: 4
concerned contains entry if {
	some entry in data.guard.config.masks.masks
	entry.decision in {"*", name}
}

# METADATA
# title: The record names its decision
# description: Without a name only entries for every decision apply.
# custom:
#   article: 4
named if is_string(input.decision)

default name := "*"

# METADATA
# title: Name of the recorded decision
# description: As text; "*" where the record gives none.
# scope: document
# custom:
#   article: 4
name := input.decision if is_string(input.decision)
