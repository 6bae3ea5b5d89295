"""Taking secrets out of what is recorded for ever.

By name (a text under ``password``, ``api_key``, ...) and by form (anything that is a TrainGuard token). A
guard against accidents, not a promise: a secret under an innocent name stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from guard_core.identity import masked_tokens

_SECRET_NAME = re.compile(
    r"(^|[_.-])(token|password|passwd|secret|authorization|cookie|api[_-]?key|private[_-]?key|access[_-]?key)s?$",
    re.IGNORECASE,
)


def without_secrets(value: Any, pointer: str, erased: list[str]) -> Any:
    """A JSON copy of ``value`` without secrets; adds the JSON pointers of what it took out to ``erased``."""
    if isinstance(value, Mapping):
        kept = {}
        for key, item in value.items():
            here = f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"
            if isinstance(item, str) and item and _SECRET_NAME.search(str(key)):
                erased.append(here)
            else:
                kept[str(key)] = without_secrets(item, here, erased)
        return kept
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [without_secrets(item, f"{pointer}/{i}", erased) for i, item in enumerate(items)]
    if isinstance(value, str) and masked_tokens(value) != value:
        erased.append(pointer)
        return masked_tokens(value)
    return value
