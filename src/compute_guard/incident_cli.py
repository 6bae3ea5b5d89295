"""``trainguard incident``, ``trainguard response`` and ``trainguard drill``.

Results go to stdout, messages to stderr. A tenant's credential sees its own incidents only; closing and
confirming need a platform admin or an incident approver. Heavy parts load when a command runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from guard_core.errors import Denied, UserError

if TYPE_CHECKING:
    from compute_guard.actions import Action
    from compute_guard.incidents import Incident
    from compute_guard.notices.deadlines import Due
    from compute_guard.ray_plugin.jobs import ClusterActions
    from guard_core.home import Home
    from guard_core.identity import Principal

RESPONDERS = ("platform-admin", "incident-approver", "incident-responder")
_format = click.option("--format", "output_format", type=click.Choice(["text", "json"]), default="text")


@click.group()
def incident() -> None:
    """Incidents: what was found, in whose job, and how it stands."""


@incident.command("list")
@click.option("--open", "open_only", is_flag=True, help="Leave out what is resolved.")
@_format
@click.pass_obj
def incident_list(obj: Any, open_only: bool, output_format: str) -> None:
    """List incidents, newest first."""
    from compute_guard.incidents import Incidents

    home = obj.home()
    who = home.principal()
    tenant = None if who.is_platform_admin else who.tenant
    found = Incidents(home).list(tenant=tenant, open_only=open_only)
    if output_format == "json":
        _json([item.to_json() for item in found])
        return
    for item in found:
        made_up = "  (exercise)" if item.synthetic else ""
        late = ", ".join(notice.audience for notice in _due(home, item) if notice.overdue(home.clock()))
        click.echo(
            f"{item.id}  {item.severity:8}  {item.state.value:12}  {item.kind}  {_place(item)}{made_up}"
            + (f"  notice overdue: {late}" if late else "")
        )
    if not found:
        click.echo("no incidents", err=True)


@incident.command("show")
@click.argument("incident_id")
@click.option("--format", "output_format", type=click.Choice(["text", "json", "html"]), default="text")
@click.option("--lang", type=click.Choice(["en", "zh"]), default="en", help="Language of the HTML page.")
@click.pass_obj
def incident_show(obj: Any, incident_id: str, output_format: str, lang: str) -> None:
    """Show one incident with its actions."""
    from compute_guard.actions import Actions

    home = obj.home()
    found = _visible(home, incident_id, home.principal())
    actions = Actions(home.storage, home.clock).of(found.id)
    if output_format == "json":
        notices = [notice.to_json(home.clock()) for notice in _due(home, found)]
        _json({**found.to_json(), "actions": [a.to_json() for a in actions], "notices": notices})
    elif output_format == "html":
        from compute_guard.incident_page import render

        click.echo(render(found, actions, _telemetry(home, found), lang=lang))
    else:
        _text(found, actions)
        for notice in _due(home, found):
            late = " (overdue)" if notice.overdue(home.clock()) else ""
            stands = (
                f"sent {notice.sent['at']}" if notice.sent else f"due by {notice.deadline:%F %H:%M} UTC{late}"
            )
            click.echo(f"  notice to the {notice.audience}: {stands}")


def _due(home: Home, found: Incident) -> tuple[Due, ...]:
    from compute_guard.notices.deadlines import due

    return due(found, home.policy_data().get("usage", {}).get("notice_hours", {}))


@incident.command("sent")
@click.argument("incident_id")
@click.option("--to", "audience", type=click.Choice(["customer", "regulator"]), required=True)
@click.option("--note", default="", help="How, or to whom, for the record.")
@click.pass_obj
def incident_sent(obj: Any, incident_id: str, audience: str, note: str) -> None:
    """Say that the notice to the customer or the regulator has left: its deadline is met."""
    from compute_guard.incidents import Incidents

    home = obj.home()
    who = home.principal()
    found = _visible(home, incident_id, who)
    _needs(who, "release a notice")
    changed = Incidents(home).notice_sent(found.id, audience, who, note=note)
    click.echo(f"{changed.id} {audience} {changed.evidence['notices_sent'][audience]['at']}")


@incident.command("ack")
@click.argument("incident_id")
@click.option("--confirm", is_flag=True, help="Vouch that it is real: raises it to an incident.")
@click.option("--note", default="", help="A remark for the record.")
@click.pass_obj
def incident_ack(obj: Any, incident_id: str, confirm: bool, note: str) -> None:
    """Acknowledge an incident."""
    from compute_guard.incidents import Incidents

    home = obj.home()
    who = home.principal()
    found = _visible(home, incident_id, who)
    if confirm:
        _needs(who, "confirm an incident")
    changed = Incidents(home).acknowledge(found.id, who, confirm=confirm, note=note)
    click.echo(f"{changed.id} {changed.severity} {changed.state.value}")


@incident.command("resolve")
@click.argument("incident_id")
@click.option("--note", required=True, help="What it was, for the record.")
@click.pass_obj
def incident_resolve(obj: Any, incident_id: str, note: str) -> None:
    """Close an incident."""
    from compute_guard.incidents import Incidents

    home = obj.home()
    who = home.principal()
    found = _visible(home, incident_id, who)
    _needs(who, "resolve an incident")
    changed = Incidents(home).resolve(found.id, by=who, note=note)
    click.echo(f"{changed.id} {changed.state.value}")


@incident.command("export")
@click.argument("incident_id")
@click.option("--output", type=click.Path(path_type=Path), help="File to write [INCIDENT_ID.tar].")
@click.pass_obj
def incident_export(obj: Any, incident_id: str, output: Path | None) -> None:
    """Write the evidence bundle as a tar file, after checking its chain and signature."""
    from compute_guard.casefile import CaseFile
    from compute_guard.evidence import verify
    from guard_core.errors import Tampered
    from guard_core.files import write_atomic

    home = obj.home()
    found = _visible(home, incident_id, home.principal())
    bundle = CaseFile(home).bundle(found)
    if not bundle.folder.is_dir():
        raise UserError(f"incident {found.id} has no evidence yet; it is collected with the first notice")
    problems = verify(bundle.folder, home.signer.verifier)
    if problems:
        raise Tampered(f"the evidence of {found.id} is not as it was signed: {'; '.join(problems)}")
    target = output or Path(f"{found.id}.tar")
    try:
        write_atomic(target.absolute(), bundle.archive(), mode=0o600)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror}); choose another --output") from error
    click.echo(str(target))


@incident.command("verify")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.pass_obj
def incident_verify(obj: Any, path: Path) -> None:
    """Check exported evidence (a tar file or its folder): every file, their order, the signature.

    For whoever receives it: the sender's public key must be trusted here (trainguard keys trust).
    """
    from contextlib import nullcontext

    from compute_guard.evidence import unpacked, verify
    from guard_core.errors import Tampered

    verifier = obj.home().signer.verifier
    with nullcontext(path) if path.is_dir() else unpacked(path) as folder:
        problems = verify(folder, verifier)
    if problems:
        raise Tampered(f"{path} is not as it was signed: {'; '.join(problems)}")
    click.echo(f"{path}: every file is as it was signed")


@incident.command("routes")
@click.option("--send", is_flag=True, help="Deliver now what is due (a running monitor does so by itself).")
@_format
@click.pass_obj
def incident_routes(obj: Any, send: bool, output_format: str) -> None:
    """Show who is told about incidents and how far each was told. Exit code 3 when one cannot be reached."""
    from compute_guard.routes.courier import Courier
    from guard_core.errors import Undecidable

    home = obj.home()
    _needs(home.principal(), "see or use the routes")
    courier = Courier(home)
    if send:
        courier.round()
    rows = [courier.standing(route) for route in courier.routes()]
    if output_format == "json":
        _json(rows)
    else:
        for row in rows:
            click.echo(f"{row['name']:20} {row['kind']:13} {row['target']}  {row['behind']} behind")
        if not rows:
            click.echo("no routes; add some to usage.yaml", err=True)
    if courier.problem:
        raise Undecidable(f"{courier.problem}; nothing is lost, it is tried again")


@click.group()
def response() -> None:
    """The response ladder: what may be done, what waits for approval, what was done."""


@response.command("ladder")
@click.option("--incident", "incident_id", help="Steps of this incident only.")
@_format
@click.pass_obj
def response_ladder(obj: Any, incident_id: str | None, output_format: str) -> None:
    """Show the levels and the steps taken or waiting."""
    from compute_guard.actions import Actions
    from compute_guard.playbooks import LADDER

    home = obj.home()
    _needs(home.principal(), "see the steps of all tenants")
    needed = {r["level"]: r["approvals"] for r in home.policy_data().get("playbooks", {}).get("ladder", [])}
    steps = Actions(home.storage, home.clock).of(incident_id)
    if output_format == "json":
        levels = [
            {"level": r.level, "name": r.name, "title": r.title, "approvals": needed.get(r.level)}
            for r in LADDER
        ]
        _json({"levels": levels, "actions": [step.to_json() for step in steps]})
        return
    for rung in LADDER:
        ask = needed.get(rung.level, "?")
        click.echo(f"{rung.level} {rung.name:12} {rung.title} ({ask} approval{'' if ask == 1 else 's'})")
    for step in steps:
        click.echo(_line(step))


@response.command("request")
@click.argument("incident_id")
@click.argument("level", type=int)
@click.pass_obj
def response_request(obj: Any, incident_id: str, level: int) -> None:
    """Ask for one step; policy grants it, or it waits for approvals."""
    home = obj.home()
    who = home.principal()
    found = _visible(home, incident_id, who)
    _finish(_responder(home).act(found, level, principal=who))


@response.command("dry-run")
@click.argument("incident_id")
@click.option("--level", type=int, help="This level only [the plan of the incident].")
@click.pass_obj
def response_dry_run(obj: Any, incident_id: str, level: int | None) -> None:
    """Say what would be done, and what it would need. Changes nothing."""
    from compute_guard.playbooks import plan

    home = obj.home()
    who = home.principal()
    found = _visible(home, incident_id, who)
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
    from compute_guard.response import KILL_SWITCH
    from compute_guard.usage.history import write
    from guard_core.findings import Enforcement

    home = obj.home()
    who = home.principal()
    path = home.path(*KILL_SWITCH)
    if state != "show":
        _needs(who, "turn the kill switch")
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


@click.group()
def drill() -> None:
    """Rehearse incidents against a canary tenant."""


@drill.command("list")
@_format
def drill_list(output_format: str) -> None:
    """List the drills."""
    from compute_guard.drills import DRILLS

    if output_format == "json":
        _json([{"name": d.name, "title": d.title, "kind": d.kind} for d in DRILLS.values()])
        return
    for each in DRILLS.values():
        click.echo(f"{each.name:20} {each.title}")


@drill.command("run")
@click.argument("name")
@click.option("--tenant", required=True, help="A tenant that tenants.yaml flags `canary: true`.")
@click.option("--seed", type=int, default=1, show_default=True)
@_format
@click.pass_context
def drill_run(ctx: click.Context, name: str, tenant: str, seed: int, output_format: str) -> None:
    """Run a drill and report how long it took to detect, notify and contain."""
    from compute_guard.connection import load_cluster
    from compute_guard.drills import run, submit_over_http

    home = ctx.obj.home()
    cluster = load_cluster(home.path("ray"))
    submit = None if cluster is None else submit_over_http(home, tenant, cluster.dashboard)
    who = home.principal()
    _needs(who, "run a drill")
    report = run(home, name, tenant, cluster=_cluster(home), submit=submit, seed=seed, principal=who)
    if output_format == "json":
        _json(report.to_json())
    else:
        for field, value in report.to_json().items():
            shown = ", ".join(value) if isinstance(value, (list, tuple)) else value
            click.echo(f"{field:20} {'-' if shown in (None, '') else shown}")
    ctx.exit(0 if report.passed else 1)


@drill.command("due")
@click.option("--run", "do_run", is_flag=True, help="Run what is due now, for cron or a timer.")
@_format
@click.pass_context
def drill_due(ctx: click.Context, do_run: bool, output_format: str) -> None:
    """Show scheduled drills (usage.yaml) and which are due. With --run: exit code 1 when one fails."""
    from compute_guard.connection import load_cluster
    from compute_guard.drill_schedule import planned, run_due
    from compute_guard.drills import DrillReport, run, submit_over_http

    home = ctx.obj.home()
    who = home.principal()
    _needs(who, "run drills")

    def one(name: str, tenant: str) -> DrillReport:
        cluster = load_cluster(home.path("ray"))
        submit = None if cluster is None else submit_over_http(home, tenant, cluster.dashboard)
        return run(home, name, tenant, cluster=_cluster(home), submit=submit, principal=who)

    reports = run_due(home, one, home.clock()) if do_run else []
    now = home.clock()
    rows = [plan.to_json(now) for plan in planned(home)]
    if output_format == "json":
        _json({"schedule": rows, "ran": [report.to_json() for report in reports]})
    else:
        for row in rows:
            went = {None: "never run", True: "passed", False: "NOT PASSED"}[row["passed"]]
            due = "due" if row["due"] else ""
            every = f"every {row['every_hours']:g} h"
            click.echo(f"{row['name']:20} {row['tenant']:12} {every:14} {went:11} {due}".rstrip())
        if not rows:
            click.echo("no drills are scheduled; add some to usage.yaml", err=True)
    ctx.exit(1 if any(not report.passed for report in reports) else 0)


# --- shared parts ------------------------------------------------------------------------------------


def _visible(home: Home, incident_id: str, who: Principal) -> Incident:
    """The incident, if ``who`` may see it; another tenant's does not exist for them."""
    from compute_guard.incidents import Incidents

    found = Incidents(home).get(incident_id)
    if found.tenant != who.tenant and not set(who.roles) & set(RESPONDERS):
        raise UserError(f"there is no incident {incident_id!r}; see: trainguard incident list")
    return found


def _needs(who: Principal, what: str) -> None:
    if not set(who.roles) & set(RESPONDERS):
        raise Denied(f"{who.user} of tenant {who.tenant} may not {what}; one of {', '.join(RESPONDERS)} may")


def _responder(home: Home) -> Any:
    from compute_guard.response import Responder

    return Responder(home, _cluster(home))


def _cluster(home: Home) -> ClusterActions | None:
    """The home's running cluster, None when there is none."""
    from compute_guard.connection import load_cluster

    if load_cluster(home.path("ray")) is None:
        return None
    from compute_guard.ray_plugin.jobs import RayCluster

    return RayCluster(home)


def _telemetry(home: Home, found: Incident) -> Any:
    """The newest telemetry in the incident's evidence; an empty frame when there is none."""
    import pyarrow.parquet as pq

    from compute_guard.casefile import CaseFile
    from compute_guard.usage.samples import SCHEMA, from_table

    bundle = CaseFile(home).bundle(found)
    kept = [e["name"] for e in bundle.entries() if str(e["name"]).endswith(".parquet")]
    table = pq.read_table(bundle.folder / kept[-1]) if kept else SCHEMA.empty_table()
    return from_table(table, origin=found.id)


def _finish(step: Action) -> None:
    """Print the step; a step that was refused or failed is not a success."""
    click.echo(_line(step))
    if step.state in ("denied", "blocked", "failed", "waiting"):
        reasons = [reason["msg"] for reason in step.result.get("reasons", [])]
        raise Denied("; ".join(reasons) or str(step.result.get("error", step.state)), step.decision_id)


def _line(step: Action) -> str:
    return f"{step.id}  {step.level} {step.name:12} {step.state:10} {step.incident_id}"


def _place(found: Incident) -> str:
    return f"{found.tenant}/{found.job}"


def _text(found: Incident, actions: list[Action]) -> None:
    if found.synthetic:
        click.echo("EXERCISE: the telemetry behind this incident is made up")
    click.echo(f"{found.id}  {found.kind} in {_place(found)}: {found.severity}, {found.state.value}")
    for name, channel in found.evidence["channels"].items():
        click.echo(f"  {name}: {channel['message']}")
    for step in actions:
        click.echo(f"  {_line(step)}")


def _json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
