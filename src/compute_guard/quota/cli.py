"""``trainguard compute simulate | history | quota set``: what-if questions, their traces, and changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from guard_core.counting import counted
from guard_core.errors import UserError
from guard_core.output import format_option
from guard_core.output.text import aligned

if TYPE_CHECKING:
    from compute_guard.quota.edit import Change
    from compute_guard.quota.limits import Quotas
    from compute_guard.replay.simulate import Outcome
    from guard_core.home import Home


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "--quota",
    "quota_files",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A quotas.yaml to try; several are shown one after the other. The quotas in force without.",
)
@click.option(
    "--trace-format",
    type=click.Choice(("auto", "ledger", "philly", "openb")),
    default="auto",
    show_default=True,
    help="What TRACE is.",
)
@click.option(
    "--engine",
    type=click.Choice(("auto", "interpreted", "compiled")),
    default="auto",
    show_default=True,
    help="Compiled code is faster on long traces; the answers are the same.",
)
@click.option(
    "--no-checkpoints", is_flag=True, help="A job that is taken out loses its work and begins anew."
)
@format_option("text", "json")
@click.pass_context
def simulate(
    ctx: click.Context,
    trace: Path,
    quota_files: tuple[Path, ...],
    trace_format: str,
    engine: str,
    no_checkpoints: bool,
    output_format: str,
) -> None:
    """Replay TRACE under other quotas: who would have waited how long, and what would have stood idle.

    TRACE is a file of `trainguard compute history`, a folder of Philly traces or an openb pod list.
    """
    from compute_guard.replay.simulate import simulate as run
    from compute_guard.replay.traces import read_trace

    read = read_trace(trace, trace_format)
    named = [(str(file), _quotas_in(file)) for file in quota_files] or [
        ("in force", _in_force(ctx.obj.home()))
    ]
    outcomes = [(name, run(read, quotas, engine=engine, keeps=not no_checkpoints)) for name, quotas in named]
    if output_format == "json":
        click.echo(json.dumps({"outcomes": [{"quota": name, **one.to_json()} for name, one in outcomes]}))
        return
    for name, outcome in outcomes:
        for line in _told(name, outcome):
            click.echo(line)


def _quotas_in(file: Path) -> Quotas:
    from compute_guard.quota.limits import Quotas
    from guard_core.policy.bundle import read_data

    if not file.exists():
        raise UserError(f"{file} does not exist")
    value = read_data(file, "quotas")
    try:
        return Quotas.from_config(value)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def _in_force(home: Home) -> Quotas:
    from compute_guard.admission.gateway import Gateway

    return Gateway(home).quotas()


def _told(name: str, outcome: Outcome) -> Iterator[str]:
    from compute_guard.admission.assessment import spoken

    use = ", ".join(f"{spoken(resource)} {value:g} %" for resource, value in outcome.use_percent.items())
    yield f"quota {name}: {counted(outcome.jobs, 'job')} of {outcome.source}"
    yield (
        f"  finished      {outcome.finished:,}, rejected {outcome.rejected:,}, "
        f"taken out {counted(outcome.taken_out, 'time')}"
        + (f", {outcome.waiting:,} still waiting at the end" if outcome.waiting else "")
    )
    yield (
        f"  wait          mean {_time(outcome.wait_mean_s)}, half within {_time(outcome.wait_p50_s)}, "
        f"nine of ten within {_time(outcome.wait_p90_s)}"
    )
    yield f"  in use        {use} over {_time(outcome.makespan_s)}"
    rounds = counted(outcome.cycles, "round")
    yield f"  replayed      {outcome.jobs_per_second:,} jobs/s ({outcome.engine}, {rounds})"
    for reason, count in outcome.left_out.items():
        yield f"  left out      {count:,}: {reason}"
    yield ""
    head = ("queue", "jobs", "finished", "rejected", "taken out", "mean wait", "p90 wait", "in use")
    rows = [
        (
            one.queue,
            *(f"{count:,}" for count in (one.jobs, one.finished, one.rejected, one.taken_out)),
            _time(one.wait_mean_s),
            _time(one.wait_p90_s),
            ", ".join(f"{spoken(r)} {v:g} %" for r, v in one.use_percent.items() if r != "jobs"),
        )
        for one in outcome.queues
        if one.jobs
    ]
    yield from aligned([head, *rows])
    yield ""


def _time(seconds: float) -> str:
    if seconds >= 172_800:
        return f"{seconds / 86_400:.1f} d"
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.1f} s"


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to write."
)
@click.pass_context
def history(ctx: click.Context, out: Path) -> None:
    """Write the ledger's ended jobs as a trace, for `simulate`: arrival, run time, request, queue, user."""
    from compute_guard.admission.workload import WorkloadState
    from compute_guard.ledger.store import Ledger
    from guard_core.errors import Denied
    from guard_core.files import write_atomic

    home: Home = ctx.obj.home()
    if not home.principal().is_platform_admin:
        raise Denied("the history of all tenants is for platform admins")
    entries = Ledger(home.storage, home.clock).entries(states=[WorkloadState.FINISHED])
    lines = []
    for entry in entries:
        if entry.admitted_ms is None or entry.finished_ms is None:
            continue
        job = {
            "id": entry.id,
            "queue": entry.workload.queue,
            "user": entry.workload.user,
            "arrival_ms": entry.created_ms,
            "run_ms": max(1, entry.finished_ms - entry.admitted_ms),
            "requests": dict(entry.workload.requests),
            "priority": entry.workload.priority,
            "flavors": list(entry.workload.flavors),
        }
        lines.append(json.dumps(job) + "\n")
    try:
        write_atomic(out, "".join(lines).encode(), mode=0o600)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror or error})") from error
    then = f"try: trainguard compute simulate {out} --quota FILE" if lines else "no job has ended yet"
    click.echo(f"{counted(len(lines), 'job')} in {out}; {then}")


@click.command("set")
@click.argument("queue")
@click.argument("what")
@click.argument("value")
@click.pass_context
def quota_set(ctx: click.Context, queue: str, what: str, value: str) -> None:
    """Set WHAT of QUEUE to VALUE in quotas.yaml, checked before it counts.

    \b
    gpu_milli.nominal 8000            a resource's nominal, borrowing_limit or lending_limit (none: no limit)
    gpu_milli@a100.nominal 8000       the same of a flavor
    weight 2                          weight, max_pending, per_user.jobs
    preemption.grace_seconds 120      any value of preemption
    budget.gpu_hours 500              any value of budget; `budget none` ends it

    With a policy directory in the settings its file is changed. Otherwise the change is staged in shadow;
    look at it and put it in force with: trainguard policy replay, approve, promote.
    """
    from compute_guard.quota.edit import set_quota

    home: Home = ctx.obj.home()
    principal = home.principal()
    if not principal.is_platform_admin:
        from guard_core.errors import Denied

        raise Denied(
            f"quotas are set by platform admins, and the credential in use is of tenant {principal.tenant}; "
            "unset TRAINGUARD_TOKEN, or use a platform admin's"
        )
    change = set_quota(home, queue, what, _value(value))
    click.echo(
        f"queue {queue}: {what} {_shown(change.before)} -> {_shown(change.after)}{_spoken(what, change)}"
    )
    if change.file is not None:
        click.echo(f"in {change.file}; a running guard follows it")
    else:
        click.echo(f"staged in shadow as {change.change} ({change.candidate})")
        if change.replaces:
            click.echo(f"instead of {change.replaces}, which is not part of it: what is in force was changed")
        click.echo(
            "in force after: trainguard policy replay; trainguard policy approve; trainguard policy promote"
        )


def _value(text: str) -> int | str | None:
    if text in ("none", "null"):
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    if text.replace("_", "").isalpha():
        return text
    raise UserError(f"{text!r} is no whole number, no word and not `none`; amounts are thousandths or bytes")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return "no limit" if value is None else str(value)


def _spoken(what: str, change: Change) -> str:
    """The same in whole GPUs, CPUs or GiB, where the file counts thousandths or bytes."""
    from compute_guard.admission.assessment import amount, spoken
    from compute_guard.quota.amounts import MEMORY

    resource = next((part for part in what.split(".") if spoken(part) != part or part == MEMORY), None)
    numbers = (change.before, change.after)
    if resource is None or not all(isinstance(one, int | None) for one in numbers):
        return ""
    before, after = ("no limit" if one is None else amount(resource, one) for one in numbers)
    return f" ({spoken(resource)} {before} -> {after})"
