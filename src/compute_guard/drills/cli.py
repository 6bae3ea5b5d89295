"""``trainguard drill``: rehearse an incident on a canary tenant, now or as usage.yaml schedules it.

Running one needs a platform admin, an incident approver or an incident responder. Heavy parts load when a
command runs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from compute_guard.incidents.access import needs
from guard_core.output import echo_json, format_option

if TYPE_CHECKING:
    from compute_guard.drills.drill import DrillReport
    from guard_core.home import Home
    from guard_core.identity import Principal


@click.group()
def drill() -> None:
    """Rehearse incidents against a canary tenant."""


@drill.command("list")
@format_option("text", "json")
def drill_list(output_format: str) -> None:
    """List the drills."""
    from compute_guard.drills.drill import DRILLS

    if output_format == "json":
        echo_json([{"name": d.name, "title": d.title, "kind": d.kind} for d in DRILLS.values()])
        return
    for each in DRILLS.values():
        click.echo(f"{each.name:20} {each.title}")


@drill.command("run")
@click.argument("name")
@click.option("--tenant", required=True, help="A tenant that tenants.yaml flags `canary: true`.")
@click.option("--seed", type=int, default=1, show_default=True)
@format_option("text", "json")
@click.pass_context
def drill_run(ctx: click.Context, name: str, tenant: str, seed: int, output_format: str) -> None:
    """Run a drill and report how long it took to detect, notify and contain."""
    home = ctx.obj.home()
    who = home.principal()
    needs(who, "run a drill")
    report = _rehearsed(home, who, name, tenant, seed=seed)
    if output_format == "json":
        echo_json(report.to_json())
    else:
        for field, value in report.to_json().items():
            shown = ", ".join(value) if isinstance(value, (list, tuple)) else value
            click.echo(f"{field:20} {'-' if shown in (None, '') else shown}")
    ctx.exit(0 if report.passed else 1)


@drill.command("due")
@click.option("--run", "do_run", is_flag=True, help="Run what is due now, for cron or a timer.")
@format_option("text", "json")
@click.pass_context
def drill_due(ctx: click.Context, do_run: bool, output_format: str) -> None:
    """Show scheduled drills (usage.yaml) and which are due. With --run: exit code 1 when one fails."""
    from compute_guard.drills.schedule import planned, run_due

    home = ctx.obj.home()
    who = home.principal()
    needs(who, "run drills")
    reports = run_due(home, partial(_rehearsed, home, who), home.clock()) if do_run else []
    now = home.clock()
    rows = [plan.to_json(now) for plan in planned(home)]
    if output_format == "json":
        echo_json({"schedule": rows, "ran": [report.to_json() for report in reports]})
    else:
        for row in rows:
            went = {None: "never run", True: "passed", False: "NOT PASSED"}[row["passed"]]
            due = "due" if row["due"] else ""
            every = f"every {row['every_hours']:g} h"
            click.echo(f"{row['name']:20} {row['tenant']:12} {every:14} {went:11} {due}".rstrip())
        if not rows:
            click.echo("no drills are scheduled; add some to usage.yaml", err=True)
    ctx.exit(1 if any(not report.passed for report in reports) else 0)


def _rehearsed(home: Home, who: Principal, name: str, tenant: str, *, seed: int = 1) -> DrillReport:
    """The report of a drill, with a job of the canary's on the home's cluster when one is running."""
    from compute_guard.cluster.connection import load_cluster, running_cluster
    from compute_guard.drills.drill import run, submit_over_http

    cluster = load_cluster(home.path("ray"))
    submit = None if cluster is None else submit_over_http(home, tenant, cluster.dashboard)
    return run(home, name, tenant, cluster=running_cluster(home), submit=submit, seed=seed, principal=who)
