"""What of a record may leave the home: ``guard/audit/mask`` is asked, and its answer applied.

A field below ``input`` or ``result``, or the record's own ``subject`` or ``requested_by``, is removed (its
JSON pointer is then in ``erased``) or its value replaced (``masked``), as OPA's decision-log masks do
(``v1/plugins/logs/mask.go``). Three differences, all to the safe side: pointers are resolved against the
record as it was, so that removing element 0 does not make element 1 slip through; they are escaped by RFC
6901; and a replacement is never put where nothing was.

Beyond OPA, whose pointers know no wildcards: on a list, ``*`` is every element, because a reason's place in
``result/deny`` is known to nobody who writes a mask. In a name it is a star. ``erased`` and ``masked`` always
hold the plain pointers that were touched, which any reader of OPA's events understands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from guard_core.clock import Clock, to_ns
from guard_core.errors import GuardError, Undecidable
from guard_core.findings import Enforcement
from guard_core.identity import Principal
from guard_core.policy.decision import Decision, PolicyEngine

PARTS = ("input", "result", "record")
OF_THE_RECORD = ("subject", "requested_by")
"""The record's own members that a mask may hide; the others say what kind of record it is, or prove it."""
MASK_RULE = "guard/audit/mask/decision"
NOBODY = Principal(tenant="", user="", roles=(), credential_id="", kind="system")
"""Who asked for a record that is no decision, as the mask policy sees it."""


@dataclass(frozen=True, slots=True)
class Mask:
    """One field to hide: removed, or with ``replacement`` replaced. ``keys`` are unescaped.

    ``part`` is ``input`` (of a record that is no decision: its ``data``), ``result``, or ``record`` for one
    of :data:`OF_THE_RECORD`.
    """

    keys: tuple[str, ...]
    replacement: str | None = None
    part: str = "input"

    @classmethod
    def of(cls, value: Any) -> Mask:
        """From a member of the policy's ``mask``. Raises ValueError."""
        if isinstance(value, str):
            return cls(_keys(value))
        if isinstance(value, Mapping) and set(value) - {"replace", "part"} == {"pointer"} != set(value):
            pointer, replacement, part = value["pointer"], value.get("replace"), value.get("part", "input")
            if isinstance(pointer, str) and isinstance(replacement, str | None) and part in PARTS:
                keys = _keys(pointer)
                if part == "record" and (len(keys) > 1 or keys[0] not in OF_THE_RECORD):
                    raise ValueError(
                        f"{pointer!r} of a record is not masked, only /subject and /requested_by"
                    )
                return cls(keys, replacement, part)
        raise ValueError(f"{value!r} is neither a JSON pointer nor an object of pointer, replace and part")

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
    """A copy of ``record`` with ``masks`` applied below its ``input`` and ``result``, its ``data``, or to it.

    Pointers that lead nowhere change nothing. ``record`` itself stays as it is.
    """
    decided = record.get("kind") == "decision"
    names = {"input": "input", "result": "result"} if decided else {"input": "data"}
    found = []
    for mask in masks:
        name = names.get(mask.part, "")
        if mask.part == "record":
            found += [mask] if mask.keys[0] in record else []
        elif name in record:
            found += [replace(mask, keys=(name, *keys)) for keys in _meant(record[name], mask.keys)]
    copy = dict(record)
    done: dict[bool, list[str]] = {False: [], True: []}
    root = {name: _copy(record[name]) for name in {mask.keys[0] for mask in found}}
    for mask in sorted(dict.fromkeys(found), key=lambda m: m.order, reverse=True):
        if _apply(root, mask.keys, mask.replacement):
            pointer = "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in mask.keys)
            done[mask.replacement is not None].append(pointer)
    for name in {mask.keys[0] for mask in found} - root.keys():
        del copy[name]
    copy.update(root)
    for name, pointers in (("erased", done[False]), ("masked", done[True])):
        if pointers:
            copy[name] = [*record.get(name, ()), *sorted(pointers)]
    return copy


def _meant(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """``keys`` with every ``*`` that stands for the elements of a list spelt out."""
    for place, key in enumerate(keys):
        if key == "*" and isinstance(node, list):
            for number, item in enumerate(node):
                for rest in _meant(item, keys[place + 1 :]):
                    yield (*keys[:place], str(number), *rest)
            return
        if isinstance(node, list) and _is_index(key) and int(key) < len(node):
            node = node[int(key)]
        else:
            node = node.get(key) if isinstance(node, dict) else None
    yield keys


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
                answered[key] = self._ask(question, "records of {} stay in the home")
            kept = masked(record, answered[key])
            found.append({name: value for name, value in kept.items() if not name.startswith("_")})
        return found

    def written(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A decision's record as it may be written, where masks count on writing already.

        Raises Undecidable when the policy does not say what to mask: then nothing is written.
        """
        asked = self._ask(_question(record, to_ns(self._clock())), "{} is not put on record")
        return masked(record, asked)

    def _ask(self, question: Mapping[str, Any], without: str) -> tuple[Mask, ...]:
        name = without.format(question["decision"])
        try:
            engine = self._policy()
            answer = engine.evaluate(MASK_RULE, question)
        except GuardError as error:
            raise Undecidable(f"{name}, because the mask policy cannot be asked: {error}") from error
        decision = Decision(
            decision_id="", path=MASK_RULE, value=answer.value, defined=answer.defined, error=answer.error,
            revision=answer.revision, engine=engine.name, enforcement=Enforcement.ENFORCED,
        )  # fmt: skip
        if not decision.allow:
            raise Undecidable(f"{name}, because {MASK_RULE} does not say what to mask: {decision.explain()}")
        said = answer.value.get("mask")
        try:
            if not isinstance(said, list):
                raise ValueError(f"its `mask` is {said!r}, not a list")
            return tuple(Mask.of(item) for item in said)
        except ValueError as error:
            raise Undecidable(f"{name}, because {MASK_RULE} gave an unusable answer: {error}") from None


def _question(record: Mapping[str, Any], now_ns: int) -> dict[str, Any]:
    kind = record.get("kind")
    asked = record.get("input")
    principal = asked.get("principal") if isinstance(asked, Mapping) else None
    return {
        "principal": principal if kind == "decision" and principal else NOBODY.to_input(),
        "now_ns": now_ns,
        "decision": record.get("path") if kind == "decision" else kind,
    }
