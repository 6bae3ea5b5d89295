"""``trainguard response``: the ladder, its steps asked for, rehearsed, approved and undone, the kill switch.

A tenant may ask for steps in its own incidents; policy decides what is granted. Heavy parts load when a
command runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from compute_guard.incidents.access import needs, visible
from compute_guard.incidents.text import step_line
from guard_core.counting import counted
from guard_core.errors import Denied
from guard_core.output import echo_json, format_option

if TYPE_CHECKING:
    from compute_guard.response.actions import Action
    from compute_guard.response.responder import Responder
    from guard_core.home import Home


@click.group()
def response() -> None:
    """The response ladder: what may be done, what waits for approval, what was done."""


@response.command("ladder")
@click.option("--incident", "incident_id", help="Steps of this incident only.")
@format_option("text", "json")
@click.pass_obj
def response_ladder(obj: Any, incident_id: str | None, output_format: str) -> None:
    """Show the levels and the steps taken or waiting."""
    from compute_guard.response.actions import Actions
    from compute_guard.response.playbooks import LADDER

    home = obj.home()
    needs(home.principal(), "see the steps of all tenants")
    needed = {r["level"]: r["approvals"] for r in home.policy_data().get("playbooks", {}).get("ladder", [])}
    steps = Actions(home.storage, home.clock).of(incident_id)
    if output_format == "json":
        levels = [
            {"level": r.level, "name": r.name, "title": r.title, "approvals": needed.get(r.level)}
            for r in LADDER
        ]
        echo_json({"levels": levels, "actions": [step.to_json() for step in steps]})
        return
    for rung in LADDER:
        ask = needed.get(rung.level)
        approvals = "? approvals" if ask is None else counted(ask, "approval")
        click.echo(f"{rung.level} {rung.name:12} {rung.title} ({approvals})")
    for step in steps:
        click.echo(step_line(step))


@response.command("request")
@click.argument("incident_id")
@click.argument("level", type=int)
@click.pass_obj
def response_request(obj: Any, incident_id: str, level: int) -> None:
    """Ask for one step; policy grants it, or it waits for approvals."""
    home = obj.home()
    who = home.principal()
    found = visible(home, incident_id, who)
    _finish(_responder(home).act(found, level, principal=who))


@response.command("dry-run")
@click.argument("incident_id")
@click.option("--level", type=int, help="This level only [the plan of the incident].")
@click.pass_obj
def response_dry_run(obj: Any, incident_id: str, level: int | None) -> None:
    """Say what would be done, and what it would need. Changes nothing."""
    from compute_guard.response.playbooks import plan

    home = obj.home()
    who = home.principal()
    found = visible(home, incident_id, who)
    for each in plan(found) if level is None else (level,):
        step = _responder(home).act(found, each, principal=who, dry_run=True)
        reasons = "; ".join(reason["msg"] for reason in step.result["reasons"])
        click.echo(
            f"{step.level} {step.name:12} {step.state:8} {step.result['would_do']}. {reasons}".rstrip()
        )


@response.command("approve")
@click.argument("action_id")
@click.pass_obj
def response_approve(obj: Any, action_id: str) -> None:
    """Approve a waiting step with your own credential (TRAINGUARD_TOKEN)."""
    home = obj.home()
    _finish(_responder(home).approve(action_id, home.principal()))


@response.command("undo")
@click.argument("action_id")
@click.pass_obj
def response_undo(obj: Any, action_id: str) -> None:
    """Take a step's effect back."""
    home = obj.home()
    _finish(_responder(home).undo(action_id, home.principal()))


@response.command("kill-switch")
@click.argument("state", type=click.Choice(["on", "off", "show"]), default="show")
@click.pass_obj
def response_kill_switch(obj: Any, state: str) -> None:
    """Stop all steps of level 3 and up in this home, or allow them again."""
    from compute_guard.response.clearance import KILL_SWITCH
    from compute_guard.usage.history import write
    from guard_core.findings import Enforcement

    home = obj.home()
    who = home.principal()
    path = home.path(*KILL_SWITCH)
    if state != "show":
        needs(who, "turn the kill switch")
        home.audit.event(
            "response.kill_switch",
            subject=state,
            data={"by": who.user},
            enforcement=Enforcement.COOPERATIVE,
        )
        if state == "on":
            write(path, who.user.encode())
        else:
            path.unlink(missing_ok=True)
    click.echo("on" if path.exists() else "off")


def _responder(home: Home) -> Responder:
    from compute_guard.cluster.connection import running_cluster
    from compute_guard.response.responder import Responder

    return Responder(home, running_cluster(home))


def _finish(step: Action) -> None:
    """Print the step; a step that was refused or failed is not a success."""
    click.echo(step_line(step))
    if step.state in ("denied", "blocked", "failed", "waiting"):
        reasons = [reason["msg"] for reason in step.result.get("reasons", [])]
        raise Denied("; ".join(reasons) or str(step.result.get("error", step.state)), step.decision_id)
