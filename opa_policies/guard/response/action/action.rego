# METADATA
# title: May this response be carried out?
# description: |
#   The ladder: levels 0-3 are automatic, 4-5 need one approver or a playbook authorised beforehand, 6-7 two
#   different people. Blast caps and the kill switch stop levels 3 and up. A dry run needs no approval, since it
#   changes nothing; what it would have needed is said in `warn`.
#   Input: principal, now_ns, action, incident, approvals, playbook, blast, dry_run.
# custom:
#   article: 5
#   instead:
#     action-incomplete: choose a level from 0 to 7 and a target
#     not-a-responder: use a credential with the role incident-responder or platform-admin
#     target-mismatch: act on the tenant of the incident
#     target-missing: name the node
#     severity-too-low: notify or ask for an acknowledgement, or have a person vouch for it by approving
#     kill-switch: a platform admin sets kill_switch to false in playbooks.yaml
#     approvals-missing: "have others approve it: trainguard response approve"
#     blast-actions: wait until the hour has passed, or have the cap raised (playbooks.yaml)
#     blast-tenants: act on fewer tenants at once, or have the cap raised (playbooks.yaml)
package guard.response.action

import data.guard.lib.approvals
import data.guard.lib.caller

default decision := {
	"allow": false,
	"deny": [{"rule": "undecided", "msg": "no rule could be evaluated"}],
	"warn": [],
	"approvals": {"needed": 2, "given": 0},
}

# METADATA
# title: The decision
# description: Allowed only when no rule refuses; what callers read.
# scope: document
# entrypoint: true
# custom:
#   article: 5
decision := {
	"allow": count(deny) == 0,
	"deny": deny,
	"warn": warn,
	"approvals": {"needed": needed, "given": count(approvers)},
}

# METADATA
# title: The admins' playbooks
# description: playbooks.yaml.
# custom:
#   article: 5
config := data.guard.config.playbooks

default dry_run := false

# METADATA
# title: Nothing will happen
# description: A dry run is judged as if it would.
# scope: document
# custom:
#   article: 5
dry_run if input.dry_run == true

# METADATA
# title: The caller
# description: |
#   Refused as for any question: incomplete, unknown, inactive or not a member.
# custom:
#   article: 5
deny contains reason if some reason in caller.deny

# METADATA
# title: The action is described
# description: |
#   Reason given: the request does not describe the action (level 0 to 7, target), its incident and the blast so far.
# custom:
#   article: 5
deny contains {"rule": "action-incomplete", "msg": msg} if {
	not complete
	msg := "the request does not describe the action (level 0 to 7, target), its incident and the blast so far"
}

# METADATA
# title: Responders respond
# description: People with a responder's role, and the playbooks of the platform.
# custom:
#   article: 5
deny contains {"rule": "not-a-responder", "msg": msg} if {
	not responder
	msg := sprintf("%v may not carry out responses", [caller.user])
}

# METADATA
# title: The target is the incident's tenant
# description: |
#   Reason given: the incident is of tenant …, the action is not.
# custom:
#   article: 5
deny contains {"rule": "target-mismatch", "msg": msg} if {
	level < 7
	not input.action.target.tenant == input.incident.tenant
	msg := sprintf("the incident is of tenant %v, the action is not", [incident_tenant])
}

# METADATA
# title: Cordoning names a node
# description: |
#   Reason given: cordoning needs a node.
# custom:
#   article: 5
deny contains {"rule": "target-missing", "msg": "cordoning needs a node"} if {
	level == 7
	not node
}

# METADATA
# title: Strong measures need an incident
# description: A warning, or less, throttles and stops nothing unless it is confirmed.
# custom:
#   article: 5
deny contains {"rule": "severity-too-low", "msg": msg} if {
	level >= 3
	input.incident.severity in {"info", "warning"}
	not confirmed
	msg := sprintf("level %v needs an incident, this is a %v", [level, input.incident.severity])
}

# METADATA
# title: What stands in the way
# description: The reasons why the dataset may not be used, or the action not be taken.
# custom:
#   article: 5
deny contains reason if {
	not dry_run
	some reason in obstacles
}

# METADATA
# title: What would stand in the way
# description: Of a dry run, which does nothing and is therefore allowed.
# custom:
#   article: 5
warn contains reason if {
	dry_run
	some reason in obstacles
}

# METADATA
# title: The kill switch is off
# description: |
#   Reason given: the kill switch is on: no action above level 2.
# custom:
#   article: 5
obstacles contains {"rule": "kill-switch", "msg": "the kill switch is on: no action above level 2"} if {
	level > 2
	not config.kill_switch == false
}

# METADATA
# title: Enough people approve
# description: Stopping a tenant is a high-risk operation (approvers.yaml and the ladder of playbooks.yaml).
# custom:
#   article: 5
obstacles contains {"rule": "approvals-missing", "msg": msg} if {
	given := count(approvers)
	given < needed
	msg := sprintf("level %v: %v of %v approvals given", [level, given, needed])
}

# METADATA
# title: Only so many actions an hour
# description: |
#   Reason given: the cap of … actions an hour is reached.
# custom:
#   article: 5
obstacles contains {"rule": "blast-actions", "msg": msg} if {
	level > 2
	not calm
	msg := sprintf("the cap of %v actions an hour is reached", [config.blast.actions_per_hour])
}

# METADATA
# title: Only so many tenants affected
# description: |
#   Reason given: more than … tenants would be affected.
# custom:
#   article: 5
obstacles contains {"rule": "blast-tenants", "msg": msg} if {
	level > 2
	not contained
	msg := sprintf("more than %v tenants would be affected", [config.blast.tenants_affected])
}

# METADATA
# title: The action is described
# description: Level, target and incident are of the right kind.
# custom:
#   article: 5
complete if {
	is_number(level)
	is_object(input.action.target)
	is_string(input.incident.id)
	is_string(input.incident.kind)
	is_string(input.incident.tenant)
	is_string(input.incident.severity)
	is_object(input.blast)
}

# METADATA
# title: The caller may respond
# description: The system itself, or a person with a role that playbooks.yaml names.
# scope: document
# custom:
#   article: 5
responder if input.principal.kind in {"system", "local"}

responder if {
	is_array(input.principal.roles)
	some role in input.principal.roles
	role in {"platform-admin", "incident-responder"}
}

# METADATA
# title: Step of the ladder
# description: 0 to 7; undefined for anything else.
# custom:
#   article: 5
level := input.action.level if input.action.level in {0, 1, 2, 3, 4, 5, 6, 7}

# METADATA
# title: A node is the target
# description: Actions on nodes touch every tenant on them.
# custom:
#   article: 5
node if is_string(input.action.target.node)

default incident_tenant := "?"

# METADATA
# title: Tenant of the incident
# description: As text, for messages.
# scope: document
# custom:
#   article: 5
incident_tenant := input.incident.tenant if is_string(input.incident.tenant)

# METADATA
# title: The hour has room for an action
# description: Fewer were carried out than playbooks.yaml allows.
# custom:
#   article: 5
calm if {
	is_number(input.blast.actions_last_hour)
	input.blast.actions_last_hour < config.blast.actions_per_hour
}

# METADATA
# title: Few tenants are touched
# description: No more than playbooks.yaml allows.
# custom:
#   article: 5
contained if {
	is_number(input.blast.tenants_affected)
	input.blast.tenants_affected <= config.blast.tenants_affected
}

# METADATA
# title: A person vouches for it
# description: A person with an approver's role vouches for the incident.
# custom:
#   article: 5
confirmed if count(approvers) > 0

# METADATA
# title: People whose approval counts
# description: Of the approvals given with the request, as guard/lib/approvals reads them.
# custom:
#   article: 5
approvers := approvals.people(
	object.get(input, "approvals", []),
	caller.user,
	config.approver_roles,
	null,
	object.get(input, "now_ns", null),
	config.approval_ttl_seconds,
)

default needed := 2

# METADATA
# title: Approvals needed
# description: None where a playbook was authorised beforehand, else what the ladder asks.
# scope: document
# custom:
#   article: 5
needed := 0 if {
	ladder_needs > 0
	authorised_beforehand
} else := ladder_needs

# METADATA
# title: What the ladder asks
# description: Approvals of the step (playbooks.yaml).
# custom:
#   article: 5
ladder_needs := rung.approvals if {
	some rung in config.ladder
	rung.level == level
}

# METADATA
# title: A playbook was authorised beforehand
# description: It is enabled, and covers the kind, the tenant and the step.
# custom:
#   article: 5
authorised_beforehand if {
	playbook := config.playbooks[input.playbook.name]
	playbook.enabled == true
	level <= playbook.max_level
	level <= 5
	covers(playbook.kinds, input.incident.kind)
	covers(playbook.tenants, input.incident.tenant)
	input.now_ns < time.parse_rfc3339_ns(playbook.expires)
}

# METADATA
# title: A list covers a name
# description: It holds it, or all.
# scope: document
# custom:
#   article: 5
covers(names, _) if "*" in names

covers(names, name) if name in names
