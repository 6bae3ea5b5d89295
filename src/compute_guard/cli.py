"""``trainguard compute``: a guarded local cluster, quotas, and why a job waits."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compute_guard.cluster.connection import PERIOD_MS
from compute_guard.monitoring.cli import metrics, monitor, top
from compute_guard.quota.cli import history, quota_set, simulate
from guard_core.counting import counted
from guard_core.errors import GuardError, UserError
from guard_core.output import format_option
from guard_core.output.text import aligned

if TYPE_CHECKING:
    from guard_core.home import Home

PROFILES = ("observe-and-stop", "gate", "hardened")
LABELS = {
    "observe-and-stop": {"job_api_admission": "cooperative", "reconciler": "detective"},
    "gate": {
        "job_api_admission": "cooperative",
        "gcs_gateway": "cooperative",
        "lease_gateway": "cooperative",
        "reconciler": "detective",
    },
    "hardened": {
        "job_api_admission": "enforced",
        "gcs_gateway": "enforced",
        "lease_gateway": "enforced",
        "reconciler": "detective",
    },
}
"""Shown with every profile. Short of *hardened*, tenants run as Ray's user and can read its token."""


@click.group()
def compute() -> None:
    """Admission, quota and isolation on Ray."""


@compute.command()
@click.option(
    "--num-cpus", type=click.IntRange(min=0), help="Logical CPUs; Ray counts the machine's without."
)
@click.option(
    "--num-gpus", type=click.IntRange(min=0), help="Logical GPUs; Ray counts the machine's without."
)
@click.option(
    "--object-store-memory",
    "object_store",
    type=click.IntRange(min=80_000_000),
    help="Bytes of object store.",
)
@click.option(
    "--period-ms",
    type=click.IntRange(min=50),
    default=PERIOD_MS,
    show_default=True,
    help="Time between two rounds of admission and reconciliation.",
)
@click.option("--profile", type=click.Choice(PROFILES), default=PROFILES[0], show_default=True)
@click.option("--nodes", type=click.IntRange(1, 32), help="Nodes beside the head, for profiles with gates.")
@click.option(
    "--pool",
    "pools",
    multiple=True,
    help="Pool (nodes.yaml) of one node each, in order; `shared` for the rest.",
)
@format_option("text", "json")
@click.pass_context
def up(
    ctx: click.Context,
    num_cpus: int | None,
    num_gpus: int | None,
    object_store: int | None,
    period_ms: int,
    profile: str,
    nodes: int | None,
    pools: tuple[str, ...],
    output_format: str,
) -> None:
    """Start a guarded Ray cluster on this machine: a head, and with gates any number of nodes."""
    from compute_guard.cluster import local_cluster
    from compute_guard.cluster.connection import load_cluster

    wanted = _node_pools(profile, nodes, pools)
    known = ctx.obj.home().policy_data()["nodes"]["pools"] if wanted else {}
    if strange := [pool for pool in wanted if pool not in known]:
        raise UserError(f"pool {strange[0]} is not in nodes.yaml, which has {', '.join(sorted(known))}")
    running = load_cluster(ctx.obj.home().path("ray"))
    if running is None:
        click.echo("starting a Ray head (this takes some seconds) ...", err=True)
    cluster = local_cluster.up(
        ctx.obj.home(),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        object_store_bytes=object_store,
        period_ms=period_ms,
        profile=profile,
        pools=wanted,
    )
    said = ctx.get_parameter_source("profile") is not click.core.ParameterSource.DEFAULT
    if cluster == running and said and cluster.profile != profile:
        raise UserError(
            f"a cluster of this home runs already, with profile {cluster.profile}; end it first: "
            "trainguard compute down"
        )
    if output_format == "json":
        click.echo(
            json.dumps(
                {
                    "address": cluster.submit_address,
                    "dashboard": cluster.dashboard,
                    "gcs_address": cluster.gcs_address,
                    "profile": cluster.profile,
                    "enforcement": LABELS[cluster.profile],
                }
            )
        )
        return
    already = ", running already" if cluster == running else ""
    click.echo(f"guarded Ray head at {cluster.dashboard} (profile {cluster.profile}{already})")
    click.echo("a credential:  export TRAINGUARD_TOKEN=$(trainguard tenant issue acme --user $USER)")
    click.echo(f"the address:   export RAY_ADDRESS={cluster.submit_address}")
    click.echo("a job:         ray job submit --entrypoint-num-cpus 1 -- python train.py")
    click.echo("the end:       trainguard compute down")


def _node_pools(profile: str, nodes: int | None, pools: tuple[str, ...]) -> tuple[str, ...]:
    if profile == PROFILES[0]:
        if nodes or pools:
            raise click.UsageError("--nodes and --pool need --profile gate or hardened")
        return ()
    count = nodes or max(1, len(pools))
    if len(pools) > count:
        raise click.UsageError(f"--pool is given {counted(len(pools), 'time')} for {counted(count, 'node')}")
    return (*pools, *("shared",) * (count - len(pools)))


@compute.command()
@click.pass_context
def down(ctx: click.Context) -> None:
    """End the local cluster: the processes `up` started, and no others."""
    from compute_guard.cluster import local_cluster

    ended = local_cluster.down(ctx.obj.home())
    told = f"{counted(ended, 'process', 'processes')} ended"
    click.echo(told if ended else "there is no cluster of this home")


@compute.command()
@format_option("text", "json")
@click.pass_context
def status(ctx: click.Context, output_format: str) -> None:
    """Say what is really running: cluster, guard, profile and jobs by state."""
    from compute_guard.cluster import local_cluster
    from compute_guard.ledger.store import Ledger

    home: Home = ctx.obj.home()
    seen = local_cluster.status(home)
    counts = Counter(entry.state.value for entry in Ledger(home.storage).entries())
    if output_format == "json":
        shape: dict[str, Any] = {
            "running": seen.answers,
            "guarded": seen.guarded,
            "processes": seen.processes,
            "dashboard": seen.cluster.dashboard if seen.cluster else None,
            "address": seen.cluster.submit_address if seen.cluster else None,
            "profile": seen.cluster.profile if seen.cluster else None,
            "enforcement": LABELS[seen.cluster.profile if seen.cluster else PROFILES[0]],
            "jobs": dict(counts),
        }
        click.echo(json.dumps(shape))
        return
    if seen.cluster is None:
        click.echo("no cluster of this home; start one: trainguard compute up")
    else:
        away = "does not answer (start it anew: trainguard compute up)"
        state = "guarded" if seen.guarded else "NOT guarded" if seen.answers else away
        alive = counted(seen.processes, "process", "processes")
        click.echo(f"cluster  {seen.cluster.dashboard}: {state}, {alive}")
        labels = ", ".join(
            f"{name.replace('_', ' ')} {label}" for name, label in LABELS[seen.cluster.profile].items()
        )
        click.echo(f"profile  {seen.cluster.profile} ({labels})")
    click.echo("jobs     " + (", ".join(f"{n} {state}" for state, n in sorted(counts.items())) or "none yet"))


@compute.command("rotate-token")
@click.argument("tenant")
@click.option("--end-grace", is_flag=True, help="Also stop accepting the token before this one.")
@click.pass_context
def rotate_token(ctx: click.Context, tenant: str, end_grace: bool) -> None:
    """Give TENANT's workers a new token. Nothing is restarted; running workers keep the one they have."""
    from compute_guard.cluster import local_cluster

    local_cluster.rotate_token(ctx.obj.home(), tenant, end_grace=end_grace)
    click.echo(f"{tenant}: new workers get a new token" + (", the old one has ended" if end_grace else ""))


@compute.group()
def quota() -> None:
    """Queues, what they may use and what they use."""


@quota.command("show")
@click.option("--tenant", help="Only the queues of this tenant.")
@format_option("text", "json")
@click.pass_context
def quota_show(ctx: click.Context, tenant: str | None, output_format: str) -> None:
    """Show nominal quota, use, borrowing and what is available now."""
    from compute_guard.admission.gateway import Gateway
    from compute_guard.admission.why import quota_table

    home: Home = ctx.obj.home()
    principal = home.principal(tenant=tenant)
    gateway = Gateway(home)
    quotas = gateway.quotas()
    rows = quota_table(quotas, gateway.snapshot(quotas))
    if tenant is not None or not principal.is_platform_admin:
        rows = [row for row in rows if row["tenant"] == principal.tenant]
    if output_format == "json":
        click.echo(json.dumps({"queues": rows}))
        return
    for line in _table(rows):
        click.echo(line)
    for line in _shares(rows):
        click.echo(line)


def _shares(rows: list[dict[str, Any]]) -> list[str]:
    """Fair share and budgets, one line for each queue that has to do with either."""
    queues = {row["queue"]: row for row in rows}.values()
    some = any(row["share"] for row in rows)
    lines = [
        f"{row['queue']}: weight {row['weight']}, "
        f"had {row['share_percent']} % of what the first had for its weight"
        for row in queues
        if row["cohort"] and some
    ]
    lines += [
        f"{row['queue']}: {row['budget_used_gpu_hours']} of {row['budget_gpu_hours']} GPU-hours used"
        for row in queues
        if row["budget_gpu_hours"] is not None
    ]
    return ["", *lines] if lines else []


def _table(rows: list[dict[str, Any]]) -> list[str]:
    from compute_guard.admission.assessment import amount, spoken

    def shown(row: dict[str, Any], key: str) -> str:
        return "no limit" if row[key] is None else amount(row["resource"], row[key])

    head = ("queue", "resource", "nominal", "used", "borrowed", "available", "may borrow", "lends")
    lines = [
        (
            row["queue"] + (" (on hold)" if row["hold"] else ""),
            spoken(row["resource"]),
            shown(row, "nominal"),
            shown(row, "used"),
            shown(row, "borrowed"),
            amount(row["resource"], max(0, row["available"])),
            shown(row, "borrowing_limit") if row["cohort"] else "-",
            shown(row, "lending_limit") if row["cohort"] else "-",
        )
        for row in rows
    ]
    return aligned([head, *lines])


@compute.command()
@click.argument("job")
@format_option("text", "json")
@click.pass_context
def why(ctx: click.Context, job: str, output_format: str) -> None:
    """Say which rule holds JOB, the numbers, who is ahead, and what would fit now."""
    from compute_guard.admission.why import why as tell
    from compute_guard.admission.why import why_text

    home: Home = ctx.obj.home()
    story = tell(home, job, home.principal())
    if output_format == "json":
        click.echo(json.dumps(story))
        return
    for line in why_text(story):
        click.echo(line)


@compute.command()
@click.option(
    "--target",
    type=click.Choice(("ray-start", "ray-up", "kuberay")),
    default="ray-start",
    show_default=True,
    help="How the cluster is started.",
)
@click.option("--profile", type=click.Choice(PROFILES), default=PROFILES[0], show_default=True)
@click.option(
    "--token-file",
    default="/etc/ray/auth_token",
    show_default=True,
    help="Where Ray's processes find the cluster's own token (0600, on every node). Where ray-up runs Ray as "
    "its ssh user: ~/.ray/auth_token.",
)
@click.option("--head", help="With gates: the address or name by which every machine reaches the head.")
@click.option("--pool", "pools", multiple=True, help="With gates: pools of the nodes.  [default: shared]")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="With gates: the folder to write (0700)."
)
@click.option("--tenant", help="A cluster that serves this tenant only, beside others with the same quotas.")
@click.pass_context
def install(
    ctx: click.Context,
    target: str,
    profile: str,
    token_file: str,
    head: str | None,
    pools: tuple[str, ...],
    out: Path | None,
    tenant: str | None,
) -> None:
    """Write what a cluster that you start yourself needs to be guarded. Starts and changes nothing."""
    from compute_guard.cluster.install import (
        HEAD_HOME,
        HEAD_NAME,
        USER_HOME,
        USER_TOKEN,
        Kit,
        instructions,
        next_steps,
        unknown,
        write_kit,
    )
    from compute_guard.cluster.ray_start import guarded_environment
    from guard_core.policy.engine import bundle_in_force

    if profile == PROFILES[0] and (out or head or pools):
        raise click.UsageError("--out, --head and --pool need --profile gate or hardened")
    settings, origins = ctx.obj.settings_with_origins()
    as_user = target == "ray-up" and profile == PROFILES[0]
    if as_user and ctx.get_parameter_source("token_file") is click.core.ParameterSource.DEFAULT:
        token_file = USER_TOKEN
    environment = guarded_environment(settings, token_file, tenant=tenant or "")
    if target != "ray-start" and origins["home"] == "default":
        environment["TRAINGUARD_HOME"] = USER_HOME if as_user else HEAD_HOME
    with contextlib.suppress(GuardError):  # the cluster's storage need not be within reach from here
        data = ctx.obj.home().policy_data() if settings.home.exists() else bundle_in_force(settings).config
        for sentence in unknown(data, pools=pools, tenant=tenant):
            click.echo(f"note: {sentence}", err=True)
    if profile == PROFILES[0]:
        click.echo(instructions(target, environment), nl=False)
        return
    if out is None or (head is None and target == "ray-start"):
        raise click.UsageError(f"--profile {profile} needs --out FOLDER and, with ray-start, --head ADDRESS")
    kit = Kit(
        target=target,
        profile=profile,
        head=head or HEAD_NAME,
        pools=pools or ("shared",),
        environment=environment,
    )
    for file in write_kit(kit, out):
        click.echo(f"wrote {file}")
    click.echo("it holds the cluster's own token: keep it from everybody but root")
    click.echo(f"next: {next_steps(target, out)}; then prove it on the head: trainguard doctor")


compute.add_command(simulate)
compute.add_command(history)
quota.add_command(quota_set)
compute.add_command(monitor)
compute.add_command(top)
compute.add_command(metrics)
