"""``trainguard compute monitor``: watch the accelerators of the home's cluster and respond."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from guard_core.errors import Denied, UserError
from guard_core.output import format_option

if TYPE_CHECKING:
    from compute_guard.incidents.incident import Incident
    from compute_guard.incidents.observations import Observation
    from compute_guard.monitoring.live import Watch
    from guard_core.home import Home


@click.command()
@click.option(
    "--source",
    type=click.Choice(("nvml", "prometheus", "replay")),
    default="prometheus",
    show_default=True,
    help="Where readings come from; prometheus without a TARGET is Ray's own endpoint of every node.",
)
@click.argument("targets", nargs=-1)
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=15.0, show_default=True, help="Seconds per scrape."
)
@click.option("--once", is_flag=True, help="One scrape, then end.")
@click.option("--dry-run", is_flag=True, help="Judge only: nothing is stored, opened or done.")
@click.option("--leases", type=click.Path(path_type=Path), help="Who held what in a recording (JSON).")
@format_option("text", "json")
@click.pass_context
def monitor(
    ctx: click.Context,
    source: str,
    targets: tuple[str, ...],
    interval: float,
    once: bool,
    dry_run: bool,
    leases: Path | None,
    output_format: str,
) -> None:
    """Watch accelerators, open incidents, respond. SIGTERM ends it cleanly.

    TARGETS are exporters' addresses (prometheus) or one recording (replay). A recording is only judged.
    """
    from contextlib import nullcontext

    from compute_guard.monitoring.live import only_one

    home: Home = ctx.obj.home()
    if not home.principal().is_platform_admin:
        raise Denied("only a platform admin may run the monitor of this home")
    stop = threading.Event()
    dry = dry_run or source == "replay"
    watch = _watch(home, source, targets, interval, dry, leases, stop, quiet=output_format == "json")
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        with nullcontext() if dry else only_one(home):
            watch.run(once=once)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if leases is not None and (unseen := watch.monitor.unseen()):
        click.echo(
            f"{leases} names {unseen[0]!r}, which no reading is of; devices here are NODE/UUID, "
            f"such as {min(watch.monitor.devices_seen(), default='none')!r}",
            err=True,
        )
    if output_format == "json":
        click.echo(json.dumps({**watch.monitor.report().to_json(), "dry_run": dry}))
    else:
        report = watch.monitor.report()
        click.echo(f"{watch.scrapes} scrapes, {report.samples} samples of {report.devices} GPUs", err=True)


def _watch(
    home: Home,
    source: str,
    targets: tuple[str, ...],
    interval: float,
    dry: bool,
    leases: Path | None,
    stop: threading.Event,
    *,
    quiet: bool,
) -> Watch:
    from compute_guard.monitoring.live import Fleet, Watch, exporters_of_cluster, read_leases
    from compute_guard.monitoring.monitor import Attribution, Monitor
    from compute_guard.usage.attribution import LeaseBook
    from compute_guard.usage.sources import Source

    def pause(seconds: float) -> None:
        stop.wait(seconds)

    step_ns = int(interval * 1e9)
    feed: Source
    attribution: Attribution
    cluster: Any = None
    activity: Any = None
    if source == "replay":
        from compute_guard.usage.sources.replay import ReplaySource

        if len(targets) != 1:
            raise UserError("a replay needs exactly one recording: monitor --source replay FILE")
        feed = ReplaySource(Path(targets[0]), step_ns)
        attribution = read_leases(leases) if leases is not None else LeaseBook()
    else:
        if leases is not None:
            raise UserError("--leases belongs to --source replay; a live monitor asks Ray who holds what")
        if source == "nvml":
            from compute_guard.usage.sources.nvml import NvmlSource

            if targets:
                raise UserError("--source nvml reads this machine and takes no address")
            nvml = NvmlSource(interval_s=interval, sleep=pause)
            if (problem := nvml.unavailable()) is not None:
                raise UserError(f"{problem.reason}; {problem.remedy}")
            feed = nvml
        else:
            given = [(url, "") for url in targets]
            feed = Fleet((lambda: given) if given else exporters_of_cluster(home), interval, pause)
        from compute_guard.cluster.connection import load_cluster
        from compute_guard.ray_plugin.collector import LiveBook
        from compute_guard.ray_plugin.jobs import RayCluster

        if load_cluster(home.path("ray")) is None:
            raise UserError("there is no cluster of this home; start one: trainguard compute up")
        from compute_guard.monitoring.activity_feed import ActivityFeed

        book = LiveBook(home)
        attribution, cluster = book, RayCluster(home)
        activity = ActivityFeed(home, lambda: book.held)
    monitor = Monitor(home, attribution, cluster, step_ns=step_ns, respond=not dry, record=not dry)
    if activity is not None:
        monitor.activity = activity
    post = None
    if monitor.record:
        from compute_guard.routes.courier import Post

        post = Post(home)
    return Watch(
        monitor,
        feed,
        attribution,
        stopped=stop.is_set,
        say=lambda text: click.echo(f"monitor: {text}", err=True),
        on_incident=lambda incident: None if quiet else _incident_line(incident),
        on_observation=lambda observation: None if quiet else _observation_line(observation),
        live=source != "replay",
        post=post,
    )


def _incident_line(found: Incident) -> None:
    made_up = "  (exercise)" if found.synthetic else ""
    place = f"{found.tenant}/{found.job}"
    click.echo(f"{found.id}  {found.severity:8}  {found.state.value:12}  {found.kind}  {place}{made_up}")


def _observation_line(seen: Observation) -> None:
    from compute_guard.incidents.incident import severity_of

    severity = severity_of(seen.channels, invariant=seen.invariant, confirmed=False)
    messages = "; ".join(str(channel["message"]) for channel in seen.channels.values())
    made_up = "  (exercise)" if seen.synthetic else ""
    click.echo(f"dry run   {severity:8}  {seen.kind}  {seen.tenant}/{seen.job}: {messages}{made_up}")


@click.command()
@click.option("--once", is_flag=True, help="One picture, then end.")
@click.option(
    "--interval", type=click.FloatRange(min=0.2), default=2.0, show_default=True, help="Seconds per picture."
)
@click.option("--tenant", help="Only this tenant's part.")
@format_option("text", "json")
@click.pass_context
def top(ctx: click.Context, once: bool, interval: float, tenant: str | None, output_format: str) -> None:
    """Show tenants, jobs, GPUs, quota and anomalies, live. Plain text where there is no terminal."""
    import sys
    import time

    from compute_guard.monitoring.top import lines, look, picture, table

    home: Home = ctx.obj.home()
    who = home.principal(tenant=tenant)
    own = tenant if who.is_platform_admin else who.tenant
    if output_format == "json":
        click.echo(json.dumps(picture(home, look(home), tenant=own).to_json()))
        return
    if not sys.stdout.isatty():
        while True:
            click.echo("\n".join(lines(picture(home, look(home), tenant=own))))
            if once:
                return
            time.sleep(interval)
    from rich.live import Live

    with Live(table(picture(home, look(home), tenant=own)), auto_refresh=False) as screen:
        while not once:
            time.sleep(interval)
            screen.update(table(picture(home, look(home), tenant=own)), refresh=True)


@click.command()
@click.pass_context
def metrics(ctx: click.Context) -> None:
    """Print TrainGuard's own metrics in Prometheus' text format (for a textfile collector)."""
    from compute_guard.monitoring.metrics import exposition

    home: Home = ctx.obj.home()
    if not home.principal().is_platform_admin:
        raise Denied("only a platform admin may read the metrics of all tenants")
    click.echo(exposition(home), nl=False)
