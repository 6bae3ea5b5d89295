"""Changes of a question that a person could bring about, each with the sentence that says how.

They follow the documented input of the shipped policies (docs/admin/policy.md), wherever those shapes stand
in a question; what a question does not hold gives no move. Every number in a sentence comes from its facts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from guard_core.policy.move import Move, number_at, setting
from guard_core.policy.moves_of_data import datasets, fields
from guard_core.policy.moves_of_people import approvals, times
from guard_core.policy.moves_of_quota import queues, resources


def moves(question: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Move]:
    """Every single change that is worth asking about ``question``, under the policy data ``config``."""
    yield from resources(question)
    yield from queues(question, config)
    yield from fields(question)
    yield from datasets(question)
    yield from approvals(question, config)
    yield from times(question, config)
    if (number_at(question, "in_use") or 0) > 0:
        freed = "see that no alias (dataset alias N@V ALIAS --remove), version or job names it"
        yield Move("in_use", freed, setting("in_use", 0))
    if question.get("purpose") in ("train", "evaluate", "export"):
        yield Move("purpose", "only inspect it (purpose inspect)", setting("purpose", "inspect"))
    yield from _flags(question)


def _flags(question: Mapping[str, Any], depth: int = 3) -> Iterator[Move]:
    """Yes-or-no facts that no move above knows: rules of the admins' own may ask them."""

    def below(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], bool]]:
        for key, value in node.items() if isinstance(node, dict) and len(keys) < depth else ():
            if isinstance(value, bool):
                yield (*keys, key), value
            else:
                yield from below(value, (*keys, key))

    for keys, value in below(question, ()):
        if keys[0] in ("principal", "quota", "dataset"):
            continue  # who asks is not for changing, and the others have moves of their own
        said = "true" if not value else "false"
        yield Move(f"flag {keys}", f"let {'.'.join(keys)} be {said}", setting(*keys, not value))
