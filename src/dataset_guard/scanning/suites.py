"""Evaluation suites to look for in training data: registered versions, or files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard_core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dataset_guard.checks.base import Suite


@dataclass(frozen=True, slots=True)
class FileSuite:
    """The items in a data file (or a folder of them) that nobody registered."""

    path: Path

    @property
    def ref(self) -> str:
        """The file's name: a report names no folders of the machine."""
        return self.path.name

    def open(self) -> Any:
        """Its data. Raises UserError when it cannot be read."""
        from dataset_guard.reading import open_source

        return open_source(self.path)


def suite_of(text: str, reference: Callable[[str], Suite]) -> Suite:
    """The suite that ``text`` names: a path that exists, else what ``reference`` makes of ``N@V``."""
    path = Path(text)
    if path.exists():
        return FileSuite(path)
    try:
        return reference(text)
    except UserError as error:
        raise UserError(f"there is no file {text}, and as a registered suite: {error}") from error
