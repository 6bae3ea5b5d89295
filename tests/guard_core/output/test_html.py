"""The report page is one safe file: no script, no address, no hole, both languages, every row reachable."""

import base64
import hashlib
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from guard_core.errors import UserError
from guard_core.findings import Finding, RowSet, Severity
from guard_core.output import figures
from guard_core.output.html import phrase, render, render_versions, write
from guard_core.output.words import PHRASES

VOID = {"meta", "input", "br", "path", "rect", "circle"}


class Page(HTMLParser):
    """Reads a page: checks nesting, collects elements and the text of each language."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words = [], [], {"en": "", "zh-Hans": ""}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("lang")))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data):
        languages = [lang for _, lang in self.open if lang]
        if languages:
            self.words[languages[-1]] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def finding(**changes):
    given = {
        "rule_id": "POIS003",
        "severity": Severity.CRITICAL,
        "message": "a trigger occurs in 3 rows",
        "columns": ("pixel_1",),
        "rows": RowSet.of([2, 3, 90]),
        "action": "Remove these rows.",
        "check": "trigger_patch",
    } | changes
    return Finding(**given).to_json()


def document(**changes):
    return {
        "kind": "dataset_report",
        "ref": "acme/digits@3",
        "name": "digits",
        "version": 3,
        "tenant": "acme",
        "fingerprint": "dg1:" + "ab" * 32,
        "digest": "dg1:" + "ab" * 16,
        "rows": 100,
        "columns": 2,
        "verdict": "quarantine",
        "decision_id": "d-77",
        "report_path": None,
        "findings": [finding()],
        "label": "label",
        "split": "train",
        "source_uri": "digits.parquet",
        "num_bytes": 1234,
        "schema": [{"name": "pixel_1", "type": "double"}, {"name": "label", "type": "int64"}],
        "profile": {
            "columns": {
                "pixel_1": {"nulls": 1, "min": 0, "max": 16, "histogram": {"counts": [1, 5, 2]}},
                "note": {"distinct": 80, "distinct_exact": False, "lengths": {"min": 2, "max": 9}},
            },
            "label": {"column": "label", "classes": [{"class": 0, "name": "class:ab12", "count": 100}]},
        },
        "checks": [
            {"name": "trigger_patch", "version": "1", "seconds": 0.5, "skipped": None},
            {"name": "near_duplicate_text", "version": "1", "seconds": 0, "skipped": "no text column"},
        ],
        "seconds": {"read": 0.25, "trigger_patch": 0.5},
        "reasons": [{"rule": "critical_findings", "msg": "1 critical finding"}],
        "waivers": [],
        "against": [],
        "trusted": None,
        "policy_revision": "rev-9",
        "policy_engine": "embedded/regorus",
        "enforcement": "cooperative",
        "key_id": "key-5",
        "created_at": "2026-11-23T00:00:00Z",
        "created_by": "lin",
    } | changes


def test_the_page_is_one_file_without_script_or_external_address():
    text = render(document())
    page = Page(text)
    assert not re.search(r"(https?:)?//|url\(|@import|javascript:", text)
    assert not page.all("script")
    assert not page.all("link")
    assert not page.all("img")
    assert not page.all("iframe")
    assert all(a.get("href", "#").startswith("#") for _, a in page.elements)
    assert not [a for _, a in page.elements if any(k == "style" or k.startswith("on") for k in a)]


def test_the_content_security_policy_allows_nothing_but_the_pages_own_style():
    text = render(document())
    policy = next(
        m["content"] for m in Page(text).all("meta") if m.get("http-equiv") == "Content-Security-Policy"
    )
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_names_from_the_data_cannot_become_markup():
    evil = '"><script>alert(1)</script><a href="//x'
    text = render(
        document(
            name=evil,
            ref=evil,
            source_uri=evil,
            label=evil,
            schema=[{"name": evil, "type": evil}],
            findings=[finding(message=evil, columns=(evil,), action=evil, evidence={evil: evil})],
            checks=[{"name": evil, "skipped": evil}],
            seconds={evil: 1.0},
            reasons=[{"rule": evil, "msg": evil}],
        )
    )
    page = Page(text)
    assert not page.all("script")
    assert all(a.get("href", "#").startswith("#") for _, a in page.elements)
    assert text.count("alert(1)") >= 8


def test_a_reader_sees_which_rows_why_and_what_to_do():
    text = render(document())
    for said in (
        "a trigger occurs in 3 rows",
        "2–3, 90",
        "3.0%",
        "Remove these rows.",
        "docs/rules/POIS003.md",
        "trainguard policy why d-77",
        "dg1:" + "ab" * 32,
        "key-5",
        "no text column",
        "0.75",
    ):
        assert said in text


def test_columns_and_classes_show_counts_lengths_and_salted_names():
    text = render(document())
    for said in ("0 … 16", "≈ 80", "2 … 9", "class:ab12", "100.0%"):
        assert said in text
    assert 'aria-label="distribution of pixel_1"' in text


def test_findings_are_listed_worst_first():
    text = render(
        document(findings=[finding(rule_id="QUAL001", severity=Severity.INFO), finding(rule_id="POIS001")])
    )
    assert text.index("POIS001") < text.index("QUAL001")


def test_many_scattered_rows_unfold_and_the_page_says_what_it_leaves_out():
    text = render(document(rows=10_000, findings=[finding(rows=RowSet.of(range(0, 2_000, 2)))]))
    assert "The other 984 ranges" in text
    assert "and 600 more ranges, all of them in findings.json" in text
    assert len(text) < 150_000


def test_both_languages_are_in_the_page_and_one_is_chosen_without_script():
    page = Page(render(document()))
    assert "Quarantined" in page.words["en"]
    assert "已隔离" in page.words["zh-Hans"]
    assert "Quarantined" not in page.words["zh-Hans"]
    chosen = {a["id"]: "checked" in a for a in page.all("input")}
    assert chosen == {"show-en": True, "show-zh": False}
    assert {a["for"] for a in page.all("label")} == set(chosen)


def test_the_chinese_page_opens_in_chinese():
    page = Page(render(document(), lang="zh"))
    assert page.all("html") == [{"lang": "zh-Hans"}]
    assert {a["id"]: "checked" in a for a in page.all("input")} == {"show-en": False, "show-zh": True}


def test_an_unknown_language_is_the_users_mistake():
    with pytest.raises(UserError, match="'fr'"):
        render(document(), lang="fr")


def test_every_figure_and_section_has_a_name_for_screen_readers():
    page = Page(render(document()))
    assert page.all("html") == [{"lang": "en"}]
    for picture in page.all("svg"):
        assert picture.get("aria-hidden") == "true" or (picture["role"] == "img" and picture["aria-label"])
    ids = {a["id"] for _, a in page.elements if "id" in a}
    assert all(a["aria-labelledby"] in ids for a in page.all("section"))
    assert all(a.get("scope") in ("col", "row") for a in page.all("th"))


@pytest.mark.parametrize("verdict", ["allow", "warn", "quarantine", "deny"])
def test_every_verdict_has_a_page_with_or_without_a_version(verdict):
    for version in (3, None):
        text = render(document(verdict=verdict, version=version, findings=[]))
        assert PHRASES[f"verdict.{verdict}"].zh in text
        assert ("trainguard dataset verify" in text) == (version is not None and verdict != "deny")


def test_the_short_documented_json_is_enough_for_a_page():
    short = (
        "name",
        "version",
        "fingerprint",
        "digest",
        "rows",
        "columns",
        "verdict",
        "decision_id",
        "findings",
    )
    text = render({key: document()[key] for key in short})
    Page(text)
    assert "<title>digits@3" in text
    assert "2–3, 90" in text


def test_a_waived_finding_says_who_waived_it():
    waiver = {
        "rule": "POIS003",
        "msg": "POIS003: waived by ada until 2027-01-01: known",
        "severity": "waived",
    }
    text = render(document(waivers=[waiver]))
    assert "POIS003: waived by ada until 2027-01-01: known" in text
    assert "已豁免" in text


def test_a_report_of_another_kind_shows_its_fields():
    text = render(
        {"title": "Audit", "ok": True, "problems": [{"record": 7, "what": "<changed>"}], "head": None}
    )
    Page(text)
    assert "&lt;changed&gt;" in text
    assert "<h1>Audit</h1>" in text


def test_every_phrase_is_in_both_languages():
    only_chinese = {"text.english"}
    for name, both in PHRASES.items():
        assert both.zh.strip()
        assert both.en.strip() or name in only_chinese
        assert set(re.findall(r"{\w+}", both.en)) in (set(re.findall(r"{\w+}", both.zh)), set())


def test_a_phrase_escapes_what_is_put_into_it():
    assert "<b>" not in phrase("label.others", n="<b>")


def test_a_strip_marks_where_rows_lie_and_one_row_in_a_million_is_seen():
    strip = figures.row_strip([(999_999, 999_999)], 1_000_000, kind="critical", label="x")
    marks = re.findall(r'mark critical" x="([\d.]+)"[^>]*height="([\d.]+)"', strip)
    assert [float(x) for x, _ in marks] == [717.0]
    assert float(marks[0][1]) >= 6


def test_a_strip_of_all_rows_is_full_and_of_none_is_empty():
    full = figures.row_strip([(0, 9)], 10, kind="info", label="x")
    assert full.count("mark info") == 10
    assert set(re.findall(r'mark info"[^>]*height="([\d.]+)"', full)) == {"18.00"}
    assert "mark" not in figures.row_strip([], 10, kind="info", label="x")
    assert "mark" not in figures.row_strip([(0, 0)], 0, kind="info", label="x")


def test_pixels_of_an_image_are_shown_where_they_are():
    columns = [{"name": f"pixel_{i}", "type": "double"} for i in range(16)]
    found = finding(columns=("pixel_3", "pixel_12"))
    text = render(document(schema=columns, findings=[found]))
    grid = re.search(r'<svg class="grid".*?</svg>', text)[0]
    assert re.findall(r'mark critical" x="([\d.]+)" y="([\d.]+)"', grid) == [
        ("3.00", "0.00"),
        ("0.00", "3.00"),
    ]
    assert '<svg class="grid"' not in render(document(schema=columns[:15], findings=[found]))
    assert '<svg class="grid"' not in render(
        document(schema=columns, findings=[finding(columns=("pixel_3", "label"))])
    )


def test_writing_replaces_the_page_whole(tmp_path):
    path = tmp_path / "new" / "report.html"
    write(path, "one")
    write(path, "二")
    assert path.read_text() == "二"
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_the_list_of_versions_links_to_each_report_and_escapes_names():
    version = {
        "tenant": "acme",
        "name": 'a b"<',
        "version": 2,
        "verdict": "quarantine",
        "rows": 1234,
        "created_at": datetime(2026, 11, 23, 5, 6, tzinfo=UTC),
    }
    page = Page(render_versions([version], base="/guard/"))
    assert [a["href"] for a in page.all("a")] == ["/guard/acme/a%20b%22%3C/2"]
    assert "No dataset" in render_versions([], base="/guard/")
