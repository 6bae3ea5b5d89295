"""What ``# METADATA`` comments say about rules: title, article of the notice, and what to do instead.

OPA's annotations (https://www.openpolicyagent.org/docs/policy-language/#metadata); ours under ``custom``:
``article`` (of the notice) and ``instead``: a mapping from rule name to the sentence that tells a person who
was refused what would have been allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PackageNotes:
    """The package annotation of one policy file."""

    file: str
    package: str
    title: str
    description: str
    article: str
    instead: Mapping[str, str]

    def decides(self, path: str) -> bool:
        """Whether the rule at ``path`` (``guard/dataset/use/decision``) is of this package."""
        return path.startswith(self.package.replace(".", "/") + "/")


def package_notes(modules: Mapping[str, str]) -> tuple[PackageNotes, ...]:
    """The annotation directly above each ``package`` line, for the files that have one."""
    import yaml

    found: list[PackageNotes] = []
    for file, text in modules.items():
        package, block = _above_package(text)
        if not block:
            continue
        try:
            value: Any = yaml.safe_load("\n".join(block))
        except yaml.YAMLError:
            continue  # opa check reports it; explaining a decision must not fail for a comment
        if isinstance(value, dict):
            custom = _mapping(value.get("custom"))
            instead = _mapping(custom.get("instead"))
            found.append(
                PackageNotes(
                    file=file,
                    package=package,
                    title=str(value.get("title", "")),
                    description=str(value.get("description", "")).strip(),
                    article=str(custom.get("article", "")),
                    instead={str(rule): " ".join(str(said).split()) for rule, said in instead.items()},
                )
            )
    return tuple(found)


def instead_of(notes: Iterable[PackageNotes], *, path: str = "") -> dict[str, str]:
    """Rule name -> what would have been allowed, over all packages.

    Several packages name a rule alike (``approvals-missing``): the one that decides ``path`` has the word.
    """
    found: dict[str, str] = {}
    for note in sorted(notes, key=lambda note: note.decides(path)):
        found |= note.instead
    return found


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _above_package(text: str) -> tuple[str, list[str]]:
    block: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.strip() == "# METADATA":
            block, inside = [], True
        elif line.startswith("#") and inside:
            block.append(line[2:] if line.startswith("# ") else line[1:])
        elif line.startswith("package "):
            return line.removeprefix("package ").strip(), block
        elif line.strip():
            break
        else:
            block, inside = [], False
    return "", []
