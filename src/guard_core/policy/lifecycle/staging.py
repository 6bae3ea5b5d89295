"""A candidate beside the policies in force: whom it concerns, and what is said when it differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from guard_core.policy.decision import Answer
from guard_core.policy.lifecycle.outcome import REASONS, UNCHANGED, Outcome, change
from guard_core.policy.lifecycle.state import Stage

CANDIDATE_RULE = "candidate-differs"
"""Rule name of the warning that a staged candidate adds in mode ``warn``."""


def subject_of(path: str, question: Mapping[str, Any]) -> tuple[str, str]:
    """``(tenant, subject)`` of a question: what a share of subjects is drawn by.

    The subject is the job, dataset or incident decided about, else the user: so that one job, asked about
    again and again while it waits, is always on the same side.
    """
    principal = question.get("principal")
    tenant = str(principal.get("tenant", "")) if isinstance(principal, Mapping) else ""
    for member, key in (("workload", "submission_id"), ("dataset", "name"), ("incident", "id")):
        value = question.get(member)
        if isinstance(value, Mapping) and isinstance(value.get(key), str):
            return tenant, f"{path}:{value[key]}"
    user = str(principal.get("user", "")) if isinstance(principal, Mapping) else ""
    return tenant, f"{path}:{user}"


def combined(stage: Stage, answer: Answer, candidate: Answer) -> Answer:
    """``answer`` with what the candidate would have said: for the log, and in mode ``warn`` for the user.

    Whatever the candidate says or fails to say, the outcome stays ``answer``'s.
    """
    ours = Outcome.of(answer.value, defined=answer.defined, error=answer.error)
    theirs = Outcome.of(candidate.value, defined=candidate.defined, error=candidate.error)
    kind = change(ours, theirs)
    if kind == UNCHANGED:
        return answer
    noted: dict[str, Any] = {
        "change": stage.change,
        "mode": stage.mode,
        "class": kind,
        "revision": answer.revision,
        "candidate_revision": candidate.revision,
        "outcome": ours.kind,
        "candidate_outcome": theirs.kind,
        "candidate_rules": list(theirs.rules),
        "candidate_message": theirs.message,
    }
    if ours.verdict is not None or theirs.verdict is not None:
        noted |= {"verdict": ours.verdict, "candidate_verdict": theirs.verdict}
    value = answer.value
    if stage.mode == "warn" and kind != REASONS and isinstance(value, dict):
        warned = value.get("warn")
        told = {"rule": CANDIDATE_RULE, "msg": _warning(theirs, kind), "change": stage.change}
        value = {**value, "warn": [*(warned if isinstance(warned, list) else []), told]}
    return replace(answer, value=value, difference=noted)


def _warning(theirs: Outcome, kind: str) -> str:
    if theirs.kind == "error":
        return f"the coming policy fails on this request: {theirs.message}"
    if theirs.kind in ("deny", "hold"):
        word = "refuse" if theirs.kind == "deny" else "hold"
        return f"the coming policy would {word} this: {theirs.message} [{', '.join(theirs.rules)}]"
    if kind == "verdict":
        return f"under the coming policy the verdict would be {theirs.verdict}"
    return "the coming policy would allow this"
