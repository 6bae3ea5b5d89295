"""What may be asked: rule paths and inputs both engines read alike.

An input that would be read differently (a fraction, an integer beyond 64 bits, half a surrogate pair) is
refused before any engine sees it; the caller's answer is then an error, which is a denial.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

MAX_INPUT_INTEGER = 2**63 - 1  # now_ns needs 61 bits; comparing and subtracting are exact in both engines
MAX_INPUT_DEPTH = 64
MAX_INPUT_BYTES = 4 << 20
_PATH = re.compile(r"^[a-z][a-z0-9_]*(?:/[a-z][a-z0-9_]*)*$")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode  # depth is bounded before it is asked


class Unaskable(ValueError):
    """The question itself is malformed; the message names the field."""


@lru_cache(maxsize=256)
def rule_path(path: str) -> tuple[str, ...]:
    """``guard/dataset/use/decision`` as its segments. Raises Unaskable for anything but lower-case names."""
    if not _PATH.match(path):
        raise Unaskable(f"{path!r} is not a rule path such as guard/dataset/use/decision")
    return tuple(path.split("/"))


def input_json(value: Mapping[str, Any]) -> str:
    """``value`` as the JSON both engines are given. Raises Unaskable naming the offending field."""
    if not _plain(value, 0):
        _check(value, "input", 0)
    text = _encode(value)
    if "\\u0000" in text or (not text.isascii() and _HALF_PAIR.search(text)):
        _check(value, "input", 0)
    if len(text) > MAX_INPUT_BYTES:
        raise Unaskable(f"input is {len(text)} characters, the limit is {MAX_INPUT_BYTES}; send fewer items")
    return text


def _plain(value: Any, depth: int) -> bool:
    """Whether :func:`_check` would find nothing, texts apart; fast, because it names no place."""
    kind = type(value)
    if kind is dict:
        items = value.values()
        for key in value:
            if type(key) is not str:
                return False
    elif kind is list:
        items = value
    else:
        return False
    for item in items:
        kind = type(item)
        if kind is str or kind is bool or item is None:
            continue
        if kind is int:
            if -MAX_INPUT_INTEGER <= item <= MAX_INPUT_INTEGER:
                continue
            return False
        if depth + 1 >= MAX_INPUT_DEPTH or not _plain(item, depth + 1):
            return False
    return True


def _check(value: Any, where: str, depth: int) -> None:
    kind = type(value)
    if kind is str:
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise Unaskable(f"{where} holds half a surrogate pair")
        if "\x00" in value:
            raise Unaskable(f"{where} holds a NUL character")
        return
    if kind is bool or value is None:
        return
    if kind is int:
        if abs(value) > MAX_INPUT_INTEGER:
            raise Unaskable(f"{where} is beyond 64 bits, where engines differ")
        return
    if depth >= MAX_INPUT_DEPTH:
        raise Unaskable(f"{where} is nested deeper than {MAX_INPUT_DEPTH} levels")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if type(key) is not str:
                raise Unaskable(f"{where} has a key that is not text")
            _check(key, where, depth)
            _check(item, f"{where}.{key}", depth + 1)
        return
    if isinstance(value, list | tuple):
        for position, item in enumerate(value):
            _check(item, f"{where}[{position}]", depth + 1)
        return
    if isinstance(value, str | int):  # StrEnum, IntEnum: json writes their plain value
        return
    raise Unaskable(f"{where} is a {kind.__name__}; write text or whole numbers")
