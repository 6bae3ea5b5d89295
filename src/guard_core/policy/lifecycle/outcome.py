"""What a decision came to, so far as a person cares, and how two of them differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNCHANGED = "unchanged"
REASONS = "reasons"
"""Same outcome, given by other rules."""
VERDICT = "verdict"
ERROR = "error"
UNDECIDABLE = "undecidable"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``kind`` is allow, hold, deny or error. ``rules`` are the names in deny or hold (warn when allowed)."""

    kind: str
    verdict: str | None = None
    rules: tuple[str, ...] = ()
    message: str = ""

    @classmethod
    def of(cls, value: Any, *, defined: bool = True, error: str | None = None) -> Outcome:
        """The outcome of an answer: what is not clearly an allow is none, what cannot be used is an error."""
        if error is not None:
            return cls("error", message=error)
        if not defined or not isinstance(value, Mapping):
            return cls("error", message="the policy gave no usable answer")
        verdict = value.get("verdict")
        said = verdict if isinstance(verdict, str) else None
        denied, held = _reasons(value, "deny"), _reasons(value, "hold")
        if value.get("allow") is True:
            return cls("allow", said, _rules(_reasons(value, "warn")))
        kind = "hold" if held and not denied else "deny"
        because = denied or held
        return cls(kind, said, _rules(because), because[0][1] if because else "no rule allowed it")

    @classmethod
    def recorded(cls, event: Mapping[str, Any]) -> Outcome:
        """The outcome of a decision record of the audit log."""
        error = event.get("error")
        said = str(error.get("message", error)) if isinstance(error, Mapping) else error
        return cls.of(
            event.get("result"), defined="result" in event, error=None if error is None else str(said)
        )


def change(old: Outcome, new: Outcome) -> str:
    """``unchanged``, ``reasons``, ``verdict``, ``error`` (the new one failed) or ``old->new`` of the kinds.

    A recorded error that now has an answer is ``error->allow`` and so on.
    """
    if new.kind == "error":
        return UNCHANGED if old.kind == "error" else ERROR
    if old.kind != new.kind:
        return f"{old.kind}->{new.kind}"
    if old.verdict != new.verdict:
        return VERDICT
    return UNCHANGED if old.rules == new.rules else REASONS


def _reasons(value: Mapping[str, Any], kind: str) -> list[tuple[str, str]]:
    items = value.get(kind)
    found = []
    for item in items if isinstance(items, list) else ():
        if isinstance(item, Mapping):
            found.append((str(item.get("rule", "unnamed")), str(item.get("msg", ""))))
        else:
            found.append(("unnamed", str(item)))
    return sorted(found)


def _rules(reasons: list[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(sorted({rule for rule, _ in reasons}))
