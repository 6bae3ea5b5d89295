"""How results leave the program: text, JSON, SARIF, JUnit and HTML, one module each.

A *report* is the JSON object of ``dataset register`` and ``dataset scan`` (docs: "JSON shapes"), with or
without the further fields of ``Report.document()``. Every module has ``render(report) -> str``; commands
take :func:`format_option` and print :func:`render`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from json import dumps  # not "import json": once the module beside this one is loaded, that name means it
from typing import Any, TypeVar

import click

from guard_core.errors import UserError
from guard_core.findings import Severity

FORMATS = ("text", "json", "sarif", "junit", "html")

_Function = TypeVar("_Function", bound=Callable[..., Any])


def format_option(*formats: str) -> Callable[[_Function], _Function]:
    """Click decorator: ``--format``, given to the command as ``output_format``; the first is the default."""
    offered = formats or FORMATS
    return click.option(
        "--format",
        "output_format",
        type=click.Choice(offered),
        default=offered[0],
        show_default=True,
        help="How to print the result on stdout.",
    )


def echo_json(value: Any) -> None:
    """Print a result as JSON on stdout, for people to read too."""
    click.echo(dumps(value, indent=2, ensure_ascii=False))


def fail_on_option(function: _Function) -> _Function:
    """Click decorator: ``--fail-on``, given to the command as ``fail_on`` (see :func:`exit_status`)."""
    return click.option(
        "--fail-on",
        type=click.Choice([*(s.value for s in Severity), "never"]),
        default=Severity.CRITICAL.value,
        show_default=True,
        help="Exit with status 1 for a finding of at least this severity.",
    )(function)


def render(report: Mapping[str, Any], output_format: str) -> str:
    """``report`` in one of :data:`FORMATS`, without a final newline. Raises UserError for another."""
    if output_format not in FORMATS:
        raise UserError(f"there is no format {output_format!r}; use one of {', '.join(FORMATS)}")
    text: str = import_module(f"guard_core.output.{output_format}").render(report)
    return text.rstrip("\n")


def exit_status(report: Mapping[str, Any], fail_on: str = "critical") -> int:
    """1 when a finding is at or above ``fail_on`` (a severity, or ``never``), else 0."""
    if fail_on == "never":
        return 0
    least = Severity(fail_on).rank
    return int(any(Severity(finding["severity"]).rank >= least for finding in report.get("findings", ())))


def worst_first(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The report's findings by severity, then rule, then columns: the order every format uses."""
    return sorted(
        report.get("findings", ()),
        key=lambda f: (-Severity(f["severity"]).rank, f["rule_id"], list(f.get("columns", ()))),
    )


def reference(report: Mapping[str, Any]) -> str:
    """``tenant/name@version`` as far as the report knows them."""
    name = f"{report['tenant']}/{report['name']}" if report.get("tenant") else str(report["name"])
    return name if report.get("version") is None else f"{name}@{report['version']}"
