"""Questions on their way to decisions: asked together, put on record in one write, all or none.

Many at once are handed to a second process in parts, as far as there is one (:mod:`guard_core.policy.aside`).
Whoever wants the decisions reads what it has answered and evaluates the rest, from the other end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guard_core.clock import new_id, to_ns
from guard_core.errors import GuardError, Tampered, Undecidable
from guard_core.findings import Enforcement
from guard_core.policy.decision import Answer, Decision
from guard_core.policy.inquiry import Answered, Inquiry

if TYPE_CHECKING:
    from guard_core.audit.log import Event
    from guard_core.home import Home
    from guard_core.identity import Principal
    from guard_core.policy.bundle import Bundle

MANY = 16
"""Fewer questions are evaluated before another process has read them."""
PART = 6

Asked = tuple[Mapping[str, Any], "Principal", str]
"""(input, principal, subject)."""
_Made = tuple[Decision, list[Mapping[str, Any] | bytes]]
"""A decision, and the records to write for it."""


@dataclass(slots=True)
class _Part:
    """Questions handed over together: as they were, and the number they were handed over as, if they were."""

    inquiries: list[Inquiry]
    number: int


class Asking:
    """Questions that :meth:`guard_core.home.Home.ask_many` was given."""

    def __init__(self, home: Home, path: str, asked: Sequence[Asked], enforcement: Enforcement) -> None:
        self._home = home
        self._path = path
        self._enforcement = enforcement
        self._parts: list[_Part] = []
        self._asked = list(asked)
        """What was not handed over."""
        if len(asked) >= MANY and (bundle := _sole_bundle(home)) and home.aside.ready(len(asked)):
            self._hand_over(bundle)

    def _hand_over(self, bundle: Bundle) -> None:
        inquiries = [self._inquiry(*one) for one in self._asked]
        parts = [inquiries[first : first + PART] for first in range(0, len(inquiries), PART)]
        numbers = self._home.aside.put(bundle, parts)
        self._parts = [_Part(part, number) for part, number in zip(parts, numbers, strict=True)]
        self._asked = []

    def _inquiry(self, given: Mapping[str, Any], principal: Principal, subject: str) -> Inquiry:
        moment = self._home.clock()
        question = {"now_ns": to_ns(moment), **given, "principal": principal.to_input()}
        asker = f"{principal.tenant}/{principal.user}"
        return Inquiry(self._path, question, asker, subject, moment, new_id("dec"), self._enforcement)

    def abandon(self) -> None:
        """Nobody wants the decisions any more."""
        if self._parts:
            self._home.aside.drop([part.number for part in self._parts])
        self._parts, self._asked = [], []

    def decided(self, after: Sequence[Event] = ()) -> list[Decision]:
        """The decisions, in the order of the questions, on record; in the same write before them, ``after``.

        Policy trouble is a decision that does not allow. Raises Undecidable when they cannot be recorded:
        then nothing was written, nor was ``after``.
        """
        try:
            made = [*self._made_aside(), *(self._made(self._inquiry(*one)) for one in self._asked)]
            before = self._home.audit.bodies_of_events(after)
            if records := [*before, *(record for _, records in made for record in records)]:
                self._home.audit.append(records)
        except (TypeError, ValueError, RecursionError) as error:
            raise Undecidable(
                f"no decision is given because its question cannot be put on record: {error}"
            ) from error
        except Tampered as error:
            raise Undecidable(
                f"no decision is given while the audit log cannot be trusted: {error}"
            ) from error
        finally:
            self.abandon()
        return [decision for decision, _ in made]

    def _made_aside(self) -> list[_Made]:
        """What was handed over: answered there, or else here, from the end that it has not come to."""
        made: list[list[_Made]] = []
        bundle = _sole_bundle(self._home) if self._parts else None
        engine = self._home.policy.name if bundle is not None else ""
        for part in reversed(self._parts):
            answers = self._home.aside.take(part.number)
            if bundle is None or answers is None or not _fit(part, answers, bundle.revision):
                self._home.aside.drop([part.number])
                made.append([self._made(one) for one in part.inquiries])
            else:
                pairs = zip(part.inquiries, answers, strict=True)
                made.append([_taken(one, answered, engine) for one, answered in pairs])
        return [one for part in reversed(made) for one in part]

    def _made(self, one: Inquiry) -> _Made:
        answer, revision, engine = self._answer(one)
        decision = one.decided(answer, revision=revision, engine=engine)
        bodies = self._home.audit.bodies_of(
            decision,
            question=one.question,
            requested_by=one.requested_by,
            subject=one.subject,
            moment=one.moment,
            difference=answer.difference,
        )
        return decision, [*bodies]

    def _answer(self, one: Inquiry) -> tuple[Answer, str, str]:
        try:
            engine = self._home.policy
            answer = engine.evaluate(one.path, one.question)
            return answer, answer.revision or engine.revision, engine.name
        except GuardError as error:
            return Answer(error=str(error)), "", self._home.settings.policy.engine
        except Exception as error:  # noqa: BLE001 - an engine's bug must be a denial on record, not a way round it
            text = f"the policy engine failed: {error!r}"
            return Answer(error=text), "", self._home.settings.policy.engine


def _fit(part: _Part, answers: Sequence[Answered], revision: str) -> bool:
    """Whether they are the answers to these very questions, under the policies in force."""
    wanted = [(one.decision_id, revision) for one in part.inquiries]
    return wanted == [(one.decision_id, one.revision) for one in answers]


def _taken(one: Inquiry, found: Answered, engine: str) -> _Made:
    answer = Answer(value=found.value, defined=found.defined, eval_ns=found.eval_ns, revision=found.revision)
    return one.decided(answer, revision=found.revision, engine=engine), [found.record]


def _sole_bundle(home: Home) -> Bundle | None:
    """The one bundle that decides everything now; None where another process cannot know what to answer."""
    if home.settings.audit.mask_on_write:
        return None
    try:
        sole: Callable[[], Bundle | None] | None = getattr(home.policy, "sole_bundle", None)
        return None if sole is None else sole()
    except GuardError:
        return None
