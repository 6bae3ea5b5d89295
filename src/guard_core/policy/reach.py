"""Which files of a bundle a rule can reach: the engine that answers for it needs no others.

regorus looks through every module it holds at each reference that begins with ``data`` (a quarter of an
admission decision went there), so fewer modules mean faster answers. The analysis reads words outside texts
and comments, not syntax, and errs to one side only: in doubt a file counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

_NO_CODE = re.compile(r'"(?:\\.|[^"\\])*"|`[^`]*`|#[^\n]*')
_PACKAGE = re.compile(r"^package\s+(\w+(?:\.\w+)*)\s*$", re.MULTILINE)
_DATA = re.compile(r"(?<![\w.])data\b((?:\.\w+)*)")


def reachable(modules: Mapping[str, str], package: str) -> frozenset[str]:
    """Names of the files that a rule of ``package`` (``guard.dataset.use``) can depend on.

    All of them when the package of any file cannot be told from its text, none when ``package`` is unknown.
    """
    read = {name: _read(text) for name, text in modules.items()}
    packages = {name: own for name, (own, _) in read.items()}
    if "" in packages.values():
        return frozenset(modules)
    found: set[str] = set()
    todo = [package] if package in packages.values() else []
    while todo:
        wanted = todo.pop()
        for name, own in packages.items():
            if name not in found and _touches(own, wanted):
                found.add(name)
                todo += read[name][1]
    return frozenset(found)


@lru_cache(maxsize=512)
def _read(text: str) -> tuple[str, tuple[str, ...]]:
    """The file's package ("" when in doubt), and the constant beginnings of its references into ``data``."""
    code = _NO_CODE.sub('""', text)
    package = _PACKAGE.search(code)
    references = {reference.removeprefix(".") for reference in _DATA.findall(code)}
    return (package[1] if package else "", tuple(sorted(references)))


def _touches(package: str, reference: str) -> bool:
    """Whether a reference can lead into a package: one begins with the other."""
    return not reference or f"{package}.".startswith(f"{reference}.") or reference.startswith(f"{package}.")
