# METADATA
# title: May this running job be made to go?
# description: |
#   The core has found that room is needed and whose; this says whether they may be taken out for it. A queue takes
#   back what is its own, a higher priority ends a lower one in the same queue, a lowered quota ends what runs beyond
#   it, and borrowers share fairly what they borrow, each only where quotas.yaml says so.
#   Input: principal (whose job needs the room, or the owner of the job that goes), now_ns,
#   cause, victim {submission_id, tenant, queue, tree, priority}, beneficiary {the same}.
# custom:
#   article: 4
#   instead:
#     preemption-incomplete: ask with the cause, the job that goes, and the one that needs the room
#     cause-unknown: give one of reclaim, priority, lowered_quota, fair_share as the cause
#     queue-unknown: use queues of quotas.yaml
#     tenant-mismatch: ask for a job of your own tenant
#     reclaim-off: set preemption.reclaim_within_cohort of the queue that needs the room
#     shares-off: set fair_share.preempt, and borrowers share what they borrow
#     priority-off: set preemption.within_queue of the queue
#     priority-too-low: nothing to do; only a job of lower priority may be ended here
#     other-cohort: nothing to do; only queues of one tree of cohorts take from each other
#     lowered-keeps: set preemption.lowered_quota of the queue to preempt
package guard.compute.preemption

import data.guard.lib.caller

default decision := {"allow": false, "deny": [{"rule": "undecided", "msg": "no rule could be evaluated"}], "warn": []}

# METADATA
# title: The decision
# description: Allowed only when no rule refuses; what callers read.
# scope: document
# entrypoint: true
# custom:
#   article: 4
decision := {"allow": count(deny) == 0, "deny": deny, "warn": []}

# METADATA
# title: Known causes
# description: Why a job may be made to give back what it holds; others are refused.
# custom:
#   article: 4
causes := {"reclaim", "priority", "lowered_quota", "fair_share"}

# METADATA
# title: The queue that gives back
# description: As quotas.yaml describes it.
# custom:
#   article: 4
loser := data.guard.config.quotas.queues[input.victim.queue]

# METADATA
# title: The queue that gets room
# description: As quotas.yaml describes it.
# custom:
#   article: 4
winner := data.guard.config.quotas.queues[input.beneficiary.queue]

# METADATA
# title: The caller
# description: |
#   Refused as for any question: incomplete, unknown, inactive or not a member.
# custom:
#   article: 4
deny contains reason if some reason in caller.deny

# METADATA
# title: Both jobs are described
# description: |
#   Reason given: the request does not describe both jobs.
# custom:
#   article: 4
deny contains {"rule": "preemption-incomplete", "msg": "the request does not describe both jobs"} if not complete

# METADATA
# title: The cause is known
# description: |
#   Reason given: the cause is none of reclaim, priority, lowered_quota, fair_share.
# custom:
#   article: 4
deny contains {"rule": "cause-unknown", "msg": "the cause is none of reclaim, priority, lowered_quota, fair_share"} if {
	not known_cause
}

# METADATA
# title: The queue that gives is known
# description: |
#   Reason given: the queue of the job that goes is not in quotas.yaml.
# custom:
#   article: 4
deny contains {"rule": "queue-unknown", "msg": "the queue of the job that goes is not in quotas.yaml"} if not loser

# METADATA
# title: The queue that takes is known
# description: |
#   Reason given: the queue that needs the room is not in quotas.yaml.
# custom:
#   article: 4
deny contains {"rule": "queue-unknown", "msg": "the queue that needs the room is not in quotas.yaml"} if {
	taken
	not winner
}

# METADATA
# title: Room is asked for one's own job
# description: |
#   Reason given: the room is asked for another tenant's job.
# custom:
#   article: 4
deny contains {"rule": "tenant-mismatch", "msg": "the room is asked for another tenant's job"} if {
	taken
	not own
}

# METADATA
# title: Reclaim is switched on
# description: A queue takes back lent quota only where its preemption says so (quotas.yaml).
# custom:
#   article: 4
deny contains {"rule": "reclaim-off", "msg": "this queue takes nothing back from its cohort"} if {
	input.cause == "reclaim"
	not reclaims
}

# METADATA
# title: Fair share is switched on
# description: Borrowers take from each other only where fair share says so (quotas.yaml).
# custom:
#   article: 4
deny contains {"rule": "shares-off", "msg": "borrowers take nothing from each other here"} if {
	input.cause == "fair_share"
	not data.guard.config.quotas.fair_share.preempt == true
}

# METADATA
# title: Priority is switched on
# description: A queue ends jobs for more important ones only where its preemption says so (quotas.yaml).
# custom:
#   article: 4
deny contains {"rule": "priority-off", "msg": "priorities end nothing in this queue"} if {
	input.cause == "priority"
	not winner.preemption.within_queue == "lower_priority"
}

# METADATA
# title: The job that goes is less important
# description: |
#   Reason given: the job that goes has no lower priority.
# custom:
#   article: 4
deny contains {"rule": "priority-too-low", "msg": "the job that goes has no lower priority"} if {
	needs_priority
	not lower_ranked
}

# METADATA
# title: Reclaim stays within the cohort
# description: |
#   Reason given: the two queues are in no common cohort.
# custom:
#   article: 4
deny contains {"rule": "other-cohort", "msg": "the two queues are in no common cohort"} if {
	input.cause in {"reclaim", "fair_share"}
	not same_tree
}

# METADATA
# title: Priority stays within the queue
# description: |
#   Reason given: the two jobs are not in one queue.
# custom:
#   article: 4
deny contains {"rule": "other-cohort", "msg": "the two jobs are not in one queue"} if {
	input.cause == "priority"
	not same_queue
}

# METADATA
# title: Lowered quotas end jobs where the queue says so
# description: |
#   Reason given: a lowered quota lets this queue's jobs run on.
# custom:
#   article: 4
deny contains {"rule": "lowered-keeps", "msg": "a lowered quota lets this queue's jobs run on"} if {
	input.cause == "lowered_quota"
	not loser.preemption.lowered_quota == "preempt"
}

# METADATA
# title: The cause is known
# description: A name outside the list is refused rather than guessed.
# custom:
#   article: 4
known_cause if input.cause in causes

# METADATA
# title: The room goes to another job
# description: As opposed to a quota that was lowered, where nobody gains.
# custom:
#   article: 4
taken if input.cause in {"reclaim", "priority", "fair_share"}

# METADATA
# title: The room is for the caller's tenant
# description: Nobody takes room for somebody else.
# custom:
#   article: 4
own if winner.tenant == input.principal.tenant

# METADATA
# title: The winning queue may reclaim
# description: Its preemption rules say so (quotas.yaml).
# custom:
#   article: 4
reclaims if winner.preemption.reclaim_within_cohort in {"any", "lower_priority"}

# METADATA
# title: Priorities are compared
# description: For this cause, or because the winning queue only takes from lower ranks.
# scope: document
# custom:
#   article: 4
needs_priority if input.cause == "priority"

needs_priority if {
	input.cause == "reclaim"
	winner.preemption.reclaim_within_cohort == "lower_priority"
}

# METADATA
# title: The job that gives back ranks lower
# description: Strictly, by its priority.
# custom:
#   article: 4
lower_ranked if {
	is_number(input.victim.priority)
	is_number(input.beneficiary.priority)
	input.victim.priority < input.beneficiary.priority
}

# METADATA
# title: One tree of cohorts
# description: The core names the cohort at the top of each queue's tree.
# custom:
#   article: 4
same_tree if {
	is_string(input.victim.tree)
	input.victim.tree == input.beneficiary.tree
}

# METADATA
# title: Both jobs are of one queue
# description: Within a queue priority alone decides.
# custom:
#   article: 4
same_queue if input.victim.queue == input.beneficiary.queue

# METADATA
# title: Both jobs are described
# description: Ids and queues are text.
# scope: document
# custom:
#   article: 4
complete if {
	is_string(input.victim.submission_id)
	is_string(input.victim.queue)
	not taken
}

complete if {
	is_string(input.victim.submission_id)
	is_string(input.victim.queue)
	is_string(input.beneficiary.submission_id)
	is_string(input.beneficiary.queue)
}
