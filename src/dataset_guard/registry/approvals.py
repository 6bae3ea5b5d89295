"""Other people's word for what one person may not do alone: destroying, sharing, exporting, a waiver.

An approval is an audit event of a verified credential with an approver's role (approvers.yaml), for one
version, one operation, and where it matters one target (the tenant it is shared with, the place it is
exported to). It is ``cooperative``: who owns the home can issue the second person's credential too. The
policy of the operation counts them; here they are only given and collected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from guard_core.clock import to_ns
from guard_core.errors import Denied, UserError
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.identity import Principal

EVENT = "dataset.approval"
DESTROY = "dataset-destroy"
SHARE = "dataset-share"
EXPORT = "dataset-export"
WAIVE = "dataset-waive"


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may approve an operation, and for how long that counts."""

    roles: tuple[str, ...]
    ttl_seconds: int


def rules_of(home: Home, operation: str) -> Rules:
    """From the policy data in force. Raises UserError when it does not know the operation."""
    approvers = home.policy_data().get("approvers", {})
    found = approvers.get("operations", {}).get(operation)
    if not isinstance(found, dict):
        raise UserError(f"approvers.yaml names no approvers for {operation}; a platform admin adds them")
    return Rules(tuple(found["roles"]), int(approvers["ttl_seconds"]))


def person(principal: Principal) -> Principal:
    """``principal``, when a person may answer for it. Raises Denied for a job's credential."""
    if principal.kind == "job":
        raise Denied("a job's credential cannot change what is registered; use a person's credential")
    return principal


def role_of(principal: Principal, rules: Rules, what: str) -> str:
    """The role with which ``principal`` approves. Raises Denied when it has none of them."""
    for role in person(principal).roles:
        if role in rules.roles:
            return role
    raise Denied(
        f"{what} takes one of the roles {', '.join(rules.roles)}; {principal.user} has none of them "
        "(a platform admin gives a credential with one: trainguard tenant issue --role ROLE)"
    )


def give(home: Home, ref: str, operation: str, *, principal: Principal, target: str | None = None) -> str:
    """Record the approval of ``operation`` on ``ref``; returns its id. Raises Denied, UserError."""
    role = role_of(principal, rules_of(home, operation), f"approving {operation} of {ref}")
    return home.audit.event(
        EVENT,
        subject=ref,
        data={
            "operation": operation,
            **({} if target is None else {"target": target}),
            "by": principal.user,
            "role": role,
            "tenant": principal.tenant,
            "credential_id": principal.credential_id,
            "at_ns": to_ns(home.clock()),
        },
        enforcement=Enforcement.COOPERATIVE,
    )


def collected(home: Home, ref: str, operation: str, *, target: str | None = None) -> Sequence[dict[str, Any]]:
    """The approvals of ``operation`` on ``ref`` for ``target`` that are not too old, as policy input."""
    since = home.clock() - timedelta(seconds=rules_of(home, operation).ttl_seconds)
    return [
        {key: record["data"][key] for key in ("by", "role", "tenant", "at_ns")}
        for record in home.audit.records(since=since, kind=EVENT)
        if record["subject"] == ref
        and (record["data"]["operation"], record["data"].get("target")) == (operation, target)
    ]
