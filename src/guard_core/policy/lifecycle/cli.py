"""``trainguard policy``, the life cycle: replay, stage, approve, promote, rollback, break-glass, review.

Imported with every ``trainguard policy`` command, so it imports nothing heavy itself.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from guard_core.clock import to_ns
from guard_core.counting import counted
from guard_core.errors import UserError
from guard_core.output import format_option

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.policy.bundle import Bundle
    from guard_core.policy.lifecycle.promotion import GateReport
    from guard_core.policy.lifecycle.replay import Replay
    from guard_core.policy.lifecycle.state import State

_AGO = re.compile(r"^(\d+)([smhdw])$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_CANDIDATE = click.option(
    "--candidate",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A policy directory, or a signed bundle (.tar.gz).",
)
_SINCE = click.option(
    "--since", default="30d", show_default=True, metavar="WHEN", help="30d, 12h, ... or an RFC 3339 time."
)
_PROCESSES = click.option(
    "--processes", type=click.IntRange(1, 64), help="Processes to use [the CPU cores, at most 8]."
)


@click.command()
@_SINCE
@_CANDIDATE
@format_option("text", "json", "html")
@click.option("--output", "target", type=click.Path(path_type=Path), help="File to write (default: stdout).")
@click.option("--lang", type=click.Choice(("en", "zh")), default="en", help="Language shown first in HTML.")
@_PROCESSES
@click.option(
    "--fail-on",
    type=click.Choice(("never", "error", "deny", "change")),
    default="never",
    show_default=True,
    help="Exit with status 1 for errors, for new denials too, or for any change of outcome.",
)
@click.pass_context
def replay(
    ctx: click.Context,
    since: str,
    candidate: Path | None,
    output_format: str,
    target: Path | None,
    lang: str,
    processes: int | None,
    fail_on: str,
) -> None:
    """Decide recorded decisions again under a candidate and show what would change.

    Without --candidate, the staged bundle is the candidate. Changes nothing.
    """
    home: Home = ctx.obj.home()
    found = _replay(home, _candidate(home, candidate)[0], since, processes)
    if output_format == "html":
        from guard_core.output.html import render_replay

        text = render_replay(found.to_json(), lang=lang)
    elif output_format == "json":
        text = json.dumps(found.to_json(), indent=2, ensure_ascii=False)
    else:
        from guard_core.policy.lifecycle.replay_text import render

        text = render(found)
    if target is None:
        click.echo(text)
    else:
        from guard_core.output.html import write

        write(target, text + "\n")
        click.echo(f"wrote {target}", err=True)
    if _fails(found, fail_on):
        ctx.exit(1)


def _fails(found: Replay, fail_on: str) -> bool:
    bad = {"error": ("error", "undecidable"), "deny": ("error", "undecidable", "allow->deny", "allow->hold")}
    if fail_on == "change":
        return found.count("unchanged") != found.decisions
    return found.count(*bad.get(fail_on, ())) > 0


_GATE = (
    click.option(
        "--min-allows",
        type=click.IntRange(0),
        default=100,
        show_default=True,
        help="Recorded allows to try it on.",
    ),
    click.option(
        "--p99-ms", type=click.IntRange(1), default=10, show_default=True, help="CPU time allowed, in ms."
    ),
    click.option(
        "--expect", "expected", multiple=True, metavar="RULE", help="A rule that is meant to refuse more."
    ),
    _SINCE,
    _PROCESSES,
)


def _gate_options(function: Any) -> Any:
    for option in _GATE:
        function = option(function)
    return function


@click.command()
@click.argument("mode", type=click.Choice(("shadow", "warn", "enforce")))
@_CANDIDATE
@click.option("--tenants", default="", metavar="A,B", help="Only these tenants (default: all).")
@click.option("--percent", type=click.IntRange(1, 100), default=100, help="Only this share of subjects.")
@_gate_options
@click.pass_context
def stage(
    ctx: click.Context, /, mode: str, candidate: Path | None, tenants: str, percent: int, **trial: Any
) -> None:
    """Put a candidate beside the policies in force.

    shadow: it is asked too, and differences go to the audit log. warn: differences are warnings in the answer
    as well. enforce: it decides, for the chosen tenants and share; that takes what promotion takes, the gate
    (tried on the chosen tenants) and another person's approval.
    """
    chosen = tuple(t.strip() for t in tenants.split(",") if t.strip())
    if mode == "enforce" and candidate is not None:
        raise UserError("stage the candidate in shadow first; enforce it once another person approved it")
    gate = _gate(ctx.obj.home(), trial, chosen) if mode == "enforce" else None
    state = _steps(ctx).stage(mode, candidate=candidate, tenants=chosen, percent=percent, gate=gate)
    assert state.stage is not None
    reach = ", ".join(chosen) or "all tenants"
    share = "" if percent == 100 else f", {percent} % of their subjects"
    click.echo(
        f"{state.stage.change} in {mode} for {reach}{share}: {state.stage.held.revision} "
        f"(bundle {state.stage.held.sequence})"
    )


@click.command()
@click.pass_context
def unstage(ctx: click.Context) -> None:
    """Take the staged candidate away again."""
    _steps(ctx).unstage()
    click.echo("nothing is staged any more")


@click.command()
@click.pass_context
def approve(ctx: click.Context) -> None:
    """Approve the staged bundle, as somebody who is not its author."""
    state = _steps(ctx).approve()
    assert state.stage is not None
    click.echo(f"{state.stage.change} has {counted(len(state.stage.valid_approvals), 'approval')}")


@click.command()
@_gate_options
@click.pass_context
def promote(ctx: click.Context, /, **trial: Any) -> None:
    """Put the staged bundle in force for everyone.

    Refused while recorded allows would be denied, while it fails on any recorded decision, while it is slow,
    and without another person's approval.
    """
    state = _steps(ctx).promote(_gate(ctx.obj.home(), trial))
    click.echo(f"in force: {state.active.revision} (bundle {state.active.sequence})")


@click.command()
@click.option(
    "--to", type=click.IntRange(1), metavar="NUMBER", help="An earlier bundle (see: policy status)."
)
@click.option("--reason", default="", help="Why, for the audit log.")
@click.pass_context
def rollback(ctx: click.Context, to: int | None, reason: str) -> None:
    """Go back to the bundle before, or out of an emergency."""
    state = _steps(ctx).roll_back(to=to, reason=reason)
    click.echo(f"in force: {state.active.revision} (bundle {state.active.sequence})")


@click.command("break-glass")
@click.option("--reason", required=True, help="Why this cannot wait for a second person.")
@click.option("--ttl", required=True, metavar="TIME", help="For how long, e.g. 30m, 2h (at most 24h).")
@_CANDIDATE
@click.pass_context
def break_glass(ctx: click.Context, reason: str, ttl: str, candidate: Path | None) -> None:
    """Put a bundle (default: the one before) in force at once, for a limited time.

    No gate and no second person; somebody else has to review it afterwards (trainguard policy review).
    """
    found = _AGO.match(ttl)
    if found is None:
        raise UserError(f"--ttl {ttl!r} is not a time; write a number with s, m or h, e.g. 30m")
    seconds = int(found[1]) * _SECONDS[found[2]]
    state = _steps(ctx).break_glass(reason, seconds, candidate=candidate)
    assert state.emergency is not None
    until = datetime.fromtimestamp(state.emergency.until_ns // 1_000_000_000, UTC)
    click.echo(f"{state.emergency.id} until {until:%Y-%m-%d %H:%M:%S}Z: {state.emergency.held.revision}")


@click.command()
@click.argument("emergency_id")
@click.option("--verdict", type=click.Choice(("justified", "unjustified")), required=True)
@click.option("--note", required=True, help="What you found.")
@click.pass_context
def review(ctx: click.Context, emergency_id: str, verdict: str, note: str) -> None:
    """Review somebody else's break-glass."""
    state = _steps(ctx).review(emergency_id, verdict=verdict, note=note)
    click.echo(f"{emergency_id}: {verdict}; {counted(len(state.reviews), 'review')} still due")


@click.command()
@format_option("text", "json")
@click.pass_context
def status(ctx: click.Context, output_format: str) -> None:
    """Show what is in force, what is staged, and what awaits a person."""
    from guard_core.policy.lifecycle.opening import bundle_of, store_of

    home: Home = ctx.obj.home()
    state = store_of(home).state()
    if home.settings.policy.dir is not None or state is None:
        where = str(home.settings.policy.dir or "the shipped policies")
        revision = bundle_of(home).revision
        if output_format == "json":
            click.echo(json.dumps({"store": False, "source": where, "revision": revision}, indent=2))
        else:
            click.echo(f"in force: {revision} ({where}; no policy store)")
        return
    click.echo(
        json.dumps({"store": True, **state.to_json()}, indent=2)
        if output_format == "json"
        else status_text(state, now_ns=to_ns(home.clock()))
    )


@click.command()
@_CANDIDATE
@click.option(
    "--output", "target", required=True, type=click.Path(path_type=Path), help="File to write (.tar.gz)."
)
@click.pass_context
def bundle(ctx: click.Context, candidate: Path | None, target: Path) -> None:
    """Write a signed bundle: what is in force, or a candidate directory signed as the next number.

    The same file works with `opa run --server --bundle FILE --verification-key KEY`.
    """
    from guard_core.files import write_atomic
    from guard_core.policy.engine import accepted
    from guard_core.policy.lifecycle.bundle_archive import write_archive
    from guard_core.policy.lifecycle.opening import base_of, store_of

    home: Home = ctx.obj.home()
    if not home.principal().is_platform_admin:
        from guard_core.errors import Denied

        raise Denied("only a platform admin may sign policies")
    store = store_of(home)
    state = store.state()
    key = store.signing_key()
    if candidate is None and state is not None and home.settings.policy.dir is None:
        store.open(state.active)
        write_atomic(target, store.path(state.active).read_bytes())
        number = state.active.sequence
    else:
        from guard_core.policy.bundle import load_bundle

        found = base_of(home) if candidate is None else accepted(load_bundle(candidate))
        number = 1 if state is None else state.highest + 1
        write_archive(target, found, sequence=number, key=key)
    click.echo(f"wrote {target} (bundle {number}); verify with {key.public_file(store.keys)}")


COMMANDS = (replay, stage, unstage, approve, promote, rollback, break_glass, review, status, bundle)
"""What ``guard_core.policy.cli`` adds to its group."""


def _steps(ctx: click.Context) -> Any:
    from guard_core.policy.lifecycle.steps import PolicySteps

    return PolicySteps(ctx.obj.home())


def _candidate(home: Home, path: Path | None) -> tuple[Bundle, str]:
    """The candidate and, for a signed one, its digest. Raises UserError when nothing is named or staged."""
    from guard_core.policy.bundle import load_bundle
    from guard_core.policy.engine import accepted
    from guard_core.policy.lifecycle.bundle_archive import read_archive
    from guard_core.policy.lifecycle.opening import store_of

    store = store_of(home)
    if path is not None and path.is_dir():
        return accepted(load_bundle(path)), ""
    if path is not None:
        signed = read_archive(path, store.verifier())
        return accepted(signed.bundle), signed.digest
    state = store.state()
    if state is None or state.stage is None:
        raise UserError("nothing is staged; name a policy directory or bundle with --candidate")
    return store.open(state.stage.held).bundle, state.stage.held.digest


def _gate(home: Home, trial: dict[str, Any], tenants: tuple[str, ...] = ()) -> GateReport:
    """Try the staged bundle on recorded decisions. Raises UserError when nothing is staged."""
    from guard_core.policy.lifecycle.promotion import Limits, judged

    bundle, digest = _candidate(home, None)
    found = _replay(home, bundle, trial["since"], trial["processes"])
    limits = Limits(min_allows=trial["min_allows"], p99_ms=trial["p99_ms"], expected=trial["expected"])
    return judged(found, limits, digest=digest, tenants=tenants)


def _replay(home: Home, candidate: Bundle, since: str, processes: int | None) -> Replay:
    from guard_core.policy.lifecycle.replay import gpu_hours_of
    from guard_core.policy.lifecycle.replay import replay as run

    now = home.clock()
    return run(
        home.audit.directory,
        candidate,
        since=_moment(since, now),
        processes=processes or min(os.cpu_count() or 1, 8),
        gpu_hours=gpu_hours_of(home.storage, now=now),
    )


def _moment(text: str, now: datetime) -> datetime:
    found = _AGO.match(text)
    if found:
        return now - timedelta(seconds=int(found[1]) * _SECONDS[found[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"--since {text!r} is neither a time ago (30d, 12h) nor an RFC 3339 time (2026-11-23T04:05:06Z)"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def status_text(state: State, *, now_ns: int) -> str:
    """What is in force, staged and due, for a person."""
    told = [f"in force   bundle {state.active.sequence}  {state.active.revision}"]
    if state.stage is not None:
        staged = state.stage
        reach = ", ".join(staged.tenants) or "all tenants"
        approved = ", ".join(str(a.by) for a in staged.valid_approvals) or "nobody yet"
        told.append(
            f"staged     bundle {staged.held.sequence}  {staged.held.revision}\n"
            f"           {staged.change}, {staged.mode} for {reach}, {staged.percent} %, "
            f"by {staged.author}, approved by {approved}"
        )
    if state.emergency is not None:
        until = datetime.fromtimestamp(state.emergency.until_ns // 1_000_000_000, UTC)
        lasts = state.emergency.until_ns > now_ns
        told.append(
            f"{'EMERGENCY' if lasts else 'over     '}  bundle {state.emergency.held.sequence}  "
            f"{state.emergency.held.revision}\n"
            f"           {state.emergency.id} by {state.emergency.by} "
            f"{'until' if lasts else 'ended by itself at'} {until:%Y-%m-%d %H:%M:%S}Z: "
            f"{state.emergency.reason}"
        )
    told += [f"review due {r.id}  by {r.by}: {r.reason}" for r in state.reviews]
    told += [f"before     bundle {held.sequence}  {held.revision}" for held in state.former]
    return "\n".join(told)
