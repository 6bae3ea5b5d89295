"""What would have been allowed: the smallest changes of a question that turn its answer, found by asking.

The very revision that decided is asked again with changed facts: fewer resources, another queue, a data
set approved, one approval more, a later time, one field less. Single changes come first, then two, three and
four together of those that take a reason away; the search stops at the first size that is allowed, or at
``MAX_ASKED`` questions. So what is printed was answered ``allow`` by the policy and is not our reading of it;
that nothing was found proves nothing. The counterfactual definition is that of Wachter, Mittelstadt and
Russell 2018 ("the closest possible world"), with the number of changes as the distance.

Facts that are worked out from others (``fits`` from ``requested`` and ``available``) are changed with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from guard_core.policy.move import Move
from guard_core.policy.moves import moves

MAX_ASKED = 400
MAX_FOUND = 5
MAX_USEFUL = 12
LARGEST = 4

Ask = Callable[[str, Mapping[str, Any]], Any]
"""(rule path, input) -> the rule's value, None when it failed or is undefined."""


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """Changes that together would have been allowed: a sentence for each."""

    sentences: tuple[str, ...]

    def to_text(self) -> str:
        """One line."""
        return ", and ".join(self.sentences)


@dataclass(frozen=True, slots=True)
class Search:
    """What was found, or why nothing was. ``asked`` counts the questions put to the policy."""

    found: tuple[Counterfactual, ...] = ()
    asked: int = 0
    why_not: str = ""

    def to_json(self) -> dict[str, Any]:
        """For ``policy why --format json``."""
        return {
            "found": [list(one.sentences) for one in self.found],
            "asked": self.asked,
            "why_not": self.why_not,
        }

    def lines(self) -> Iterator[str]:
        """For a person."""
        for one in self.found:
            yield one.to_text()
        if self.why_not:
            yield f"({self.why_not})"


def search(
    ask: Ask,
    path: str,
    question: Mapping[str, Any],
    recorded: Any,
    config: Mapping[str, Any],
    *,
    most: int = MAX_ASKED,
) -> Search:
    """The smallest changes of ``question`` that ``path`` would have allowed.

    ``recorded`` is the value it had then, which asking again must give too; ``config`` the policy data of
    that revision (``data.guard.config``).
    """
    before = ask(path, question)
    if _reasons(before) != _reasons(recorded):
        return Search((), 1, "the policy, asked again, answers otherwise: the record lacks something it read")
    asked = 1
    open_reasons = _reasons(before)
    useful: list[tuple[int, Move]] = []
    single: list[Move] = []
    for move in moves(question, config):
        if asked >= most:
            break
        asked += 1
        after = ask(path, _changed(question, [move]))
        if _allows(after):
            single.append(move)
        elif after is not None and len(_reasons(after) & open_reasons) < len(open_reasons):
            useful.append((len(_reasons(after)), move))
    if single:
        least = min((move.people for move in single if move.people), default=0)
        fewest = [move for move in single if move.people in (0, least)]
        return Search(tuple(Counterfactual((move.sentence,)) for move in fewest[:MAX_FOUND]), asked)
    useful.sort(key=lambda pair: pair[0])
    candidates = [move for _, move in useful[:MAX_USEFUL]]
    for size in range(2, LARGEST + 1):
        together: list[Counterfactual] = []
        for chosen in combinations(candidates, size):
            if asked >= most or len(together) >= MAX_FOUND:
                break
            if len({move.about for move in chosen}) < size:
                continue
            asked += 1
            if _allows(ask(path, _changed(question, chosen))):
                together.append(Counterfactual(tuple(move.sentence for move in chosen)))
        if together:
            return Search(tuple(together), asked)
    return Search((), asked, f"no change of at most {LARGEST} facts was found in {asked} questions")


def _changed(question: Mapping[str, Any], chosen: Sequence[Move]) -> dict[str, Any]:
    copy = deepcopy(dict(question))
    for move in chosen:
        move.apply(copy)
    return copy


def _allows(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("allow") is True


def _reasons(value: Any) -> frozenset[str]:
    """Reasons against, as texts that tell them apart."""
    found = []
    for kind in ("deny", "hold"):
        items = value.get(kind) if isinstance(value, Mapping) else None
        for item in items if isinstance(items, list) else ():
            words = (item.get("rule"), item.get("msg")) if isinstance(item, Mapping) else item
            found.append(f"{kind} {words}")
    return frozenset(found)
