"""May this request set these run tags? What they say in our name must be what the registry says.

``guard.dataset.<context>`` and its ``.verdict``, ``.fingerprint`` and ``.decision_id`` say which versions a
run took in, and searches go by them; ``guard.tainted_by`` says that one of them turned out to be bad. On a
server with the gate the first are true or refused. Marks are added, by the tenant of the version they name,
and never taken away, except by a platform admin. Other tags, also ``guard.tenant`` and ``guard.user``, are
their owner's text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataset_guard.integrations.mlflow_fields import input_tags
from dataset_guard.integrations.mlflow_gate import LOG_IT, SAY_WHO, Candidate, LoggedDataset, first_denial
from dataset_guard.integrations.mlflow_lineage import MARK
from guard_core.errors import GuardError

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.identity import Principal

SAID = "guard.dataset."
_PARTS = (".verdict", ".fingerprint", ".decision_id")
_VALUE_CHARACTERS = 8000  # MLflow's limit, to which our client cuts


@dataclass(frozen=True, slots=True)
class TagChange:
    """What a request does to a run's tags. ``present`` gives the tags that the run has."""

    put: Sequence[tuple[str, str]]
    removed: Sequence[str] = ()
    present: Callable[[], Mapping[str, str]] = dict

    def ours(self) -> TagChange:
        """What of it is said in our name; look-alikes count."""
        put = [(key, value) for key, value in self.put if _is_ours(key)]
        return TagChange(put, [key for key in self.removed if _is_ours(key)], self.present)


def _is_ours(key: str) -> bool:
    return key.strip().lower().startswith((SAID, MARK))


def tag_refusal(home: Home, token: str | None, change: TagChange) -> str | None:
    """Why the change is refused, as one sentence; None when it is not. Trouble of any kind refuses."""
    ours = change.ours()
    if not ours.put and not ours.removed:
        return None
    if token is None:
        return f"run tags that speak in TrainGuard's name are taken from known people only; {SAY_WHO}"
    try:
        principal = home.credentials.verify(token)
        return _refused(home, principal, ours)
    except GuardError as error:
        return str(error)


def _refused(home: Home, principal: Principal, change: TagChange) -> str | None:
    put = dict(change.put)
    if len(put) != len(change.put):
        return "a run tag in TrainGuard's name is given twice; give it once"
    marks = {key: put.pop(key) for key in list(put) if key.startswith(MARK)}
    if not principal.is_platform_admin:
        reason = _unmarked(principal, marks.get(MARK), change)
        if reason is not None:
            return reason
    by_context: dict[str, dict[str, str]] = defaultdict(dict)
    for key, value in put.items():
        base = next((key.removesuffix(part) for part in _PARTS if key.endswith(part)), key)
        by_context[base][key] = value
    for base, tags in by_context.items():
        reason = _untrue(home, principal, base, tags)
        if reason is not None:
            return reason
    return None


def _unmarked(principal: Principal, mark: str | None, change: TagChange) -> str | None:
    """Why somebody who is no platform admin may not change the marks of a run so."""
    from dataset_guard.registry.refs import parse_ref

    if any(key.strip().lower().startswith(MARK) for key in change.removed):
        return f"{MARK} says that a run used bad data, and only a platform admin takes it away"
    if mark is None:
        return None
    before, after = set(_refs(change.present().get(MARK, ""))), set(_refs(mark))
    if before - after:
        return f"{MARK} of this run names {min(before - after)}, and only a platform admin takes it away"
    for text in sorted(after - before):
        if parse_ref(text, tenant=principal.tenant).tenant != principal.tenant:
            return f"{text} belongs to another tenant, so its runs are marked by that tenant"
    return None


def _untrue(home: Home, principal: Principal, base: str, tags: Mapping[str, str]) -> str | None:
    """Why ``tags`` of one context are not what our own client would set for the versions they name."""
    from dataset_guard.reads.access import stored_report
    from dataset_guard.registry.refs import parse_ref
    from dataset_guard.registry.store import Registry

    context = base.removeprefix(SAID)
    if not base.startswith(SAID) or base not in tags:
        return f"{min(tags)} says something about data without naming the version in {base}; {LOG_IT}"
    expected: dict[str, str] = {}
    decisions = set()
    for text in _refs(tags[base]):
        ref = parse_ref(text, tenant=principal.tenant)
        if ref.version is None:
            return f"the tag {base} names no version in {text!r}; {LOG_IT}"
        asked = Candidate(ref.tenant, ref.name, ref.version)
        denied = first_denial(home, principal, [asked], LoggedDataset(ref.name, "", context))
        if denied is not None and ref.tenant != principal.tenant and not principal.is_platform_admin:
            return f"{text} is not there, or is not shared with you"  # which of them is not told
        if denied is not None:
            return denied
        report = stored_report(Registry(home).reference(text, tenant=ref.tenant))
        expected = input_tags(report, context, expected)
        decisions.add(report.decision_id)
    for key, value in tags.items():
        known = {expected.get(key)} if not key.endswith(".decision_id") else decisions
        if value not in {text[:_VALUE_CHARACTERS] for text in known if text is not None}:
            return f"the tag {key} is not what the registry says of {tags[base][:200]}; {LOG_IT}"
    return None


def _refs(text: str) -> list[str]:
    return [part for part in text.split(", ") if part]
