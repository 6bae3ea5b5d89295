"""The constraints file pins everything exactly, with hashes, and points nowhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PINS = [ROOT / "constraints.txt", ROOT / "benchmarks" / "constraints-peers.txt"]


@pytest.mark.parametrize("path", PINS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_exactly_and_has_a_hash(path: Path) -> None:
    blocks = re.split(r"\n(?=\S)", path.read_text())
    requirements = [block for block in blocks if block.strip() and not block.startswith("#")]
    assert len(requirements) > 50
    pinned = [r for r in requirements if "==" in r.splitlines()[0] and "--hash=sha256:" in r]
    loose = [r.splitlines()[0] for r in requirements if r not in pinned]
    assert loose == []


@pytest.mark.parametrize("path", PINS, ids=lambda path: path.name)
def test_no_index_and_no_address_is_named(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert "--index-url" not in text


def test_every_runtime_dependency_has_its_line_in_the_docs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra, requirements in project["optional-dependencies"].items():
        if extra != "all":
            wanted += requirements
    names = {re.match(r"[A-Za-z0-9_-]+", requirement).group() for requirement in wanted}
    page = (ROOT / "docs" / "dependencies.md").read_text()
    assert sorted(name for name in names if name not in page) == []
