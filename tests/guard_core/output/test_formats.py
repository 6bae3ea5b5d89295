import json
from xml.etree import ElementTree as ET

import click
import jsonschema
import pytest
from click.testing import CliRunner

from guard_core import output
from guard_core.errors import UserError
from guard_core.findings import Finding, RowSet, Severity
from guard_core.output import exit_status, fail_on_option, format_option, render
from guard_core.output.junit import render as junit

FINDINGS = [
    Finding(
        rule_id="QUAL001",
        severity=Severity.INFO,
        message="3 rows are empty",
        rows=RowSet.of([7]),
        check="expectations",
    ),
    Finding(
        rule_id="LEAK001",
        severity=Severity.CRITICAL,
        message='12 rows are also in "test" <held out> & more',
        columns=("text", "label"),
        rows=RowSet.of([*range(10, 20), 3, 99]),
        score=0.5,
        fdr=0.05,
        action="Remove these rows, or declare the overlap.",
        check="exact_overlap",
    ),
    Finding(
        rule_id="PRIV002", severity=Severity.WARNING, message="1 secret", columns=("text",), check="secrets"
    ),
]
REPORT = {
    "name": "digits",
    "tenant": "acme",
    "version": 2,
    "fingerprint": "dg1:" + "ab" * 32,
    "digest": "dg1:" + "ab" * 16,
    "rows": 1797,
    "columns": 65,
    "verdict": "quarantine",
    "decision_id": "dec-1",
    "report_path": "home/report.html",
    "source_uri": "file:///data/my digits.parquet",
    "findings": [finding.to_json() for finding in FINDINGS],
    "checks": [
        {"name": "exact_overlap", "seconds": 0.25, "skipped": None},
        {"name": "label_flip", "seconds": 0.0, "skipped": "no label column was named"},
        {"name": "secrets", "seconds": 0.5, "skipped": None},
    ],
}
SCAN = {k: REPORT[k] for k in ("name", "fingerprint", "digest", "rows", "columns", "decision_id")} | {
    "version": None,
    "report_path": None,
    "findings": [],
    "verdict": "allow",
}

# The part of the SARIF 2.1.0 schema that our documents use, written from the standard's text (sections 3.13
# to 3.52): required members, types and enumerations, nothing else allowed where the standard allows nothing.
SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "$schema": {"type": "string", "format": "uri"},
        "runs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["tool"],
                "additionalProperties": False,
                "properties": {
                    "tool": {
                        "type": "object",
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "type": "object",
                                "required": ["name"],
                                "properties": {
                                    "semanticVersion": {"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": {
                                            "type": "object",
                                            "required": ["id"],
                                            "properties": {
                                                "help": {"type": "object", "required": ["text"]},
                                                "helpUri": {"type": "string", "format": "uri"},
                                            },
                                        },
                                    },
                                },
                            }
                        },
                    },
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                    "automationDetails": {"type": "object", "properties": {"id": {"type": "string"}}},
                    "properties": {"type": "object"},
                    "results": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["message"],
                            "additionalProperties": False,
                            "properties": {
                                "ruleId": {"type": "string"},
                                "ruleIndex": {"type": "integer", "minimum": -1},
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "message": {"type": "object", "required": ["text"]},
                                "partialFingerprints": {
                                    "type": "object",
                                    "additionalProperties": {"type": "string"},
                                },
                                "properties": {"type": "object"},
                                "locations": {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "additionalProperties": False,
                                        "properties": {
                                            "physicalLocation": {
                                                "type": "object",
                                                "required": ["artifactLocation"],
                                                "properties": {
                                                    "artifactLocation": {
                                                        "type": "object",
                                                        "required": ["uri"],
                                                        "properties": {"uri": {"pattern": r"^[!-~]+$"}},
                                                    }
                                                },
                                            },
                                            "logicalLocations": {
                                                "type": "array",
                                                "uniqueItems": True,
                                                "items": {
                                                    "type": "object",
                                                    "additionalProperties": False,
                                                    "properties": {
                                                        "name": {"type": "string"},
                                                        "fullyQualifiedName": {"type": "string"},
                                                        "kind": {"type": "string"},
                                                    },
                                                },
                                            },
                                        },
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


# --- text --------------------------------------------------------------------------------------------


def test_a_limit_of_false_alarms_is_told_with_what_is_expected():
    from guard_core.output.text import where

    stated = {"rows": [4], "fdr": 0.58, "evidence": {"expected_false_share": 0.21}}
    assert where(stated) == "row 4; 21% to 58% of these may be false"
    assert where({**stated, "fdr": 0.213}) == "row 4; about 21% of these may be false"


def test_text_tells_the_verdict_then_the_worst_finding_first_with_what_to_do():
    lines = render(REPORT, "text").splitlines()
    assert lines[0] == "acme/digits@2  1,797 rows x 65 columns"
    assert lines[2] == "verdict      quarantine  (decision dec-1)"
    assert [line.split()[1] for line in lines if line.split()[:1] and line.split()[0].isupper()] == [
        "LEAK001",
        "PRIV002",
        "QUAL001",
    ]
    text = "\n".join(lines)
    assert "columns text, label; rows 3, 10-19, 99; about 5% of these may be false" in text
    assert "what to do: Remove these rows" in text
    assert "findings: 1 critical, 1 warning, 1 info" in lines
    assert lines[-1] == "report: home/report.html"


def test_text_says_how_rows_are_counted_and_what_makes_a_quarantined_version_usable():
    text = " ".join(render(REPORT, "text").split())
    assert "rows are counted from 0, a CSV's header line left out" in text
    assert "trainguard dataset clean acme/digits@2 --drop LEAK001 or," in text
    assert "trainguard dataset waive acme/digits@2 RULE" in text
    assert "next:" not in render({**REPORT, "version": None}, "text")  # a scan kept nothing
    assert "rows are counted" not in render(SCAN, "text")


def test_text_fits_a_terminal():
    long = {**REPORT, "findings": [FINDINGS[1].to_json() | {"message": "word " * 60}]}
    assert max(map(len, render(long, "text").splitlines())) <= 100


def test_many_row_ranges_are_cut_short_and_it_says_so():
    rows = RowSet.of(range(0, 100, 2)).to_json()
    text = render({**REPORT, "findings": [FINDINGS[1].to_json() | {"rows": rows}]}, "text")
    assert "rows 0, 2, 4, 6, 8, 10, 12, 14 and 42 more ranges" in text


def test_a_clean_scan_is_short():
    assert render(SCAN, "text").splitlines()[-1] == "findings: none"


# --- JSON --------------------------------------------------------------------------------------------


def test_json_is_the_report_itself():
    assert json.loads(render(REPORT, "json")) == REPORT


def test_json_never_holds_what_json_does_not_have():
    with pytest.raises(ValueError, match="not JSON compliant"):
        render({**REPORT, "score": float("nan")}, "json")


# --- SARIF -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("report", [REPORT, SCAN], ids=["findings", "clean"])
def test_sarif_has_the_structure_of_the_standard(report):
    jsonschema.Draft202012Validator(SARIF).validate(json.loads(render(report, "sarif")))


def test_sarif_results_have_level_rule_place_and_rows():
    run = json.loads(render(REPORT, "sarif"))["runs"][0]
    first = run["results"][0]
    assert [r["level"] for r in run["results"]] == ["error", "warning", "note"]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    location = first["locations"][0]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "file:///data/my%20digits.parquet"
    assert [place["name"] for place in location["logicalLocations"]] == ["text", "label"]
    assert first["properties"]["rows"] == [3, *range(10, 20), 99]
    assert first["message"]["text"].endswith("Remove these rows, or declare the overlap.")


def test_the_same_finding_on_the_next_version_has_the_same_sarif_fingerprint():
    def prints(report):
        return [r["partialFingerprints"] for r in json.loads(render(report, "sarif"))["runs"][0]["results"]]

    assert prints({**REPORT, "version": 3}) == prints(REPORT)
    assert len({json.dumps(p) for p in prints(REPORT)}) == 3


def test_a_table_in_memory_is_named_by_the_dataset_because_it_has_no_uri():
    run = json.loads(render({**REPORT, "source_uri": "<pyarrow.Table>"}, "sarif"))["runs"][0]
    assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "acme/digits@2"


# --- JUnit -------------------------------------------------------------------------------------------


def cases(xml):
    suite = ET.fromstring(xml.encode()).find("testsuite")
    return suite, {case.get("name"): case for case in suite.iter("testcase")}


def test_junit_has_a_test_case_for_each_check():
    suite, found = cases(render(REPORT, "junit"))
    assert suite.attrib == {
        "name": "acme/digits@2",
        "tests": "4",
        "failures": "1",
        "skipped": "1",
        "errors": "0",
        "time": "0.750",
    }
    assert (
        found["exact_overlap"].find("failure").get("message")
        == '12 rows are also in "test" <held out> & more'
    )
    assert found["label_flip"].find("skipped").get("message") == "no label column was named"
    assert "warning PRIV002: 1 secret (column text)" in found["secrets"].find("system-out").text


def test_junit_fails_for_warnings_when_asked():
    _, found = cases(junit(REPORT, fail_on="warning"))
    assert found["secrets"].find("failure") is not None
    _, found = cases(junit(REPORT, fail_on="never"))
    assert found["exact_overlap"].find("failure") is None


def test_junit_is_good_xml_whatever_a_name_holds():
    nasty = {**REPORT, "name": "a\x00b\ud800]]><c>"}
    suite, _ = cases(render(nasty, "junit"))
    assert suite.get("name") == "acme/a\ufffdb\ufffd]]><c>@2"


# --- options and exit status -------------------------------------------------------------------------


@pytest.mark.parametrize(("fail_on", "status"), [("info", 1), ("warning", 1), ("critical", 1), ("never", 0)])
def test_the_exit_status_follows_fail_on(fail_on, status):
    assert exit_status(REPORT, fail_on) == status
    assert exit_status(SCAN, fail_on) == 0


def test_warnings_alone_do_not_fail_by_default():
    assert exit_status({"findings": [FINDINGS[2].to_json()]}) == 0


def test_commands_take_the_formats_they_offer():
    @click.command()
    @format_option("json", "text")
    @fail_on_option
    def command(output_format, fail_on):
        click.echo(f"{output_format} {fail_on}")

    runner = CliRunner()
    assert runner.invoke(command, []).output == "json critical\n"
    assert runner.invoke(command, ["--format", "text", "--fail-on", "never"]).output == "text never\n"
    assert runner.invoke(command, ["--format", "sarif"]).exit_code == 2


@pytest.mark.parametrize("name", output.FORMATS)
def test_every_format_renders_every_report(name):
    assert render(REPORT, name)
    assert render({**SCAN, "tenant": "acme"}, name)


def test_an_unknown_format_is_the_users_mistake():
    with pytest.raises(UserError, match="no format 'xml'; use one of text, json, sarif, junit, html"):
        render(REPORT, "xml")
