"""``trainguard policy``: check, test and explain policies, and serve them with OPA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from guard_core.errors import UserError
from guard_core.output import echo_json, format_option
from guard_core.policy.lifecycle.cli import COMMANDS

if TYPE_CHECKING:
    from guard_core.cli import CommandContext
    from guard_core.policy.rego_test import TestReport
    from guard_core.policy.samples import SampleResult

_DIRECTORY = click.argument("directory", required=False, type=click.Path(path_type=Path))


@click.group()
def policy() -> None:
    """Check, test, replay and explain policies."""


for command in COMMANDS:  # of the life cycle: replay, stage, promote, ...
    policy.add_command(command)


def _directory(obj: CommandContext, given: Path | None) -> Path:
    from guard_core.policy.bundle import shipped_policies

    return given or obj.settings().policy.dir or shipped_policies()


@policy.command()
@_DIRECTORY
@format_option("text", "json")
@click.pass_context
def check(ctx: click.Context, directory: Path | None, output_format: str) -> None:
    """Check a policy directory: data against its schemas, Rego against the portability gate.

    DIRECTORY is the policies in force when left out. OPA's and Regal's own checks are added when they are
    installed. Exit status 1 when something must be changed, 2 when a file cannot be used at all.
    """
    from guard_core.policy.bundle import load_bundle, shipped_policies, undecided
    from guard_core.policy.embedded import EmbeddedEngine
    from guard_core.policy.gate import gate
    from guard_core.policy.tools import tool_runs

    place = _directory(ctx.obj, directory)
    bundle = load_bundle(place)
    faults = gate(bundle.modules, bundle.tests, config=bundle.config)
    if not faults:
        EmbeddedEngine(bundle)  # what only the embedded compiler refuses is told here, not at start
    missing = undecided(bundle, load_bundle(shipped_policies()))
    runs = tool_runs(place)
    ok = not faults and not any(run.ok is False for run in runs)
    if output_format == "json":
        click.echo(
            json.dumps(
                {
                    "ok": ok,
                    "directory": str(place),
                    "revision": bundle.revision,
                    "modules": len(bundle.modules),
                    "data": sorted(bundle.config),
                    "faults": [fault.to_json() for fault in faults],
                    "undecided": list(missing),
                    "tools": [run.to_json() for run in runs],
                },
                indent=2,
                ensure_ascii=False,
            )
        )
    else:
        click.echo(f"{place}  {len(bundle.modules)} modules, data: {', '.join(sorted(bundle.config))}")
        click.echo(f"revision {bundle.revision}")
        for fault in faults:
            click.echo(str(fault))
        for folder in missing:
            click.echo(
                f"{folder}: no rule here, so whatever is asked of it is denied; copy the shipped folder"
            )
        for run in runs:
            state = {True: "ok", False: "failed", None: "left out"}[run.ok]
            click.echo(f"{run.name}: {state}" + (f" ({run.output})" if run.ok is None else ""))
            if run.ok is False:
                click.echo(run.output)
        click.echo("portable and well formed" if ok else "not accepted")
    if not ok:
        ctx.exit(1)


@policy.command()
@_DIRECTORY
@click.option("--match", default="", metavar="TEXT", help="Only tests whose package.name contains TEXT.")
@click.option(
    "--threshold",
    type=click.IntRange(0, 100),
    default=0,
    metavar="PERCENT",
    help="Fail below this line coverage of the policies.",
)
@format_option("text", "json")
@click.pass_context
def test(ctx: click.Context, directory: Path | None, match: str, threshold: int, output_format: str) -> None:
    """Run the Rego tests and the samples of a policy directory, with line coverage.

    The tests give the same verdicts as `opa test --bundle DIRECTORY`. Exit status 1 when one fails.
    """
    from guard_core.policy.bundle import load_bundle
    from guard_core.policy.rego_test import run_tests
    from guard_core.policy.samples import run_samples

    place = _directory(ctx.obj, directory)
    bundle = load_bundle(place)
    report = run_tests(bundle, match=match)
    samples = () if match else run_samples(bundle, place)
    wrong = [result for result in samples if result.problem]
    ok = report.ok and not wrong and report.percent >= threshold
    if output_format == "json":
        document = {
            **report.to_json(),
            "ok": ok,
            "threshold": threshold,
            "samples": [result.to_json() for result in samples],
        }
        echo_json(document)
    else:
        click.echo(_test_text(report, samples, threshold, matched=match))
    if not ok:
        ctx.exit(1)


def _test_text(report: TestReport, samples: tuple[SampleResult, ...], threshold: int, *, matched: str) -> str:
    lines = [
        f"{r.file}:{r.line}: {r.package}.{r.name}: {r.outcome.value}{': ' + r.error if r.error else ''}"
        for r in report.failed
    ]
    lines += [
        f"{result.sample.file}: {result.sample.title}: {result.problem}"
        for result in samples
        if result.problem
    ]
    for file, coverage in report.coverage.items():
        if coverage.missed:
            lines.append(f"{file}: {coverage.percent} % covered, not lines {_ranges(coverage.missed)}")
    passed = sum(r.outcome.value == "PASS" for r in report.results)
    if not report.results:
        lines.append(f"no test matches {matched!r}" if matched else "there are no tests")
    agreed = sum(not result.problem for result in samples)
    tail = f", at least {threshold} % asked" if threshold else ""
    lines.append(
        f"{passed} of {len(report.results)} tests passed, {agreed} of {len(samples)} samples as expected, "
        f"coverage {report.percent} %{tail}"
    )
    return "\n".join(lines)


def _ranges(numbers: tuple[int, ...]) -> str:
    from guard_core.findings import RowSet

    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in RowSet.of(numbers).ranges)


@policy.command()
@click.argument("decision_id")
@format_option("text", "json")
@click.pass_context
def why(ctx: click.Context, decision_id: str, output_format: str) -> None:
    """Explain a recorded decision: the rules that fired, what they saw, what would have been allowed."""
    from guard_core.policy.explanation import explain

    explanation = explain(ctx.obj.home(), decision_id)
    if output_format == "json":
        echo_json(explanation.to_json())
    else:
        click.echo(explanation.to_text())


@policy.command("serve-opa")
@click.option("--print", "only_print", is_flag=True, help="Print the command instead of running it.")
@click.pass_context
def serve_opa(ctx: click.Context, only_print: bool) -> None:
    """Serve the policies in force with a real OPA server, at policy.server_url, until interrupted.

    Needs the opa program (TRAINGUARD_OPA or PATH). With policy.server_token_file, the server answers only
    to that token, and only questions about policies of this bundle.
    """
    import os
    import shlex

    from guard_core.policy.engine import accepted
    from guard_core.policy.lifecycle.opening import bundle_of
    from guard_core.policy.serving import server_command
    from guard_core.policy.tools import opa_binary

    settings = ctx.obj.settings()
    opa = opa_binary()
    if opa is None:
        raise UserError("the opa program is not installed; put it on PATH or name it in TRAINGUARD_OPA")
    command = server_command(settings, accepted(bundle_of(ctx.obj.home())), opa)
    if only_print:
        click.echo(shlex.join(command))
        return
    click.echo(f"serving {settings.policy.server_url} (set policy.engine: server to use it)", err=True)
    os.execv(command[0], command)  # noqa: S606  # become the server: signals reach it directly
