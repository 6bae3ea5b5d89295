"""Which recorded questions are one: a key of what counts of an input, taken from the record's own bytes.

Records have sorted keys and one way to write a value, so equal parts are equal bytes: nothing is decoded
that need not be compared. msgspec cuts out the parts that count, which doubles the records read per
CPU-second. An input of another shape than the policy reads (a text where it looks for fields), or one that
msgspec does not take (half a surrogate pair), is decoded and projected; its key is one of its own kind.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec

from guard_core.policy.lifecycle.input_use import InputUse, Part

Question = bytes
"""Digest of a rule path and of what counts of an input: equal digests get equal answers."""

_KINDS = {ord("{"): b"{}", ord("["): b"[]", ord('"'): b'""', ord("t"): b"true", ord("f"): b"true"} | {
    ord("n"): b"null"
}
_NUMBER = msgspec.Raw(b"0")
_KIND = {first: msgspec.Raw(text) for first, text in _KINDS.items()}
_encode = msgspec.json.Encoder().encode


class QuestionKey:
    """``key(raw input)`` for the questions to one rule path."""

    def __init__(self, path: str, use: InputUse) -> None:
        self._start = path.encode() + b"\0"
        self._projected = use.projector()
        root = None if use.everything else use.parts()
        self._shape = None if root is None or not root.children else _shape(root)

    def __call__(self, raw: msgspec.Raw) -> Question:
        """Raises ValueError for an input that is no JSON."""
        if self._shape is None:
            return self.whole(raw)
        decode, simplify = self._shape
        try:
            counted = decode(raw)
        except (msgspec.MsgspecError, UnicodeError):
            value = self._projected(json.loads(bytes(raw)))
            # Version 0 of marshal has neither references nor interning: equal values give equal bytes.
            return blake2b(self._start + b"\0" + marshal.dumps(value, 0), digest_size=16).digest()
        simplify(counted)
        return blake2b(self._start + _encode(counted), digest_size=16).digest()

    def whole(self, raw: msgspec.Raw) -> Question:
        """The key of a question of which everything counts."""
        return blake2b(self._start + b"\1" + raw, digest_size=16).digest()


def _shape(root: Part) -> tuple[Callable[[Any], Any], Callable[[Any], None]]:
    """A decoder of the counted parts, and what reduces those of which only the type counts to it."""
    struct, simplify = _struct(root)
    return msgspec.json.Decoder(struct).decode, simplify


def _struct(part: Part) -> tuple[Any, Callable[[Any], None]]:
    fields: list[tuple[str, Any, Any]] = []
    names: dict[str, str] = {}
    typed: list[str] = []
    inner: list[tuple[str, Callable[[Any], None]]] = []
    for number, (key, child) in enumerate(sorted(part.children.items())):
        name = f"f{number}"
        names[name] = key
        kind: Any = msgspec.Raw
        if not child.whole and child.children:
            nested, simplify = _struct(child)
            kind = nested | None
            inner.append((name, simplify))
        elif not child.whole:
            typed.append(name)
        fields.append((name, kind | msgspec.UnsetType, msgspec.UNSET))
    made = msgspec.defstruct("Counted", fields, rename=names, gc=False)

    def simplified(value: Any) -> None:
        for name in typed:
            raw = getattr(value, name)
            if raw is not msgspec.UNSET:
                setattr(value, name, _KIND.get(memoryview(raw)[0], _NUMBER))
        for name, simplify in inner:
            below = getattr(value, name)
            if below:  # neither null nor missing
                simplify(below)

    return made, simplified
