"""What of a record may leave the home: ``guard/audit/mask`` is asked, and its answer applied.

A field is removed (its JSON pointer is then in ``erased``) or its value replaced (``masked``), as OPA's
decision-log masks do (``v1/plugins/logs/mask.go``). Three differences, all to the safe side: pointers are
resolved against the record as it was, so that removing element 0 does not make element 1 slip through;
they are escaped by RFC 6901; and a replacement is never put where nothing was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guard_core.clock import Clock, to_ns
from guard_core.errors import GuardError, Undecidable
from guard_core.findings import Enforcement
from guard_core.identity import Principal
from guard_core.policy.decision import Decision, PolicyEngine

MASK_RULE = "guard/audit/mask/decision"
NOBODY = Principal(tenant="", user="", roles=(), credential_id="", kind="system")
"""Who asked for a record that is no decision, as the mask policy sees it."""


@dataclass(frozen=True, slots=True)
class Mask:
    """One field to hide: removed, or with ``replacement`` replaced. ``keys`` are unescaped."""

    keys: tuple[str, ...]
    replacement: str | None = None

    @classmethod
    def of(cls, value: Any) -> Mask:
        """From a member of the policy's ``mask``. Raises ValueError."""
        if isinstance(value, str):
            return cls(_keys(value))
        if isinstance(value, Mapping) and set(value) == {"pointer", "replace"}:
            pointer, replacement = value["pointer"], value["replace"]
            if isinstance(pointer, str) and isinstance(replacement, str):
                return cls(_keys(pointer), replacement)
        raise ValueError(f"{value!r} is neither a JSON pointer nor a pointer with a replacement")

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorted backwards by this, children come before parents and later elements before earlier ones."""
        parts = tuple((0, int(k), "") if _is_index(k) else (1, 0, k) for k in self.keys)
        return (parts, self.replacement is not None)


def _keys(pointer: str) -> tuple[str, ...]:
    if not pointer.startswith("/"):
        raise ValueError(f"{pointer!r} is no JSON pointer: it does not begin with a slash")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdigit() and (key == "0" or key[0] != "0")


def masked(record: Mapping[str, Any], masks: Sequence[Mask]) -> dict[str, Any]:
    """A copy of ``record`` with ``masks`` applied below its ``input`` (``data``, if it is no decision).

    Pointers that lead nowhere change nothing. ``record`` itself stays as it is.
    """
    part = _part(record)
    copy = dict(record)
    done: dict[bool, list[str]] = {False: [], True: []}
    root = {part: _copy(record[part])} if part in record else {}
    for mask in sorted(masks, key=lambda m: m.order, reverse=True):
        if _apply(root, (part, *mask.keys), mask.replacement):
            pointer = "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in (part, *mask.keys))
            done[mask.replacement is not None].append(pointer)
    copy.update(root)
    for name, pointers in (("erased", done[False]), ("masked", done[True])):
        if pointers:
            copy[name] = [*record.get(name, ()), *sorted(pointers)]
    return copy


def _part(record: Mapping[str, Any]) -> str:
    return "input" if record.get("kind") == "decision" else "data"


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _apply(node: Any, keys: Sequence[str], replacement: str | None) -> bool:
    for key in keys[:-1]:
        if isinstance(node, dict) and key in node:
            node = node[key]
        elif isinstance(node, list) and _is_index(key) and int(key) < len(node):
            node = node[int(key)]
        else:
            return False
    last: Any = keys[-1]
    if isinstance(node, list) and _is_index(last) and int(last) < len(node):
        last = int(last)
    elif not (isinstance(node, dict) and last in node):
        return False
    if replacement is None:
        del node[last]
    else:
        node[last] = replacement
    return True


class Masks:
    """Asks the mask policy for records on their way out. One batch asks each distinct question once."""

    def __init__(self, policy: Callable[[], PolicyEngine], clock: Clock) -> None:
        self._policy = policy
        self._clock = clock

    def leaving(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The records as they may leave: masked, and without the log's frame.

        The frame's hash covers what is masked, so that it would confirm guesses of it.
        Raises Undecidable when the policy does not say what to mask: then nothing leaves.
        """
        now_ns = to_ns(self._clock())
        answered: dict[str, tuple[Mask, ...]] = {}
        found = []
        for record in records:
            question = _question(record, now_ns)
            key = json.dumps(question, sort_keys=True)
            if key not in answered:
                answered[key] = self._ask(question)
            kept = masked(record, answered[key])
            found.append({name: value for name, value in kept.items() if not name.startswith("_")})
        return found

    def _ask(self, question: Mapping[str, Any]) -> tuple[Mask, ...]:
        name = question["decision"]
        try:
            engine = self._policy()
            answer = engine.evaluate(MASK_RULE, question)
        except GuardError as error:
            raise Undecidable(
                f"records stay in the home, because the mask policy cannot be asked: {error}"
            ) from error
        decision = Decision(
            decision_id="", path=MASK_RULE, value=answer.value, defined=answer.defined, error=answer.error,
            revision=answer.revision, engine=engine.name, enforcement=Enforcement.ENFORCED,
        )  # fmt: skip
        if not decision.allow:
            raise Undecidable(
                f"records of {name} stay in the home, because {MASK_RULE} does not say what to mask: "
                f"{decision.explain()}"
            )
        said = answer.value.get("mask")
        try:
            if not isinstance(said, list):
                raise ValueError(f"its `mask` is {said!r}, not a list")
            return tuple(Mask.of(item) for item in said)
        except ValueError as error:
            raise Undecidable(
                f"records of {name} stay in the home, because {MASK_RULE} gave an unusable answer: {error}"
            ) from None


def _question(record: Mapping[str, Any], now_ns: int) -> dict[str, Any]:
    kind = record.get("kind")
    asked = record.get("input")
    principal = asked.get("principal") if isinstance(asked, Mapping) else None
    return {
        "principal": principal if kind == "decision" and principal else NOBODY.to_input(),
        "now_ns": now_ns,
        "decision": record.get("path") if kind == "decision" else kind,
    }
