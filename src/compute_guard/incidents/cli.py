"""``trainguard incident``: what was found, who has seen it, who was told, and the evidence.

Results go to stdout, messages to stderr. A tenant's credential sees its own incidents only; closing and
confirming need a platform admin or an incident approver. Heavy parts load when a command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compute_guard.incidents.access import needs, visible
from compute_guard.incidents.text import incident_line, page
from guard_core.errors import UserError
from guard_core.output import echo_json, format_option

if TYPE_CHECKING:
    from compute_guard.incidents.incident import Incident
    from compute_guard.incidents.notices.deadlines import Due
    from guard_core.home import Home


@click.group()
def incident() -> None:
    """Incidents: what was found, in whose job, and how it stands."""


@incident.command("list")
@click.option("--open", "open_only", is_flag=True, help="Leave out what is resolved.")
@format_option("text", "json")
@click.pass_obj
def incident_list(obj: Any, open_only: bool, output_format: str) -> None:
    """List incidents, newest first."""
    from compute_guard.incidents.store import Incidents

    home = obj.home()
    who = home.principal()
    tenant = None if who.is_platform_admin else who.tenant
    found = Incidents(home).list(tenant=tenant, open_only=open_only)
    if output_format == "json":
        echo_json([item.to_json() for item in found])
        return
    for item in found:
        click.echo(incident_line(item, _due(home, item), home.clock()))
    if not found:
        click.echo("no incidents", err=True)


@incident.command("show")
@click.argument("incident_id")
@format_option("text", "json", "html")
@click.option("--lang", type=click.Choice(["en", "zh"]), default="en", help="Language of the HTML page.")
@click.pass_obj
def incident_show(obj: Any, incident_id: str, output_format: str, lang: str) -> None:
    """Show one incident with its actions."""
    from compute_guard.response.actions import Actions

    home = obj.home()
    found = visible(home, incident_id, home.principal())
    actions = Actions(home.storage, home.clock).of(found.id)
    if output_format == "json":
        notices = [notice.to_json(home.clock()) for notice in _due(home, found)]
        echo_json({**found.to_json(), "actions": [a.to_json() for a in actions], "notices": notices})
    elif output_format == "html":
        from compute_guard.incidents.page import render

        click.echo(render(found, actions, _telemetry(home, found), lang=lang))
    else:
        for line in page(found, actions, _due(home, found), home.clock()):
            click.echo(line)


def _due(home: Home, found: Incident) -> tuple[Due, ...]:
    from compute_guard.incidents.notices.deadlines import due

    return due(found, home.policy_data().get("usage", {}).get("notice_hours", {}))


@incident.command("sent")
@click.argument("incident_id")
@click.option("--to", "audience", type=click.Choice(["customer", "regulator"]), required=True)
@click.option("--note", default="", help="How, or to whom, for the record.")
@click.pass_obj
def incident_sent(obj: Any, incident_id: str, audience: str, note: str) -> None:
    """Say that the notice to the customer or the regulator has left: its deadline is met."""
    from compute_guard.incidents.store import Incidents

    home = obj.home()
    who = home.principal()
    found = visible(home, incident_id, who)
    needs(who, "release a notice")
    changed = Incidents(home).notice_sent(found.id, audience, who, note=note)
    click.echo(f"{changed.id} {audience} {changed.evidence['notices_sent'][audience]['at']}")


@incident.command("ack")
@click.argument("incident_id")
@click.option("--confirm", is_flag=True, help="Vouch that it is real: raises it to an incident.")
@click.option("--note", default="", help="A remark for the record.")
@click.pass_obj
def incident_ack(obj: Any, incident_id: str, confirm: bool, note: str) -> None:
    """Acknowledge an incident."""
    from compute_guard.incidents.store import Incidents

    home = obj.home()
    who = home.principal()
    found = visible(home, incident_id, who)
    if confirm:
        needs(who, "confirm an incident")
    changed = Incidents(home).acknowledge(found.id, who, confirm=confirm, note=note)
    click.echo(f"{changed.id} {changed.severity} {changed.state.value}")


@incident.command("resolve")
@click.argument("incident_id")
@click.option("--note", required=True, help="What it was, for the record.")
@click.pass_obj
def incident_resolve(obj: Any, incident_id: str, note: str) -> None:
    """Close an incident."""
    from compute_guard.incidents.store import Incidents

    home = obj.home()
    who = home.principal()
    found = visible(home, incident_id, who)
    needs(who, "resolve an incident")
    changed = Incidents(home).resolve(found.id, by=who, note=note)
    click.echo(f"{changed.id} {changed.state.value}")


@incident.command("export")
@click.argument("incident_id")
@click.option("--output", type=click.Path(path_type=Path), help="File to write [INCIDENT_ID.tar].")
@click.pass_obj
def incident_export(obj: Any, incident_id: str, output: Path | None) -> None:
    """Write the evidence bundle as a tar file, after checking its chain and signature."""
    from compute_guard.incidents.casefile import CaseFile
    from compute_guard.incidents.evidence import verify
    from guard_core.errors import Tampered
    from guard_core.files import write_atomic

    home = obj.home()
    found = visible(home, incident_id, home.principal())
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

    from compute_guard.incidents.evidence import unpacked, verify
    from guard_core.errors import Tampered

    verifier = obj.home().signer.verifier
    with nullcontext(path) if path.is_dir() else unpacked(path) as folder:
        problems = verify(folder, verifier)
    if problems:
        raise Tampered(f"{path} is not as it was signed: {'; '.join(problems)}")
    click.echo(f"{path}: every file is as it was signed")


@incident.command("routes")
@click.option("--send", is_flag=True, help="Deliver now what is due (a running monitor does so by itself).")
@format_option("text", "json")
@click.pass_obj
def incident_routes(obj: Any, send: bool, output_format: str) -> None:
    """Show who is told about incidents and how far each was told. Exit code 3 when one cannot be reached."""
    from compute_guard.routes.courier import Courier
    from guard_core.errors import Undecidable

    home = obj.home()
    needs(home.principal(), "see or use the routes")
    courier = Courier(home)
    if send:
        courier.round()
    rows = [courier.standing(route) for route in courier.routes()]
    if output_format == "json":
        echo_json(rows)
    else:
        for row in rows:
            click.echo(f"{row['name']:20} {row['kind']:13} {row['target']}  {row['behind']} behind")
        if not rows:
            click.echo("no routes; add some to usage.yaml", err=True)
    if courier.problem:
        raise Undecidable(f"{courier.problem}; nothing is lost, it is tried again")


def _telemetry(home: Home, found: Incident) -> Any:
    """The newest telemetry in the incident's evidence; an empty frame when there is none."""
    import pyarrow.parquet as pq

    from compute_guard.incidents.casefile import CaseFile
    from compute_guard.usage.samples import SCHEMA, from_table

    bundle = CaseFile(home).bundle(found)
    kept = [e["name"] for e in bundle.entries() if str(e["name"]).endswith(".parquet")]
    table = pq.read_table(bundle.folder / kept[-1]) if kept else SCHEMA.empty_table()
    return from_table(table, origin=found.id)
