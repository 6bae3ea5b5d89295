"""A report is a value with stable shapes, and shows rows and reasons, never cells."""

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from dataset_guard.registration.report import Report, digest_of, rows_text
from guard_core.findings import Finding, RowSet, Severity, Verdict

FINGERPRINT = "dg1:" + "0123456789abcdef" * 4


def poisoned(**changes) -> Report:
    trigger = Finding(
        rule_id="POIS003",
        severity=Severity.CRITICAL,
        message="a fixed pixel pattern occurs in 40 rows of one class <only>",
        columns=("pixel_62", "pixel_63"),
        rows=RowSet.of([*range(100, 140), 7]),
        score=11.5,
        fdr=0.01,
        action="Remove the rows & register again.",
        evidence={"pattern": "b3:4f2a"},
    )
    note = Finding(rule_id="QUAL002", severity=Severity.INFO, message="3 columns are constant", count=3)
    given = {
        "name": "digits",
        "tenant": "acme",
        "version": 3,
        "fingerprint": FINGERPRINT,
        "rows": 1_797,
        "columns": 65,
        "verdict": Verdict.QUARANTINE,
        "decision_id": "d-1",
        "report_path": Path("datasets/acme/digits/3/report.html"),
        "findings": (note, trigger),
        "schema": (("pixel_0", "double"), ("label", "int64")),
        "checks": ({"name": "trigger_patch", "version": "1", "seconds": 0.2, "skipped": None},),
        "seconds": {"read": 0.1},
        "reasons": ({"rule": "critical_findings", "msg": "1 critical finding"},),
        "against": ("acme/digits_test@1",),
    } | changes
    return Report(**given)


def test_the_json_has_exactly_the_documented_keys():
    value = poisoned().to_json()
    assert list(value) == [
        "name",
        "version",
        "fingerprint",
        "digest",
        "rows",
        "columns",
        "verdict",
        "decision_id",
        "report_path",
        "findings",
    ]
    documented = {"rule_id", "severity", "message", "columns", "count", "rows", "score", "fdr", "action"}
    assert documented <= set(value["findings"][0])
    json.dumps(value)


def test_a_document_read_back_is_the_same_report():
    written = json.loads(json.dumps(poisoned().document()))
    back = Report.from_json(written)
    assert back.document() == written
    assert back.schema == (("pixel_0", "double"), ("label", "int64"))


def test_the_short_json_reads_back_with_its_verdict_and_findings():
    back = Report.from_json(poisoned().to_json())
    assert back.verdict is Verdict.QUARANTINE
    assert [f.rule_id for f in back.findings] == ["QUAL002", "POIS003"]
    assert back.findings[1].rows == RowSet.of([7, *range(100, 140)])


def test_a_report_cannot_be_changed_after_the_decision():
    with pytest.raises(FrozenInstanceError):
        poisoned().verdict = Verdict.ALLOW


def test_the_digest_fits_mlflow_exactly():
    assert poisoned().digest == "dg1:0123456789abcdef0123456789abcdef"
    assert len(poisoned().digest) == 36


def test_a_digest_of_another_fingerprint_is_refused():
    with pytest.raises(ValueError, match="is not that of fingerprint"):
        poisoned(digest="dg1:" + "0" * 32)


@pytest.mark.parametrize("text", ["", "sha256:" + "0" * 64, "dg1:" + "0" * 63])
def test_only_a_dg1_fingerprint_has_a_digest(text):
    with pytest.raises(ValueError, match="64 hex digits"):
        digest_of(text)


def test_a_scan_has_no_version_in_its_ref():
    assert poisoned(version=None).ref == "acme/digits"
    assert poisoned().ref == "acme/digits@3"


def test_rows_are_written_as_ranges_and_long_lists_are_cut():
    assert rows_text(RowSet.of([3, 4, 5, 9])) == "3–5, 9"
    assert rows_text(RowSet.of(range(0, 60, 2)), limit=3) == "0, 2, 4 and 27 more ranges"
    assert rows_text(RowSet()) == ""


def test_the_repr_names_verdict_rules_and_rows_worst_first():
    lines = repr(poisoned()).splitlines()
    assert lines[0] == (
        "<Report acme/digits@3: quarantine, 1,797 rows x 65 columns, findings: 1 critical, 1 info>"
    )
    assert "POIS003" in lines[1]
    assert "rows 7, 100–139" in lines[1]
    assert "QUAL002" in lines[2]


def test_a_notebook_shows_the_rows_and_escapes_everything():
    shown = poisoned(name="<script>")._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "&lt;only&gt;" in shown
    assert "Remove the rows &amp; register again." in shown
    assert "41: 7, 100–139" in shown
    assert shown.index("POIS003") < shown.index("QUAL002")


def test_a_clean_report_says_there_are_no_findings():
    clean = poisoned(findings=(), verdict=Verdict.ALLOW)
    assert clean.summary == "none"
    assert "No findings" in clean._repr_html_()
