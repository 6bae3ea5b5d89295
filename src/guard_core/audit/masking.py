"""Taking secrets out of what is recorded for ever.

By name (a text under ``password``, ``api_key``, ...) and by form (anything that is a TrainGuard token). A
guard against accidents, not a promise: a secret under an innocent name stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from guard_core.identity import masked_tokens

_SECRET_NAME = re.compile(
    r"(^|[_.-])(token|password|passwd|secret|authorization|cookie|api[_-]?key|private[_-]?key|access[_-]?key)s?$",
    re.IGNORECASE,
)


_PLAIN = frozenset({int, float, bool, type(None)})
_TOKEN_MARK = "tg_"  # noqa: S105 - how every token begins


@lru_cache(maxsize=4096)
def _is_secret_name(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _below(pointer: str, name: str) -> str:
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def _harmless(value: Any) -> bool:
    """Whether there is nothing to take out nor to make JSON of: most of what there is. In doubt not."""
    kind = type(value)
    if kind is dict:
        for name, item in value.items():
            kind = type(item)
            if type(name) is not str:
                return False
            if kind is str:
                if _TOKEN_MARK in item or (item and _is_secret_name(name)):
                    return False
            elif kind not in _PLAIN and not _harmless(item):
                return False
        return True
    if kind is list:
        return all(map(_harmless, value))
    return kind in _PLAIN or (kind is str and _TOKEN_MARK not in value)


def without_secrets(value: Any, pointer: str, erased: list[str]) -> Any:
    """``value`` as JSON without secrets; adds the JSON pointers of what it took out to ``erased``.

    Not a copy where there is nothing to take out.
    """
    if _harmless(value):
        return value
    kind = type(value)
    if kind is dict or isinstance(value, Mapping):
        kept = {}
        for key, item in value.items():
            name, kind = str(key), type(item)
            if isinstance(item, str) and item and _is_secret_name(name):
                erased.append(_below(pointer, name))
            elif kind in _PLAIN or (kind is str and _TOKEN_MARK not in item):
                kept[name] = item  # most of what there is; a pointer to it is not worth making
            else:
                kept[name] = without_secrets(item, _below(pointer, name), erased)
        return kept
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [without_secrets(item, f"{pointer}/{i}", erased) for i, item in enumerate(items)]
    if isinstance(value, str) and masked_tokens(value) != value:
        erased.append(pointer)
        return masked_tokens(value)
    return value
