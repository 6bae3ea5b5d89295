"""Rules about the tree itself."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_module_is_called_utils_or_helpers_or_manager() -> None:
    banned = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    assert [p for p in SOURCE.rglob("*.py") if p.stem in banned or p.parent.name in banned] == []


def test_every_rule_id_in_the_source_has_its_page() -> None:
    pattern = re.compile(r"\"((?:LEAK|POIS|PRIV|QUAL|DRFT|TAMP|QUOT|ISOL|USAG|POLC)\d{3})\"")
    ids = set()
    for path in SOURCE.rglob("*.py"):
        ids |= set(pattern.findall(path.read_text()))
    assert ids, "no rule id found: the pattern is wrong"
    assert sorted(i for i in ids if not (ROOT / "docs" / "rules" / f"{i}.md").is_file()) == []


def test_every_rule_page_has_the_six_headings() -> None:
    headings = ["Summary", "Why", "How it decides", "Known limits", "What to do", "Configuration"]
    pages = sorted((ROOT / "docs" / "rules").glob("[A-Z]*[0-9].md"))
    assert pages
    wrong = {p.name: [h for h in headings if f"## {h}" not in p.read_text()] for p in pages}
    assert {name: missing for name, missing in wrong.items() if missing} == {}


def test_no_file_names_a_path_of_a_builders_machine() -> None:
    needles = ["/" + "work/main", "/" + "work/shared", "/" + "tmp/tools", "/root/" + "."]
    found = {}
    for path in tracked():
        if path.suffix in {".png", ".parquet", ".arrow"}:
            continue
        text = path.read_text(errors="ignore")
        hits = [needle for needle in needles if needle in text]
        if hits:
            found[str(path.relative_to(ROOT))] = hits
    assert found == {}
