"""``trainguard dataset runs``: which MLflow runs used a version, and marking them when it was bad."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from guard_core.counting import counted
from guard_core.output import format_option


@click.command()
@click.argument("ref", metavar="N@V")
@click.option(
    "--mlflow",
    "tracking_uri",
    metavar="URI",
    envvar="MLFLOW_TRACKING_URI",
    show_envvar=True,
    help="MLflow's address [MLflow's own default]",
)
@click.option("--mark", is_flag=True, help="Tag them guard.tainted_by, and put that in the audit log.")
@click.option("--reason", default="", help="Why, for a version whose verdict was allow or warn.")
@click.option("--tenant", metavar="T", help="Tenant to act for [your credential's]")
@format_option("text", "json")
@click.pass_context
def runs(
    ctx: click.Context,
    ref: str,
    tracking_uri: str | None,
    mark: bool,
    reason: str,
    tenant: str | None,
    output_format: str,
) -> None:
    """List the MLflow runs that logged the content of N@V, under any name; with --mark, tag them."""
    from dataset_guard.integrations.mlflow_lineage import mark_runs, runs_using
    from dataset_guard.reads.access import stored_report
    from dataset_guard.registry.caller import caller_of
    from dataset_guard.registry.store import Registry
    from guard_core.errors import UserError

    home = ctx.obj.home()
    principal = caller_of(home, ref, tenant=tenant)
    report = stored_report(Registry(home).reference(ref, tenant=principal.tenant))
    if reason and not mark:
        raise click.UsageError("--reason says why runs are marked: add --mark")
    if mark:
        try:
            found = mark_runs(report, reason=reason, tracking_uri=tracking_uri, home=home)
        except ValueError as error:
            raise UserError(f"{error}, with --reason") from error
    else:
        found = runs_using(report.digest, tracking_uri=tracking_uri)
    if output_format == "json":
        click.echo(json.dumps([asdict(use) for use in found], indent=2))
        return
    for use in found:
        marks = f"  tainted by {', '.join(use.marks)}" if use.marks else ""
        click.echo(
            f"{use.run_id}  {use.run_name}  {use.user}  {use.status}  {', '.join(use.contexts)}{marks}"
        )
    what = f"logged the content of {report.ref} ({report.digest})"
    click.echo(f"{counted(len(found), 'run')} {what}{', now marked' * mark}", err=True)


COMMANDS = (runs,)
