"""``trainguard dataset reads``: who read a version, when, how much, and whether it was stopped."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from guard_core.output import echo_json, format_option


@click.command()
@click.argument("ref", metavar="N[@V]")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]),
    metavar="TIME",
    help="Leave out what was before (UTC): 2026-11-23 or 2026-11-23T04:05:06Z.",
)
@click.option("--tenant", metavar="T", help="Tenant to act for [your credential's]")
@format_option("text", "json")
@click.pass_context
def reads(
    ctx: click.Context, ref: str, since: datetime | None, tenant: str | None, output_format: str
) -> None:
    """List who read N@V (or any version of N): when, for what, how many rows, and how it ended."""
    from dataset_guard.commands.text import reads_text
    from dataset_guard.reads.on_record import reads_of

    moment = None if since is None else since.replace(tzinfo=UTC)
    found = reads_of(ctx.obj.home(), ref, tenant=tenant, since=moment)
    if output_format == "json":
        echo_json([read.to_json() for read in found])
        return
    if not found:
        click.echo(f"nobody read {ref} through TrainGuard{' since then' * (since is not None)}", err=True)
        return
    click.echo(reads_text(found))


COMMANDS = (reads,)
