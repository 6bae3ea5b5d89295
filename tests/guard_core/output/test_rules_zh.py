"""A report in Chinese says in Chinese what was found: every dataset rule with a page has its sentence."""

from pathlib import Path

from guard_core.output.html import render
from guard_core.output.rules_zh import RULES, found

PAGES = Path(__file__).parents[3] / "docs" / "rules"


def test_every_dataset_rule_with_a_page_has_its_sentence_in_chinese():
    pages = {p.stem for p in PAGES.glob("*.md") if p.stem[:4] in ("LEAK", "POIS", "PRIV", "DRFT", "QUAL")}
    assert pages == set(RULES)


def test_a_count_is_said_where_there_is_one():
    assert found("LEAK003", 1_200) == "1,200 行的文本与前面的行或对比数据集中的行几乎相同。"
    assert found("LEAK003", None) == "若干行的文本与前面的行或对比数据集中的行几乎相同。"


def test_the_page_shows_the_sentence_in_either_language_and_a_foreign_rule_as_it_is():
    findings = [
        {"rule_id": rule, "severity": "warning", "message": f"told <by> {rule}", "columns": [], "rows": [],
         "count": 7, "score": None, "fdr": None, "action": "Look at them."}
        for rule in ("POIS002", "LEAK900")
    ]  # fmt: skip
    page = render(
        {"name": "d", "fingerprint": "dg1:" + "0" * 64, "rows": 9, "columns": 1, "verdict": "warn",
         "findings": findings},
        lang="zh",
    )  # fmt: skip
    assert '<span class="t" lang="zh-Hans">7 行的标签可能有误。</span>' in page
    assert '<span lang="en">told &lt;by&gt; LEAK900</span>' in page
    assert "told <by>" not in page
