"""The index of rules lists every rule's page under its own title."""

import re
from pathlib import Path

RULES = Path(__file__).parents[2] / "docs" / "rules"
LINE = re.compile(r"^\| \[([A-Z]{4}\d{3})\]\(\1\.md\) \| (.+?) \|", re.MULTILINE)


def test_every_rule_page_is_in_the_index_with_its_title():
    index = dict(LINE.findall((RULES / "README.md").read_text()))
    pages = {p.stem: p.read_text().splitlines()[0] for p in RULES.glob("[A-Z]*[0-9].md")}
    assert {rule: f"# {rule}: {title}" for rule, title in index.items()} == pages
