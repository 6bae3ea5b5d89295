"""Compiling a large bundle in short steps, so that nobody waits for it.

regorus takes data whole and holds Python's lock meanwhile: 30 MB of tenants would stop every thread of the
process for a second. Given in slices (regorus merges documents), no step takes longer than a few
milliseconds, and an engine can be built between the decisions of the very thread that will use it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from guard_core.errors import UserError
from guard_core.policy.bundle import Bundle
from guard_core.policy.embedded import compiling
from guard_core.policy.lifecycle.bundle_archive import Documents
from guard_core.policy.thread_engine import ThreadEngine

SLICE_CHARS = 512 * 1024
LARGE_CHARS = 1 << 20
"""Policy data above this is compiled in steps."""

_SPACE = re.compile(r"\s*")


def slices(bundle: Bundle) -> tuple[str, ...]:
    """``bundle``'s data as JSON documents that merge to the whole; one document when it is small.

    Raises UserError when it is no JSON.
    """
    if len(bundle.data_json) <= LARGE_CHARS or not isinstance(bundle.config, Documents):
        return (bundle.data_json,)
    try:
        return tuple(_sliced(bundle.config.texts))
    except (ValueError, IndexError) as error:
        raise UserError(f"the data of bundle {bundle.revision} is not JSON ({error})") from None


def _sliced(texts: dict[str, str]) -> Iterator[str]:
    for stem, text in texts.items():
        if len(text) <= SLICE_CHARS or not text.startswith("{"):
            yield _wrapped(stem, text)
            continue
        part: list[str] = []
        length = 0
        for member in _members(text):
            part.append(member)
            length += len(member)
            if length > SLICE_CHARS:
                yield _wrapped(stem, "{" + ",".join(part) + "}")
                part, length = [], 0
        yield _wrapped(stem, "{" + ",".join(part) + "}")


def _wrapped(stem: str, text: str) -> str:
    return f'{{"guard":{{"config":{{{json.dumps(stem)}:{text}}}}}}}'


def _members(text: str) -> Iterator[str]:
    """The ``"key":value`` texts of a JSON object's text."""
    decode = json.JSONDecoder().raw_decode
    at = _after_space(text, 1)
    while text[at] != "}":
        start = at
        _, at = decode(text, at)
        at = _after_space(text, _after_space(text, at) + 1)  # over the colon
        _, at = decode(text, at)
        yield text[start:at]
        at = _after_space(text, at)
        if text[at] == ",":
            at = _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def require_compiles(bundle: Bundle) -> None:
    """Raise UserError when ``bundle``'s policies do not compile. Its data is left out: it is only JSON."""
    _compiled(tuple(bundle.modules.items()))


# A process may open many homes, or new data, over the same texts.
@lru_cache(maxsize=16)
def _compiled(modules: tuple[tuple[str, str], ...]) -> None:
    with compiling():
        ThreadEngine(dict(modules)).eval_query_as_json("1 == 1")  # the first query analyses all rules


def building(bundle: Bundle, data: tuple[str, ...]) -> Iterator[Any]:
    """Build an engine for the calling thread: yields None after each step, the engine at the end.

    Raises UserError when the data cannot be taken in.
    """
    engine = ThreadEngine(bundle.modules)
    for document in data:
        with compiling():
            engine.add_data_json(document)
        yield None
    yield engine
