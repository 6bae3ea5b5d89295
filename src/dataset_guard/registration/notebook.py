"""The short HTML a notebook shows for a report: verdict, identity, findings with their rows.

Styles are inline because notebooks strip ``<style>`` elements from untrusted output.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from dataset_guard.registration.report import Report, rows_text
from guard_core.counting import counted
from guard_core.findings import Finding, Severity, Verdict

if TYPE_CHECKING:
    from dataset_guard.validation import Validation

VERDICT_COLOURS = {
    Verdict.ALLOW: "#1a7f4b",
    Verdict.WARN: "#8a5a00",
    Verdict.QUARANTINE: "#b3261e",
    Verdict.DENY: "#7a1410",
}
SEVERITY_COLOURS = {Severity.INFO: "#3b5b92", Severity.WARNING: "#8a5a00", Severity.CRITICAL: "#b3261e"}

_HEADINGS = ("Severity", "Rule", "What", "Rows", "What to do")
_LEFT = 'style="text-align:left;vertical-align:top"'


def report_html(report: Report) -> str:
    """HTML of ``report`` for ``_repr_html_``; every text in it is escaped, none of it is a cell value."""
    facts = (
        f"<b>{escape(report.ref)}</b> &middot; {counted(report.rows, 'row')} &times; "
        f"{counted(report.columns, 'column')} "
        f"&middot; findings: {escape(report.summary)}<br><code>{escape(report.fingerprint)}</code>"
    )
    page = f"<br>Full report: <code>{escape(str(report.report_path))}</code>" if report.report_path else ""
    verdict = _badge(report.verdict.value, VERDICT_COLOURS[report.verdict])
    return f'<div lang="en"><p>{verdict} {facts}{page}</p>{_table(report.findings)}</div>'


def validation_html(found: Validation) -> str:
    """HTML of ``found`` for ``_repr_html_``, likewise."""
    told = found.result["statistics"]
    word, colour = ("met", Verdict.ALLOW) if found.success else ("not met", Verdict.QUARANTINE)
    facts = (
        f"<b>{escape(found.name)}</b> &middot; {counted(found.rows, 'row')} &times; "
        f"{counted(found.columns, 'column')} &middot; "
        f"{told['successful_expectations']} of {told['evaluated_expectations']} expectations"
    )
    badge = _badge(word, VERDICT_COLOURS[colour])
    return f'<div lang="en"><p>{badge} {facts}</p>{_table(found.findings)}</div>'


def _table(findings: tuple[Finding, ...]) -> str:
    if not findings:
        return "<p>No findings.</p>"
    head = "".join(f'<th scope="col" {_LEFT}>{h}</th>' for h in _HEADINGS)
    body = "".join(_row(f) for f in sorted(findings, key=lambda f: -f.severity.rank))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(finding: Finding) -> str:
    count = len(finding.rows) if finding.count is None else finding.count
    where = rows_text(finding.rows)
    cells = (
        _badge(finding.severity.value, SEVERITY_COLOURS[finding.severity]),
        escape(finding.rule_id),
        escape(finding.message),
        f"{count:,}" + (f": {escape(where)}" if where else ""),
        escape(finding.action),
    )
    return "<tr>" + "".join(f"<td {_LEFT}>{cell}</td>" for cell in cells) + "</tr>"


def _badge(word: str, colour: str) -> str:
    style = f"background:{colour};color:#fff;border-radius:4px;padding:1px 7px;font-weight:600"
    return f'<span style="{style}">{escape(word)}</span>'
