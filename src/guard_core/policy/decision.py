"""A policy decision, and the protocol every engine answers with.

The only way to say yes is :attr:`Decision.allow`: the engine answered, the rule was defined, and
its value is an object whose ``allow`` is exactly ``true``. Everything else is no.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from guard_core.findings import Enforcement

UNAVAILABLE = "policy_unavailable"
"""Rule name of the reason given when no decision could be had."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One member of a policy's ``deny``, ``hold`` or ``warn`` set, in Conftest's and Gatekeeper's shape."""

    rule: str
    msg: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """``{"rule", "msg", ...details}``."""
        return {**self.details, "rule": self.rule, "msg": self.msg}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an engine said about one question, before it is a decision. ``error`` is None when it answered."""

    value: Any = None
    defined: bool = False
    error: str | None = None
    eval_ns: int = 0
    revision: str = ""
    """Revision that gave this very answer; with hot reload it may differ from the engine's a moment later."""
    difference: Mapping[str, Any] | None = None
    """What a staged candidate would have said, when it differs: for the audit log, beside the decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A policy decision with everything needed to explain and replay it."""

    decision_id: str
    path: str
    value: Any
    defined: bool
    error: str | None
    revision: str
    engine: str
    enforcement: Enforcement
    eval_ns: int = 0

    @property
    def allow(self) -> bool:
        """True only for a defined object with ``allow: true`` from an engine that answered."""
        return (
            self.error is None
            and self.defined
            and isinstance(self.value, dict)
            and self.value.get("allow") is True
        )

    @property
    def undecidable(self) -> bool:
        """True when the engine failed: still a denial, but exit code 3 rather than 1."""
        return self.error is not None or not self.defined or not isinstance(self.value, dict)

    def reasons_of(self, kind: str) -> tuple[Reason, ...]:
        """The reasons in the policy's set ``kind`` (``deny``, ``hold``, ``warn``), by rule and message."""
        if self.undecidable:
            if kind != "deny":
                return ()
            return (Reason(UNAVAILABLE, self.error or f"policy {self.path} gave no usable answer"),)
        found = []
        for item in self.value.get(kind) or []:
            if isinstance(item, dict):
                rest = {k: v for k, v in item.items() if k not in ("rule", "msg")}
                found.append(Reason(str(item.get("rule", "unnamed")), str(item.get("msg", "")), rest))
            else:
                found.append(Reason("unnamed", str(item)))
        return tuple(sorted(found, key=lambda r: (r.rule, r.msg)))

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why not, when denied; what to mind (``warn``), when allowed."""
        return self.reasons_of("warn" if self.allow else "deny")

    def explain(self) -> str:
        """The reasons as one line for a person, the same words wherever a denial is shown."""
        reasons = self.reasons or self.reasons_of("hold")
        text = "; ".join(f"{r.msg} [{r.rule}]" for r in reasons)
        return text or ("allowed" if self.allow else "denied: no rule allowed it")

    def to_json(self) -> dict[str, Any]:
        """The documented JSON shape of a decision."""
        return {
            "decision_id": self.decision_id,
            "allow": self.allow,
            "reasons": [r.to_json() for r in self.reasons],
            "revision": self.revision,
            "engine": self.engine,
            "enforcement": self.enforcement.value,
        }


@runtime_checkable
class PolicyEngine(Protocol):
    """Answers questions about one set of policies. Never raises for a policy fault: it answers ``error``."""

    @property
    def name(self) -> str:
        """``embedded`` or ``server``, with version, e.g. ``embedded/regorus-0.13.0``."""

    @property
    def revision(self) -> str:
        """Revision of the bundle in force."""

    def evaluate(self, path: str, input: Mapping[str, Any]) -> Answer:  # noqa: A002  # OPA's word
        """Value of the rule at ``path`` (``guard/dataset/use/decision``) for ``input``."""

    def health(self) -> Sequence[str]:
        """Problems, one sentence each with its remedy; empty when healthy."""
