"""From expectations that were not met to findings, and to Great Expectations' result without any value."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dataset_guard.checks.base import CheckContext, counted
from dataset_guard.checks.quality.gx_suite import COLUMNS, TYPES, Suite
from dataset_guard.checks.quality.gx_tally import Tally
from guard_core.findings import Finding, RowSet, Severity

MOST_RESULTS = 64


def gx_result(
    suite: Suite, tallies: Sequence[Tally], version: str, *, most: int | None = MOST_RESULTS
) -> dict[str, Any]:
    """An ``ExpectationSuiteValidationResult`` as JSON, which Great Expectations' own schema loads.

    Failures come first; beyond ``most`` results are left out. It holds counts, column names and severities;
    no observed value, no constant, no error text.
    """
    met = sum(t.met for t in tallies)
    return {
        "success": met == len(tallies),
        "suite_name": suite.name,
        "suite_parameters": {},
        "results": [_result(t) for t in in_order(tallies)[:most]],
        "statistics": {
            "evaluated_expectations": len(tallies),
            "successful_expectations": met,
            "unsuccessful_expectations": len(tallies) - met,
            "success_percent": round(100 * met / max(1, len(tallies)), 2),
        },
        "meta": {
            "great_expectations_version": version,
            "suite": suite.origin,
            "suite_digest": suite.digest,
            "note": suite.note,
        },
        "id": None,
    }


def in_order(tallies: Sequence[Tally]) -> list[Tally]:
    """The order of results: what is not met first."""
    return sorted(tallies, key=lambda t: t.met)


def _result(tally: Tally) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if tally.elements:
        judged = max(1, tally.elements - tally.missing)
        said = {
            "element_count": tally.elements,
            "missing_count": tally.missing,
            "unexpected_count": tally.unexpected,
            "unexpected_percent": round(100 * tally.unexpected / judged, 6),
            "missing_percent": round(100 * tally.missing / tally.elements, 6),
        }
    if tally.observed_count is not None:
        said["observed_count"] = tally.observed_count
    return {
        "success": tally.met,
        "expectation_config": tally.expected.config(),
        "result": said,
        "meta": {"engine": tally.engine},
        "exception_info": {
            "raised_exception": bool(tally.problem),
            "exception_message": tally.problem or None,
            "exception_traceback": None,
        },
    }


def findings(suite: Suite, tallies: Sequence[Tally], context: CheckContext) -> Iterator[Finding]:
    """One finding per kind of expectation and severity."""
    structure: list[Tally] = []
    unknown: dict[Severity, list[Tally]] = defaultdict(list)
    unmet: dict[tuple[str, Severity], list[Tally]] = defaultdict(list)
    for tally in tallies:
        expected = tally.expected
        if tally.lacking:
            structure.append(tally)
        elif tally.problem:
            # An error is a failure to Great Expectations too; a budget is ours, and weighs a warning at most.
            raised = tally.evaluated
            own = expected.severity if raised or expected.severity is Severity.INFO else Severity.WARNING
            unknown[own if suite.origin == "given" else Severity.INFO].append(tally)
        elif not tally.success:
            if expected.type in TYPES or expected.type in COLUMNS:
                structure.append(tally)
            else:
                unmet[expected.type, expected.severity].append(tally)
    if structure:
        yield _structure(suite, structure, context)
    for (kind, severity), group in sorted(unmet.items()):
        yield _unmet(suite, kind, severity, group)
    for severity, group in sorted(unknown.items()):
        yield _unknown(suite, severity, group)


def _names(group: Sequence[Tally]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(c for t in group for c in t.expected.columns))


def _evidence(suite: Suite, group: Sequence[Tally]) -> dict[str, Any]:
    return {
        "suite": suite.origin,
        "suite_digest": suite.digest,
        "results": [_result(t) for t in group[:MOST_RESULTS]],
    }


def _structure(suite: Suite, group: Sequence[Tally], context: CheckContext) -> Finding:
    lacking = dict.fromkeys(c for t in group for c in t.lacking)
    for tally in group:
        if tally.expected.type == "expect_table_columns_to_match_set":
            wanted = tally.expected.kwargs.get("column_set") or ()
            lacking |= dict.fromkeys(c for c in wanted if c not in context.schema.names)
        elif tally.expected.type == "expect_column_to_exist":
            lacking |= dict.fromkeys(tally.expected.columns)
    typed = _names([t for t in group if t.expected.type in TYPES and not t.lacking])
    parts = []
    if lacking:
        parts.append(f"{counted(len(lacking), 'expected column')} missing")
    if typed:
        parts.append(f"{counted(len(typed), 'column')} of another type than expected")
    said = " and ".join(parts) or "the columns are not those expected"
    return Finding(
        rule_id="QUAL002",
        severity=Severity.CRITICAL,
        message=f"The layout is not the expected one: {said}.",
        columns=(*lacking, *typed),
        count=len(lacking) + len(typed) or len(group),
        action="Export the data with the expected columns and types, or change the suite.",
        evidence=_evidence(suite, group),
    )


def _unmet(suite: Suite, kind: str, severity: Severity, group: Sequence[Tally]) -> Finding:
    parts = [r for t in group for r in t.rows]
    rows = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)
    columns = _names(group)
    places = f" in {counted(len(columns), 'column')}" if columns else ""
    number = f": {counted(len(rows), 'row')}{places}" if len(rows) else places
    shares = [t.unexpected / max(1, t.elements - t.missing) for t in group if t.elements]
    return Finding(
        rule_id="QUAL001",
        severity=severity,
        message=f"{kind} does not hold{number}.",
        columns=columns,
        rows=RowSet.of(rows.tolist()),
        count=len(rows) or len(group),
        score=round(max(shares), 9) if shares else None,
        action="Mend the rows, or change the expectation if the data is right.",
        evidence={**_evidence(suite, group), "unexpected_values": sum(t.unexpected for t in group)},
    )


def _unknown(suite: Suite, severity: Severity, group: Sequence[Tally]) -> Finding:
    reasons = sorted({t.problem for t in group})
    return Finding(
        rule_id="QUAL004",
        severity=severity,
        message=f"{counted(len(group), 'expectation')} could not be evaluated: {'; '.join(reasons)}.",
        columns=_names(group),
        count=len(group),
        action="Raise the budget, correct the expectation, or run it where the data can be queried.",
        evidence=_evidence(suite, group),
    )
