"""``trainguard dataset validate`` and ``suggest-suite``: suites of Great Expectations as contracts."""

from __future__ import annotations

import json
from pathlib import Path

import click

from guard_core.counting import counted
from guard_core.output import format_option

_tenant = click.option("--tenant", metavar="T", help="Tenant to act for [your credential's]")
_file = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("data", metavar="PATH|N@V")
@click.option("--suite", type=_file, required=True, metavar="FILE", help="Great Expectations suite (JSON).")
@click.option("--docs", type=_file, metavar="FILE", help="Write the page of the result here (HTML).")
@_tenant
@format_option("text", "json")
@click.pass_context
def validate(
    ctx: click.Context, data: str, suite: Path, docs: Path | None, tenant: str | None, output_format: str
) -> None:
    """Check a file, or a registered version, against a suite; JSON is Great Expectations' own result."""
    from dataset_guard.commands.progress import shown
    from dataset_guard.commands.text import validation_text
    from dataset_guard.validation import is_reference
    from dataset_guard.validation import validate as run

    home = ctx.obj.home() if is_reference(data) else None
    with shown() as show:
        found = run(data, suite, tenant=tenant, home=home, progress=lambda r, n: show("validate", r, n))
    if docs is not None:
        from guard_core.output.html import write

        write(docs, found.to_html())
        click.echo(f"the page is {docs}", err=True)
    if output_format == "json":
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(validation_text(found))
    ctx.exit(0 if found.success else 1)


@click.command("suggest-suite")
@click.argument("ref", metavar="N@V")
@click.option("--values", is_flag=True, help="Also list the values of columns that have few: real data.")
@click.option("--out", type=_file, metavar="FILE", help="Write the suite here [standard output].")
@_tenant
@click.pass_context
def suggest_suite(ctx: click.Context, ref: str, values: bool, out: Path | None, tenant: str | None) -> None:
    """Suggest a Great Expectations suite that N@V meets, for you to edit and keep."""
    from dataset_guard.validation import suggest_suite as run
    from dataset_guard.validation import write_suite

    suite = run(ref, values=values, tenant=tenant, home=ctx.obj.home())
    if out is None:
        click.echo(json.dumps(suite, indent=2, ensure_ascii=False, allow_nan=False))
        return
    write_suite(suite, out)
    many = counted(len(suite["expectations"]), "expectation")
    click.echo(f"wrote {many} from {ref} to {out}", err=True)


COMMANDS = (validate, suggest_suite)
