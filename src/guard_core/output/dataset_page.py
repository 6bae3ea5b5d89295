"""From a dataset report's JSON to what its page shows: sorted findings, ranges, shares, figures.

Pure: it decides what is shown and how much of it; the template only places it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from guard_core.findings import Finding, Verdict
from guard_core.output import figures, rules_zh
from guard_core.output.text import size_text

SHOWN_RANGES = 16
"""Ranges of rows written out beside a finding; more unfold below it."""
UNFOLDED_RANGES = 400
"""Ranges in the unfolded list; a page is for reading, findings.json has all of them."""
SHOWN_COLUMNS = 200
SHOWN_EVIDENCE = 8
SHOWN_CLASSES = 40

_PIXEL = re.compile(r"^pixel_(\d+)$")

_NEXT = {
    Verdict.ALLOW: ("next.use",),
    Verdict.WARN: ("next.look", "next.use"),
    Verdict.QUARANTINE: ("next.look", "next.fix", "next.waive"),
    Verdict.DENY: ("next.denied",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingView:
    """One finding as the page shows it. ``share`` is None for a finding about the whole set."""

    finding: Finding
    number: int
    count: int | None
    share: str | None
    ranges: tuple[str, ...]
    more: tuple[str, ...]
    cut: int
    ranges_total: int
    strip: Markup | None
    grid: Markup | None
    evidence: tuple[tuple[str, str], ...]
    waiver: str | None

    @property
    def found_zh(self) -> str | None:
        """What was found, in Chinese; None for a rule of somebody else's check."""
        return rules_zh.found(self.finding.rule_id, self.count)

    @property
    def action_zh(self) -> str | None:
        """What to do, in Chinese."""
        return rules_zh.action(self.finding.rule_id)

    @property
    def family(self) -> str:
        """Prefix of the rule id, e.g. ``POIS``."""
        return self.finding.rule_id[:4]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnView:
    """One column's profile as the page shows it; texts are empty where nothing is known."""

    name: str
    type: str
    nulls: int
    null_share: float
    distinct: str
    range: str
    lengths: bool
    mean: str
    shape: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassView:
    """One class of the label: its index in sorted order, its salted name, and how often it occurs."""

    index: int
    name: str
    count: int
    percent: str
    bar: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetView:
    """Everything the template places."""

    report: Mapping[str, Any]
    verdict: str
    stored: bool
    findings: tuple[FindingView, ...]
    counts: tuple[tuple[str, int], ...]
    next_steps: tuple[str, ...]
    columns: tuple[ColumnView, ...]
    hidden_columns: int
    classes: tuple[ClassView, ...]
    hidden_classes: int
    cpu_seconds: float
    times: tuple[tuple[str, float, float], ...]
    times_figure: Markup
    size: str


_DEFAULTS: Mapping[str, Any] = {
    "ref": "",
    "version": None,
    "tenant": "",
    "digest": "",
    "decision_id": "",
    "label": None,
    "split": None,
    "source_uri": "",
    "checks": (),
    "reasons": (),
    "against": (),
    "trusted": None,
    "policy_revision": "",
    "policy_engine": "",
    "enforcement": "cooperative",
    "key_id": "",
    "created_at": "",
    "created_by": "",
}


def is_dataset_report(report: Mapping[str, Any]) -> bool:
    """Whether ``report`` has at least the documented fields of ``dataset register`` and ``dataset scan``."""
    return {"name", "fingerprint", "rows", "columns", "verdict", "findings"} <= report.keys()


def view(report: Mapping[str, Any]) -> DatasetView:
    """The view of ``Report.document()``, or of the shorter ``Report.to_json()``."""
    report = {**_DEFAULTS, **report}
    report["ref"] = report["ref"] or report["name"] + (f"@{report['version']}" if report["version"] else "")
    verdict = Verdict(report["verdict"])
    findings = sorted((Finding.from_json(f) for f in report["findings"]), key=lambda f: -f.severity.rank)
    columns = _columns(report.get("profile") or {}, report.get("schema") or (), report["rows"])
    times = sorted((report.get("seconds") or {}).items(), key=lambda item: -float(item[1]))
    cpu = sum(float(t) for _, t in times)
    classes = ((report.get("profile") or {}).get("label") or {}).get("classes") or ()
    stored = report.get("version") is not None
    side = _image_side([c["name"] for c in report.get("schema") or ()])
    return DatasetView(
        report=report,
        verdict=verdict.value,
        stored=stored,
        findings=tuple(
            _finding(f, i, report["rows"], side, report.get("waivers") or ())
            for i, f in enumerate(findings, 1)
        ),
        counts=tuple(
            (s, sum(f.severity.value == s for f in findings)) for s in ("critical", "warning", "info")
        ),
        next_steps=_NEXT[verdict] + (() if stored or verdict is Verdict.DENY else ("next.scan",)),
        columns=columns[:SHOWN_COLUMNS],
        hidden_columns=max(0, len(columns) - SHOWN_COLUMNS),
        classes=_classes(classes[:SHOWN_CLASSES], report["rows"]),
        hidden_classes=max(0, len(classes) - SHOWN_CLASSES),
        cpu_seconds=cpu,
        times=tuple((name, float(t), float(t) / cpu if cpu else 0.0) for name, t in times),
        times_figure=figures.stacked([(name, float(t)) for name, t in times]),
        size="" if report.get("num_bytes") is None else size_text(report["num_bytes"]),
    )


def _finding(finding: Finding, number: int, rows: int, side: int, waivers: Any) -> FindingView:
    ranges = tuple(
        f"{a:,}" if a == b else f"{a:,}\N{EN DASH}{b:,}" for a, b in finding.rows.ranges[:UNFOLDED_RANGES]
    )
    count = finding.count if finding.count is not None else (len(finding.rows) or None)
    strip = None
    if finding.rows.ranges:
        strip = figures.row_strip(
            finding.rows.ranges,
            rows,
            kind=finding.severity.value,
            label=f"{len(finding.rows):,} of {rows:,} rows, from row {finding.rows.ranges[0][0]:,} "
            f"to row {finding.rows.ranges[-1][1]:,}",
        )
    # Nested evidence (samples of hashes, per-class tables) stays in findings.json: a line is for reading.
    flat = [(k.replace("_", " "), _short(v)) for k, v in finding.evidence.items() if _is_plain(v)]
    return FindingView(
        finding=finding,
        number=number,
        count=count,
        share=_percent(len(finding.rows) / rows) if rows and finding.rows.ranges else None,
        ranges=ranges[:SHOWN_RANGES],
        more=ranges[SHOWN_RANGES:],
        cut=max(0, len(finding.rows.ranges) - UNFOLDED_RANGES),
        ranges_total=len(finding.rows.ranges),
        strip=strip,
        grid=_pixel_grid(finding, side),
        evidence=tuple(flat[:SHOWN_EVIDENCE]),
        waiver=next((str(w["msg"]) for w in waivers if w["rule"] == finding.rule_id), None),
    )


def _image_side(names: Sequence[str]) -> int:
    """Side of the square image whose pixels are the columns ``pixel_0`` to ``pixel_<n-1>``; 0 for none."""
    pixels = {int(m[1]) for name in names if (m := _PIXEL.match(name))}
    side = math.isqrt(len(pixels))
    return side if side > 1 and pixels == set(range(side * side)) else 0


def _pixel_grid(finding: Finding, side: int) -> Markup | None:
    matches = [_PIXEL.match(name) for name in finding.columns]
    if not side or not matches or not all(matches):
        return None
    pixels = [int(m[1]) for m in matches if m]
    label = f"{len(pixels)} pixels of {side} x {side}"
    return figures.pixel_grid(pixels, side, kind=finding.severity.value, label=label)


def _columns(profile: Mapping[str, Any], schema: Any, rows: int) -> tuple[ColumnView, ...]:
    types = {c["name"]: c["type"] for c in schema}
    profiled = profile.get("columns") or {}
    named = profiled.items() if isinstance(profiled, Mapping) else ((c["name"], c) for c in profiled)
    views = [_column(name, statistics, types.get(name, ""), rows) for name, statistics in named]
    seen = {v.name for v in views}
    views += [_column(name, {}, kind, rows) for name, kind in types.items() if name not in seen]
    return tuple(views)


def _column(name: str, statistics: Mapping[str, Any], kind: str, rows: int) -> ColumnView:
    nulls = int(statistics.get("nulls") or 0)
    low, high = statistics.get("min"), statistics.get("max")
    lengths = statistics.get("lengths") or {}
    histogram = statistics.get("histogram") or ()
    counts = histogram.get("counts", ()) if isinstance(histogram, Mapping) else histogram
    return ColumnView(
        name=name,
        type=str(statistics.get("type") or kind),
        nulls=nulls,
        null_share=nulls / rows if rows else 0.0,
        distinct=_distinct(statistics),
        range=_span(low, high) or _span(lengths.get("min"), lengths.get("max")),
        lengths=low is None and bool(lengths),
        mean=_short(statistics.get("mean")),
        shape=figures.bars([float(c) for c in counts], label=f"distribution of {name}"),
    )


def _distinct(statistics: Mapping[str, Any]) -> str:
    number = _short(statistics.get("distinct"))
    return (
        f"\N{ALMOST EQUAL TO} {number}" if number and not statistics.get("distinct_exact", True) else number
    )


def _span(low: Any, high: Any) -> str:
    return "" if low is None or high is None else f"{_short(low)} \N{HORIZONTAL ELLIPSIS} {_short(high)}"


def _classes(classes: Sequence[Mapping[str, Any]], rows: int) -> tuple[ClassView, ...]:
    top = max((c["count"] for c in classes), default=0)
    return tuple(
        ClassView(
            index=c["class"],
            name=c["name"],
            count=c["count"],
            percent=_percent(c["count"] / rows) if rows else "",
            bar=figures.share_bar(
                c["count"] / top if top else 0, kind="class", label=f"class {c['class']}: {c['count']:,} rows"
            ),
        )
        for c in classes
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) or (
        isinstance(value, list | tuple)
        and len(value) <= 8
        and all(isinstance(v, str | int | float) for v in value)
    )


def _short(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e6 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_short(v) for v in value)
    text = str(value)
    return text if len(text) <= 80 else text[:79] + "\N{HORIZONTAL ELLIPSIS}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%" if share >= 0.001 else f"{100 * share:.2g}%"
