"""JUnit XML, which every CI shows: one test case for each check, failed by its findings.

The dialect is that of Jenkins' xunit plug-in (``testsuites/testsuite/testcase`` with ``failure`` and
``skipped``), the one GitLab, GitHub actions and Jenkins all read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from guard_core.findings import Severity
from guard_core.output import reference, worst_first
from guard_core.output.text import where

# XML 1.0 cannot hold these characters in any spelling.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Mapping[str, Any], *, fail_on: str = "critical") -> str:
    """The XML document. Findings at or above ``fail_on`` are failures; the others go to ``system-out``."""
    ref = reference(report)
    found: dict[str, list[Mapping[str, Any]]] = {}
    for finding in worst_first(report):
        found.setdefault(finding.get("check") or finding["rule_id"], []).append(finding)
    checks = {check["name"]: check for check in report.get("checks", ())}
    cases = [
        _case(ref, name, checks.get(name, {}), found.get(name, []), fail_on)
        for name in sorted({*checks, *found})
    ]
    suite = ET.Element("testsuite", name=_clean(ref), tests=str(len(cases)), errors="0")
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))
    suite.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")
    suite.extend(cases)
    suites = ET.Element("testsuites", name="trainguard")
    suites.append(suite)
    ET.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suites, encoding="unicode")


def _case(
    ref: str, name: str, check: Mapping[str, Any], findings: list[Mapping[str, Any]], fail_on: str
) -> ET.Element:
    case = ET.Element("testcase", classname=_clean(f"trainguard.{ref}"), name=_clean(name))
    case.set("time", f"{float(check.get('seconds') or 0.0):.3f}")
    least = Severity(fail_on).rank if fail_on != "never" else len(Severity)
    bad = [f for f in findings if Severity(f["severity"]).rank >= least]
    if bad:
        failure = ET.SubElement(case, "failure", message=_clean(bad[0]["message"]), type=bad[0]["rule_id"])
        failure.text = _clean("\n".join(_told(f) for f in bad))
    elif check.get("skipped"):
        ET.SubElement(case, "skipped", message=_clean(str(check["skipped"])))
    mild = [f for f in findings if Severity(f["severity"]).rank < least]
    if mild:
        ET.SubElement(case, "system-out").text = _clean("\n".join(_told(f) for f in mild))
    return case


def _told(finding: Mapping[str, Any]) -> str:
    place = where(finding)
    action = f" What to do: {finding['action']}" if finding.get("action") else ""
    return (
        f"{finding['severity']} {finding['rule_id']}: {finding['message']}"
        + (f" ({place})" if place else "")
        + action
    )


def _clean(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
