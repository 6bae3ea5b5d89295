"""One change of a question that a person could bring about; how parts of a question are read and set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Move:
    """One change; two moves ``about`` the same thing are never made together. ``people`` it takes."""

    about: str
    sentence: str
    apply: Callable[[Json], None]
    people: int = 0


def without(*keys: str) -> Callable[[Json], None]:
    """The change that takes out what stands at the keys."""

    def apply(copy: Json) -> None:
        node = copy
        for key in keys[:-1]:
            node = node[key]
        node.pop(keys[-1], None)

    return apply


def setting(*path_and_value: Any) -> Callable[[Json], None]:
    """The change that puts the last argument where the others lead."""
    *keys, value = path_and_value

    def apply(copy: Json) -> None:
        node = copy
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return apply


def at(node: Any, *keys: str) -> Any:
    """What stands at the keys, None where nothing does."""
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def number_at(node: Any, key: str) -> int | None:
    """The whole number at ``key``, None for anything else."""
    found = at(node, key)
    return found if isinstance(found, int) and not isinstance(found, bool) else None
