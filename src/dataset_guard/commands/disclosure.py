"""``trainguard dataset canary``, ``memorised`` and ``disclosed``: where data has gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from guard_core.counting import counted, noun_for
from guard_core.output import format_option

_tenant = click.option("--tenant", metavar="T", help="Tenant to act for [your credential's]")
_path = click.Path(path_type=Path)


@click.group()
def canary() -> None:
    """Plant made-up rows in a copy of a set, and look for them elsewhere."""


@canary.command()
@click.argument("path", type=_path)
@click.argument("out", type=_path)
@click.option("--name", required=True, metavar="N", help="Who gets the copy.")
@click.option("--count", type=int, default=10, show_default=True, metavar="K", help="How many rows.")
@click.option("--column", metavar="COL", help="The text column to write in [the first].")
@_tenant
@click.pass_context
def add(ctx: click.Context, /, path: Path, out: Path, **options: Any) -> None:
    """Write the data at PATH with canary rows to OUT (.parquet, .csv or .jsonl)."""
    from dataset_guard.disclosure.canary import add as run

    planted = run(path, out, home=ctx.obj.home(), **options)
    click.echo(
        f"{planted.id}  {counted(len(planted.rows), 'row')} in column {planted.column!r} of {planted.path}"
    )


@canary.command("scan")
@click.argument("path", type=_path)
@_tenant
@format_option("text", "json")
@click.pass_context
def scan_(ctx: click.Context, path: Path, tenant: str | None, output_format: str) -> None:
    """Look for your canaries in PATH: a data file or folder, or any text file. Exit code 1 when one is
    there."""
    from dataset_guard.disclosure.canary import scan as run

    found = run(path, tenant=tenant, home=ctx.obj.home())
    if output_format == "json":
        _echo_json({"path": path.name, "found": [s.to_json() for s in found]})
    for sighting in found if output_format == "text" else ():
        where = "lines" if sighting.column is None else f"column {sighting.column!r}, rows"
        places = ", ".join(map(str, sighting.places[:20])) + (", ..." if len(sighting.places) > 20 else "")
        click.echo(f"{sighting.id}  {sighting.name}: {sighting.markers} markers in {where} {places}")
    if not found and output_format == "text":
        click.echo("no canary of yours is in it")
    ctx.exit(int(bool(found)))


@click.command()
@click.argument("outputs", type=_path)
@click.option("--against", required=True, metavar="N@V", help="The set that the model was trained on.")
@click.option(
    "--run", type=int, default=50, show_default=True, metavar="K", help="Tokens in a row that count."
)
@_tenant
@format_option("text", "json")
@click.pass_context
def memorised(
    ctx: click.Context, outputs: Path, against: str, run: int, tenant: str | None, output_format: str
) -> None:
    """Which OUTPUTS of a model (lines of text, or a data file) repeat N@V word for word? Exit code 1 if
    any."""
    from dataset_guard.disclosure.memorised import memorised as look

    found = look(outputs, against=against, run=run, tenant=tenant, home=ctx.obj.home())
    if output_format == "json":
        _echo_json(found.to_json())
    else:
        click.echo(f"{len(found.recitals):,} of {counted(found.outputs, 'output')} repeat {found.ref}")
        for recital in found.recitals[:50]:
            rows = ", ".join(map(str, recital.rows[:8]))
            of = noun_for(len(recital.rows), "row")
            click.echo(f"  output {recital.output}: {recital.longest_run} tokens in a row, of {of} {rows}")
    ctx.exit(int(bool(found.recitals)))


@click.command()
@click.argument("owner", metavar="T/N@V")
@click.argument("holder", metavar="T/N@V")
@click.option("--columns", metavar="A,B", help="Compare only these columns [all that both have].")
@format_option("text", "json")
@click.pass_context
def disclosed(ctx: click.Context, owner: str, holder: str, columns: str | None, output_format: str) -> None:
    """Are rows of one tenant's set in another tenant's? For platform admins. Exit code 1 if any are."""
    from dataset_guard.disclosure.disclosed import disclosed as compare

    names = tuple(part.strip() for part in (columns or "").split(",") if part.strip())
    found = compare(owner, holder, columns=names, home=ctx.obj.home())
    if output_format == "json":
        _echo_json(found.to_json())
    else:
        for side, other in ((found.owner, found.holder), (found.holder, found.owner)):
            click.echo(f"{side.ref}: {len(side.shared):,} of its {side.rows:,} rows are also in {other.ref}")
    ctx.exit(int(bool(len(found.owner.shared))))


def _echo_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


COMMANDS = (canary, memorised, disclosed)
