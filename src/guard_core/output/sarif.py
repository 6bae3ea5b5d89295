"""SARIF 2.1.0, which code-scanning services read (OASIS Standard, 27 March 2020).

A dataset has no lines, so a result points at the data by URI and at its columns by logical location; row
numbers are in ``properties``. ``partialFingerprints`` let a service recognise a finding it has seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from guard_core.output import reference, worst_first
from guard_core.version import __version__

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS = {"critical": "error", "warning": "warning", "info": "note"}


def render(report: Mapping[str, Any]) -> str:
    """One run with one result for each finding."""
    return json.dumps(log(report), indent=2, ensure_ascii=False, allow_nan=False)


def log(report: Mapping[str, Any]) -> dict[str, Any]:
    """The SARIF log as an object."""
    findings = worst_first(report)
    rules = sorted({finding["rule_id"] for finding in findings})
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "trainguard",
                        "semanticVersion": __version__,
                        "rules": [_rule(rule) for rule in rules],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "automationDetails": {"id": f"trainguard/{reference(report)}"},
                "results": [
                    _result(report, finding, rules.index(finding["rule_id"])) for finding in findings
                ],
                "properties": {
                    "verdict": report["verdict"],
                    "decision_id": report.get("decision_id", ""),
                    "fingerprint": report["fingerprint"],
                },
            }
        ],
    }


def _rule(rule_id: str) -> dict[str, Any]:
    return {"id": rule_id, "help": {"text": f"See docs/rules/{rule_id}.md."}}


def _result(report: Mapping[str, Any], finding: Mapping[str, Any], rule_index: int) -> dict[str, Any]:
    ref = reference(report)
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": _uri(report)}}}
    if finding.get("columns"):
        location["logicalLocations"] = [
            {"name": column, "fullyQualifiedName": f"{ref}/{column}", "kind": "member"}
            for column in finding["columns"]
        ]
    action = f" {finding['action']}" if finding.get("action") else ""
    same = json.dumps([ref.split("@")[0], finding["rule_id"], list(finding.get("columns", ()))])
    return {
        "ruleId": finding["rule_id"],
        "ruleIndex": rule_index,
        "level": LEVELS[finding["severity"]],
        "message": {"text": f"{finding['message']}{action}"},
        "locations": [location],
        "partialFingerprints": {"trainguardFinding/v1": hashlib.sha256(same.encode()).hexdigest()},
        "properties": {
            name: finding.get(name) for name in ("severity", "count", "rows", "score", "fdr", "check")
        },
    }


def _uri(report: Mapping[str, Any]) -> str:
    source = str(report.get("source_uri") or "")
    # A name in memory ("<pyarrow.Table>") is no URI; the dataset's own name then stands for it.
    return quote(source if source and not source.startswith("<") else reference(report), safe="/:@?&=#%._-~+")
