"""Why a decision was what it was, from its audit record, in the words the caller was given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guard_core.errors import UserError
from guard_core.findings import Enforcement
from guard_core.policy.decision import Decision, Reason
from guard_core.policy.metadata import PackageNotes, instead_of, package_notes

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.policy.counterfactual import Search

_KINDS = ("deny", "hold", "warn")


@dataclass(frozen=True, slots=True)
class Explanation:
    """One recorded decision, its reasons by kind, and for each rule what would have been allowed."""

    decision: Decision
    record: Mapping[str, Any]
    instead: Mapping[str, str]
    same_revision: bool
    purpose: str = ""
    """What the policy is for and the article of the notice it serves, from its ``# METADATA``."""
    would: Search | None = None
    """The smallest changes that would have been allowed, where they were looked for."""

    def to_json(self) -> dict[str, Any]:
        """The decision's JSON with path, input, subject, time, reasons by kind and ``instead``."""
        return {
            **self.decision.to_json(),
            "path": self.decision.path,
            "outcome": self.outcome,
            "timestamp": self.record.get("timestamp"),
            "requested_by": self.record.get("requested_by"),
            "subject": self.record.get("subject", ""),
            "input": self.record.get("input"),
            **{kind: [reason.to_json() for reason in self.decision.reasons_of(kind)] for kind in _KINDS},
            "instead": {rule: said for rule, said in self.instead.items() if rule in self._rules()},
            "same_revision": self.same_revision,
            "purpose": self.purpose,
            "would_be_allowed": None if self.would is None else self.would.to_json(),
        }

    @property
    def outcome(self) -> str:
        """``allowed``, ``denied``, ``held`` or ``undecidable``."""
        if self.decision.undecidable:
            return "undecidable"
        if self.decision.allow:
            return "allowed"
        held = self.decision.reasons_of("hold") and not self.decision.reasons_of("deny")
        return "held" if held else "denied"

    def _rules(self) -> set[str]:
        return {reason.rule for kind in _KINDS for reason in self.decision.reasons_of(kind)}

    def to_text(self) -> str:
        """The same for a person."""
        decision, record = self.decision, self.record
        lines = [
            f"{decision.decision_id}  {self.outcome}  {decision.path}",
            f"asked by {record.get('requested_by')} at {record.get('timestamp')}"
            + (f" about {record['subject']}" if record.get("subject") else ""),
            f"policy   {decision.revision or '(no revision)'}  {decision.engine}  "
            f"{decision.enforcement.value}",
        ]
        if self.purpose:
            lines.append(f"question {self.purpose}")
        if not self.same_revision:
            lines.append("         the policies in force have changed since")
        for kind in _KINDS:
            for reason in decision.reasons_of(kind):
                lines.append(f"{kind:<8} {reason.msg} [{reason.rule}]{_details(reason)}")
                if kind != "warn" and reason.rule in self.instead:
                    lines.append(f"         instead: {self.instead[reason.rule]}")
        if self.would is not None:
            first, *others = self.would.lines()
            lines.append(f"allowed if you {first}" if self.would.found else f"allowed if  {first}")
            lines += [f"     or if you {other}" for other in others]
        lines.append("it saw")
        saw = json.dumps(record.get("input"), indent=2, ensure_ascii=False, sort_keys=True)
        lines += [f"  {line}" for line in saw.splitlines()]
        return "\n".join(lines)


def explain(home: Home, decision_id: str) -> Explanation:
    """Find and explain a decision. Raises UserError when the audit log holds none of that id."""
    record = home.decision_record(decision_id)
    if record is None:
        raise UserError(f"there is no decision {decision_id!r} on record; see: trainguard audit export")
    bundles = record.get("bundles")
    named = bundles.get("guard") if isinstance(bundles, Mapping) else None
    revision = str(named.get("revision", "")) if isinstance(named, Mapping) else ""
    decision = Decision(
        decision_id=decision_id,
        path=str(record.get("path", "")),
        value=record.get("result"),
        defined="result" in record,
        error=_error(record.get("error")),
        revision=revision,
        engine=str(record.get("engine", "")),
        enforcement=Enforcement(record.get("enforcement", Enforcement.COOPERATIVE)),
    )
    modules, in_force = _in_force(home)
    notes = package_notes(modules)
    return Explanation(
        decision,
        record,
        instead_of(notes, path=decision.path),
        in_force == revision,
        next((_purpose(note) for note in notes if note.decides(decision.path)), ""),
        _would(home, decision, record),
    )


def _purpose(note: PackageNotes) -> str:
    return f"{note.title} (article {note.article} of the notice)" if note.article else note.title


def _would(home: Home, decision: Decision, record: Mapping[str, Any]) -> Search | None:
    """Ask the revision that decided what would have turned its answer; by the embedded engine, unrecorded."""
    from guard_core.policy.counterfactual import Search, search
    from guard_core.policy.embedded import EmbeddedEngine
    from guard_core.policy.lifecycle.opening import bundle_of_revision

    question = record.get("input")
    if decision.allow or decision.undecidable or not isinstance(question, Mapping):
        return None
    if any(str(p).startswith("/input/") for p in (*record.get("erased", ()), *record.get("masked", ()))):
        return Search(why_not="not looked for: part of what it saw was masked when it was recorded")
    bundle = bundle_of_revision(home, decision.revision)
    if bundle is None:
        return Search(why_not="not looked for: the policies of that revision are not kept here")
    engine = EmbeddedEngine(bundle)

    def ask(path: str, changed: Mapping[str, Any]) -> Any:
        answer = engine.evaluate(path, changed)
        return answer.value if answer.defined and answer.error is None else None

    return search(ask, decision.path, question, decision.value, bundle.config)


def _in_force(home: Home) -> tuple[Mapping[str, str], str]:
    from guard_core.errors import GuardError
    from guard_core.policy.engine import bundle_in_force

    engine_bundle = None
    try:
        engine_bundle = getattr(home.policy, "bundle", None)
        bundle = engine_bundle or bundle_in_force(home.settings)
    except GuardError:
        return {}, ""  # what was decided can be told although today's policies are broken
    return bundle.modules, bundle.revision


def _error(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value.get("message", value)) if isinstance(value, Mapping) else str(value)


def _details(reason: Reason) -> str:
    return "".join(f"  {key}={value}" for key, value in reason.details.items())
