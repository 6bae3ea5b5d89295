"""A report for a person at a terminal: what was looked at, the verdict, each finding with what to do."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guard_core.counting import counted, noun_for
from guard_core.findings import RowSet, Severity
from guard_core.output import reference, worst_first

WIDTH = 100
SHOWN_RANGES = 8


def render(report: Mapping[str, Any]) -> str:
    """Plain text, at most 100 columns where words allow, no colours: it reads the same in a log file."""
    return "\n".join(_lines(report))


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"{reference(report)}  {counted(report['rows'], 'row')} x {counted(report['columns'], 'column')}"
    yield f"fingerprint  {report['fingerprint']}"
    decision = f"  (decision {report['decision_id']})" if report.get("decision_id") else ""
    yield f"verdict      {report['verdict']}{decision}"
    for reason in report.get("reasons", ()):
        yield from _wrapped(f"{reason['msg']} [{reason['rule']}]", "             ")
    for waiver in report.get("waived", ()):
        by = f"approved by {waiver['approver']}" if waiver["approver"] else "not approved yet"
        until = to_the_minute(waiver["expires"])
        said = f"{waiver['rule_id']} until {until}, asked by {waiver['author']}, {by}"
        yield from _wrapped(f"waived       {said}: {waiver['reason']}", "", hang=13)
    for finding in worst_first(report):
        yield ""
        yield from _wrapped(
            f"{finding['severity'].upper():<8}  {finding['rule_id']}  {finding['message']}", "", hang=19
        )
        place = where(finding)
        if place:
            yield from _wrapped(place, " " * 19)
        if finding.get("action"):
            yield from _wrapped(f"what to do: {finding['action']}", " " * 19)
    yield ""
    yield _summary(report)
    if any(finding.get("rows") for finding in report.get("findings", ())):
        yield "rows are counted from 0, a CSV's header line left out; all of them: --format json"
    if report["verdict"] == "quarantine" and report.get("version"):
        yield from _ways_out(reference(report), report["findings"])
    if report.get("report_path"):
        yield f"report: {report['report_path']}"


def _ways_out(ref: str, findings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What makes a quarantined version usable, or another one of it."""
    critical = [f for f in findings if f["severity"] == Severity.CRITICAL.value and f.get("rows")]
    drops = " ".join(f"--drop {rule}" for rule in sorted({f["rule_id"] for f in critical}))
    if drops:
        yield from _wrapped(
            f"next: a version without these rows: trainguard dataset clean {ref} {drops}", "", hang=6
        )
        yield from _wrapped(
            f"or, accepted by another person, with them: trainguard dataset waive {ref} RULE --reason ...",
            " " * 6,
        )


def where(finding: Mapping[str, Any]) -> str:
    """Columns, rows and expected false share of a finding, as one line; empty when it names none."""
    parts = []
    if finding.get("columns"):
        parts.append(
            ("column " if len(finding["columns"]) == 1 else "columns ") + ", ".join(finding["columns"])
        )
    rows = RowSet.from_json(finding.get("rows") or [])
    if rows.ranges:
        parts.append(_rows_named(rows))
    if finding.get("fdr") is not None:
        share, most = (finding.get("evidence") or {}).get("expected_false_share"), finding["fdr"]
        likely, at_most = f"{most if share is None else share:.0%}", f"{most:.0%}"
        told = f"about {likely}" if likely == at_most else f"{likely} to {at_most}"
        parts.append(f"{told} of these may be false")
    return "; ".join(parts)


def _rows_named(rows: RowSet) -> str:
    """``row 3``, or ``rows 3, 17-40 and 5 more ranges``."""
    return f"{noun_for(len(rows), 'row')} {rows_text(rows)}"


def rows_text(rows: RowSet) -> str:
    """``3, 17-40 and 5 more ranges``."""
    shown = [f"{a}" if a == b else f"{a}-{b}" for a, b in rows.ranges[:SHOWN_RANGES]]
    rest = len(rows.ranges) - len(shown)
    return ", ".join(shown) + (f" and {counted(rest, 'more range')}" if rest else "")


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table: cells in columns as wide as their widest, two blanks between them."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def to_the_minute(moment: str) -> str:
    """``2026-11-23 04:05Z`` of a time as :func:`guard_core.clock.rfc3339` writes it."""
    return f"{moment[:16].replace('T', ' ')}Z"


def size_text(num_bytes: int) -> str:
    """``812 B``, ``1.2 MB``: bytes in powers of 1,000."""
    amount = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def _summary(report: Mapping[str, Any]) -> str:
    found = Counter(finding["severity"] for finding in report.get("findings", ()))
    words = [f"{found[s.value]} {s.value}" for s in sorted(Severity, key=lambda s: -s.rank) if found[s.value]]
    return "findings: " + (", ".join(words) or "none")


def _wrapped(text: str, indent: str, *, hang: int = 0) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + " " * hang,
        break_long_words=False,
        break_on_hyphens=False,
    )
