"""From a suite's validation result to what its page shows: expectations by column, failures first. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from guard_core.output import figures

SHOWN_RANGES = 12
"""Ranges of rows written beside an expectation; the JSON has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectationView:
    """One expectation as the page shows it; texts are empty where nothing is known."""

    name: str
    met: bool
    severity: str
    unexpected: int | None
    observed: int | None
    elements: int
    missing: int
    share: str
    mostly: str
    problem: str
    engine: str
    ranges: tuple[str, ...]
    cut: int
    bar: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """Expectations on one column (or record); ``column`` is empty for the table as a whole."""

    column: str
    met: bool
    expectations: tuple[ExpectationView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationView:
    """Everything the template places."""

    document: Mapping[str, Any]
    success: bool
    total: int
    met: int
    percent: str
    groups: tuple[GroupView, ...]


def view(document: Mapping[str, Any]) -> ValidationView:
    """The view of ``Validation.document()``."""
    result = document["result"]
    rows = {int(k): v for k, v in (document.get("unexpected_rows") or {}).items()}
    groups: dict[str, list[ExpectationView]] = defaultdict(list)
    for number, one in enumerate(result["results"]):
        groups[_column(one["expectation_config"]["kwargs"])].append(_expectation(one, rows.get(number, ())))
    told = [GroupView(column=c, met=all(e.met for e in g), expectations=tuple(g)) for c, g in groups.items()]
    statistics = result["statistics"]
    return ValidationView(
        document=document,
        success=result["success"],
        total=statistics["evaluated_expectations"],
        met=statistics["successful_expectations"],
        percent=f"{statistics['success_percent']:g}%",
        groups=tuple(sorted(told, key=lambda g: (g.met, g.column != "", g.column))),
    )


def _column(kwargs: Mapping[str, Any]) -> str:
    named = [kwargs[k] for k in ("column", "column_A", "column_B") if k in kwargs]
    return ", ".join(map(str, (*named, *kwargs.get("column_list", ()))))


def _expectation(one: Mapping[str, Any], ranges: Sequence[Sequence[int]]) -> ExpectationView:
    config, said = one["expectation_config"], one["result"]
    unexpected, elements, missing = (
        said.get("unexpected_count"),
        said.get("element_count", 0),
        said.get("missing_count", 0),
    )
    share = float(said.get("unexpected_percent") or 0) / 100
    told = [f"{a:,}" if a == b else f"{a:,}\N{EN DASH}{b:,}" for a, b in ranges]
    mostly = config["kwargs"].get("mostly")
    return ExpectationView(
        name=config["type"].removeprefix("expect_").replace("_", " "),
        met=one["success"],
        severity=config.get("severity", "warning"),
        unexpected=unexpected,
        observed=said.get("observed_count"),
        elements=elements,
        missing=missing,
        share=f"{100 * share:.3g}%" if unexpected else "",
        mostly="" if mostly is None else f"{100 * mostly:g}%",
        problem=one["exception_info"].get("exception_message") or "",
        engine=str(one.get("meta", {}).get("engine", "")),
        ranges=tuple(told[:SHOWN_RANGES]),
        cut=max(0, len(told) - SHOWN_RANGES),
        bar=figures.share_bar(share, kind="critical", label=f"{100 * share:.3g}% unexpected")
        if unexpected
        else Markup(""),
    )
