"""``trainguard dataset``, about one version: proofs, copies, sharing, waivers, clean copies, its end."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from guard_core.counting import counted
from guard_core.output import exit_status, fail_on_option, format_option, render

_tenant = click.option("--tenant", metavar="T", help="Tenant to act for [your credential's]")
_file = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("ref", metavar="N@V")
@click.option("--row-file", type=_file, metavar="F", help="A data file with just the one row.")
@click.option("--rows-file", type=_file, metavar="F", help="A data file of rows: one bundle for all of them.")
@click.option("--out", type=_file, metavar="FILE", help="Write the proof here [standard output].")
@click.option(
    "--opening", type=_file, metavar="FILE", help="Write what ties it to the row (keep it from others)."
)
@_tenant
@click.pass_context
def prove(
    ctx: click.Context,
    ref: str,
    row_file: Path | None,
    rows_file: Path | None,
    out: Path | None,
    opening: Path | None,
    tenant: str | None,
) -> None:
    """Prove to somebody with our public key alone that a row is, or is not, in N@V.

    The proofs of --rows-file share one signature, so each costs its checker a path in the tree only.
    """
    from dataset_guard.proofs.proof_bundle import prove_rows
    from dataset_guard.proofs.prove import prove as run
    from guard_core.files import write_atomic

    if (row_file is None) == (rows_file is None):
        raise click.UsageError("say which rows: --row-file (one row) or --rows-file (many)")
    home = ctx.obj.home()
    if rows_file is not None:
        many = prove_rows(ref, rows_file, tenant=tenant, home=home)
        raw, opened = many.to_bytes(), many.opening
        said = f"{sum(many.present):,} of the {len(many.present):,} rows are in {many.ref}"
    else:
        found = run(ref, row_file, tenant=tenant, home=home)
        raw, opened = found.to_bytes(), found.opening
        said = f"the row is {'' if found.present else 'not '}in {found.ref}"
    if opening is not None:
        write_atomic(opening, json.dumps(opened).encode() + b"\n", mode=0o600)
    if out is None:
        click.echo(raw)
    else:
        write_atomic(out, raw + b"\n")
    click.echo(said, err=True)


@click.command("check-proof")
@click.argument("proof", type=_file, metavar="PROOF.json")
@click.option(
    "--key", type=click.Path(path_type=Path), required=True, metavar="PUB", help="The public key (PEM)."
)
@click.option(
    "--row-file", "--rows-file", type=_file, metavar="F", help="Also: is it about this row (these rows)?"
)
@click.option("--opening", type=_file, metavar="FILE", help="The opening that came with the row.")
@format_option("text", "json")
def check_proof(
    proof: Path, key: Path, row_file: Path | None, opening: Path | None, output_format: str
) -> None:
    """Check a row proof, or a bundle of them, with a public key; needs no home and no data."""
    from dataset_guard.proofs.proof_bundle import FORMAT, check_proofs
    from dataset_guard.proofs.prove import check_proof as run
    from dataset_guard.proofs.prove import load_json
    from guard_core.attestation import Verifier

    document, verifier = load_json(proof, "the proof"), Verifier.of(key)
    opened = None if opening is None else load_json(opening, "the opening")
    if document.get("format") == FORMAT:
        many = check_proofs(document, verifier, rows=row_file, opening=opened)
        if output_format == "json":
            _echo_json(many.to_json())
            return
        absent = [number for number, present in enumerate(many.present) if not present]
        which = f"; not there: row {', '.join(map(str, absent[:20]))}" if absent else ""
        which += f" and {len(absent) - 20:,} more" if len(absent) > 20 else ""
        about = "these rows" if many.rows_checked else "the rows they were made for"
        click.echo(
            f"{sum(many.present):,} of {about} ({len(many.present):,}) are among the {many.rows:,} rows "
            f"of {many.ref}{which}"
        )
        return
    found = run(document, verifier, row=row_file, opening=opened)
    if output_format == "json":
        _echo_json(found.to_json())
        return
    about = (
        "this row"
        if found.row_checked
        else "the row it was made for (give --row-file and --opening to see which)"
    )
    click.echo(f"{about} is {'' if found.present else 'not '}among the {found.rows:,} rows of {found.ref}")


@click.command("check-destruction")
@click.argument("record", type=_file, metavar="destruction.dsse.json")
@click.option(
    "--key", type=click.Path(path_type=Path), required=True, metavar="PUB", help="The public key (PEM)."
)
@format_option("text", "json")
def check_destruction(record: Path, key: Path, output_format: str) -> None:
    """Check a destruction record with a public key: what was destroyed, by whom; needs no home."""
    from dataset_guard.proofs.prove import load_json
    from dataset_guard.registry.destroy import check_destruction as run
    from guard_core.attestation import Verifier

    said = run(load_json(record, "the destruction record"), Verifier.of(key))
    if output_format == "json":
        _echo_json(said)
        return
    approved = f", approved by {', '.join(said['approved_by'])}" if said["approved_by"] else ""
    what = f"{said['ref']} ({said['rows']:,} rows, {said['fingerprint']})"
    click.echo(f"{what} was destroyed on {said['destroyed_at']} by {said['destroyed_by']}{approved}")
    click.echo(f"  {counted(len(said['removed']), 'file')} {said['method']}")
    for place in said["not_removed"]:
        click.echo(f"  not touched: {place}")


@click.command()
@click.argument("ref", metavar="N@V")
@click.option(
    "--format",
    "form",
    type=click.Choice(["croissant", "openlineage", "model-signing", "cosign"]),
    help="Print a description so.",
)
@click.option("--to", "target", type=click.Path(path_type=Path), metavar="FOLDER", help="Copy the data here.")
@_tenant
@click.pass_context
def export(ctx: click.Context, ref: str, form: str | None, target: Path | None, tenant: str | None) -> None:
    """Describe N@V for other tools, or take its data out of the cluster.

    With --format: names, types and digests, never data; model-signing (ECDSA keys only) and cosign are
    signatures over the files for `model_signing verify key` and `cosign verify-blob-attestation`. With --to:
    a verified copy of its files in a new folder, which others of the tenant have approved (dataset approve
    N@V --export FOLDER).
    """
    from dataset_guard.registry.export import describe
    from dataset_guard.registry.exporting import export_data

    if (form is None) == (target is None):
        raise click.UsageError("say what to do: --format (describe it) or --to FOLDER (copy its data)")
    if target is None:
        _echo_json(describe(ref, str(form), tenant=tenant, home=ctx.obj.home()))
        return
    done = export_data(ctx.obj.home(), ref, target, tenant=tenant)
    for warning in done.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"copied {done.ref} to {done.to}: {done.files} files, {done.bytes:,} bytes", err=True)


@click.command()
@click.argument("ref", metavar="N@V")
@click.option("--to", "receiver", metavar="TENANT", help="The tenant that may use it.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="The last day it may (UTC) [until ended].")
@click.option("--end", is_flag=True, help="End the share with that tenant at once.")
@_tenant
@format_option("text", "json")
@click.pass_context
def share(
    ctx: click.Context,
    ref: str,
    receiver: str | None,
    until: datetime | None,
    end: bool,
    tenant: str | None,
    output_format: str,
) -> None:
    """Let another tenant use N@V, as others of yours approved; without --to, list who may.

    They approve with: trainguard dataset approve N@V --share TENANT. The tenant then reads and submits jobs
    with the full name, T/N@V.
    """
    from dataset_guard.registry.caller import caller_of
    from dataset_guard.registry.sharing import share as run
    from dataset_guard.registry.sharing import shares_of, unshare
    from dataset_guard.registry.store import Registry

    home = ctx.obj.home()
    if receiver is None:
        if end or until is not None:
            raise click.UsageError("name the tenant: --to TENANT")
        found = shares_of(home, Registry(home).get(ref, tenant=caller_of(home, ref, tenant=tenant).tenant))
        if output_format == "json":
            _echo_json([one.to_json() for one in found])
        for one in found if output_format == "text" else ():
            until_text = (
                "until ended" if one.expires_at is None else f"until {one.expires_at:%Y-%m-%d %H:%M}Z"
            )
            click.echo(f"{one.to}  {until_text}  by {one.by}, approved by {', '.join(one.approved_by)}")
        return
    if end:
        click.echo(
            f"{unshare(home, ref, receiver, tenant=tenant).ref} is not shared with {receiver}", err=True
        )
        return
    last = None if until is None else until.replace(tzinfo=UTC) + timedelta(days=1)
    done = run(home, ref, receiver, expires_at=last, tenant=tenant)
    if output_format == "json":
        _echo_json(done.to_json())
    else:
        click.echo(f"{receiver} may use {done.ref}; end it with --end", err=True)


@click.command()
@click.argument("ref", metavar="N@V")
@click.argument("rule_id", metavar="RULE")
@click.option("--reason", required=True, help="Why its findings are accepted.")
@click.option(
    "--until", required=True, type=click.DateTime(["%Y-%m-%d"]), help="The last day it holds (UTC)."
)
@_tenant
@click.pass_context
def waive(
    ctx: click.Context, ref: str, rule_id: str, reason: str, until: datetime, tenant: str | None
) -> None:
    """Ask that the findings of RULE on N@V be accepted until a day; another person approves it."""
    from dataset_guard.registry.waivers import waive as run

    end = until.replace(tzinfo=UTC) + timedelta(days=1)
    done = run(ctx.obj.home(), ref, rule_id, reason=reason, expires_at=end, tenant=tenant)
    click.echo(
        f"asked to waive {rule_id} on {done.ref}; in force once another person runs: "
        f"trainguard dataset approve {done.ref} --waiver {rule_id}",
        err=True,
    )


@click.command()
@click.argument("ref", metavar="N@V")
@click.option("--destroy", "operation", flag_value="dataset-destroy", help="That it be destroyed.")
@click.option("--share", "receiver", metavar="TENANT", help="That this tenant may use it.")
@click.option(
    "--export", "target", type=click.Path(path_type=Path), metavar="FOLDER", help="That it be copied there."
)
@click.option("--waiver", "rule_id", metavar="RULE", help="That RULE's findings be waived, as was asked.")
@_tenant
@click.pass_context
def approve(
    ctx: click.Context,
    ref: str,
    operation: str | None,
    receiver: str | None,
    target: Path | None,
    rule_id: str | None,
    tenant: str | None,
) -> None:
    """Approve, with your own credential, what somebody else wants to do with N@V."""
    from dataset_guard.registry.approvals import EXPORT, SHARE, give
    from dataset_guard.registry.caller import caller_of
    from dataset_guard.registry.exporting import destination
    from dataset_guard.registry.store import Registry
    from dataset_guard.registry.waivers import approve_waiver

    if sum(chosen is not None for chosen in (operation, receiver, target, rule_id)) != 1:
        raise click.UsageError(
            "name one thing to approve: --destroy, --share TENANT, --export FOLDER or --waiver RULE"
        )
    home = ctx.obj.home()
    if rule_id is not None:
        done = approve_waiver(home, ref, rule_id, tenant=tenant)
        click.echo(f"{rule_id} is waived on {done.ref} until {done.expires_at:%Y-%m-%d %H:%M}Z", err=True)
        return
    principal = caller_of(home, ref, tenant=tenant)
    version = Registry(home).get_any(ref, tenant=principal.tenant)
    what = operation or (SHARE if receiver is not None else EXPORT)
    to = receiver if target is None else destination(target)
    give(home, version.ref, what, principal=principal, target=to)
    click.echo(
        f"{principal.user} approved {what} of {version.ref}{'' if to is None else f' to {to}'}", err=True
    )


@click.command()
@click.argument("ref", metavar="N@V")
@_tenant
@click.pass_context
def endorse(ctx: click.Context, ref: str, tenant: str | None) -> None:
    """Sign N@V again with the key in use, after its own was revoked; audit log and data must vouch for it."""
    from dataset_guard.registry.endorse import endorse as run

    click.echo(f"{run(ctx.obj.home(), ref, tenant=tenant).ref} is endorsed", err=True)


@click.command()
@click.argument("ref", metavar="N@V")
@click.option("--restore", is_flag=True, help="Bring it back.")
@_tenant
@click.pass_context
def delete(ctx: click.Context, ref: str, restore: bool, tenant: str | None) -> None:
    """Hide N@V from lists, reads and jobs; its files stay, and it can be restored."""
    from dataset_guard.registry import destroy as life

    home = ctx.obj.home()
    if restore:
        click.echo(f"{life.restore(home, ref, tenant=tenant).ref} is back", err=True)
        return
    version, used_by = life.delete(home, ref, tenant=tenant)
    click.echo(f"{version.ref} is deleted; bring it back with --restore", err=True)
    if len(used_by):
        click.echo(f"still named by: {used_by.sentence()}", err=True)


@click.command()
@click.argument("ref", metavar="N@V")
@click.option("--confirm", required=True, metavar="T/N@V", help="The full reference once more.")
@_tenant
@format_option("text", "json")
@click.pass_context
def destroy(ctx: click.Context, ref: str, confirm: str, tenant: str | None, output_format: str) -> None:
    """Remove what is kept of N@V for good, as policy allows; a signed destruction record stays."""
    from dataset_guard.registry.destroy import destroy as run

    done = run(ctx.obj.home(), ref, confirm=confirm, tenant=tenant)
    if output_format == "json":
        _echo_json(done)
        return
    click.echo(
        f"{done['ref']} is destroyed: {counted(len(done['removed']), 'file')} removed, its records kept"
    )
    for place in done["not_removed"]:
        click.echo(f"  not in this home, so not touched: {place}")


@click.command()
@click.argument("ref", metavar="N@V")
@click.option(
    "--drop",
    multiple=True,
    required=True,
    metavar="FINDING",
    help="A rule (POIS011), or one finding (POIS011#2).",
)
@click.option("--name", metavar="N", help="Register it under this name [the same].")
@click.option("--checks", metavar="A,B", help="Run only these checks on the copy.")
@_tenant
@format_option()
@fail_on_option
@click.pass_context
def clean(
    ctx: click.Context,
    ref: str,
    drop: tuple[str, ...],
    name: str | None,
    checks: str | None,
    tenant: str | None,
    output_format: str,
    fail_on: str,
) -> None:
    """Register a copy of N@V without the rows of some findings, as its child version."""
    from dataset_guard.commands.progress import shown
    from dataset_guard.registry.clean import clean as run

    names = None if checks is None else [part.strip() for part in checks.split(",") if part.strip()]
    with shown() as show:
        report = run(
            ref,
            drop=drop,
            name=name,
            checks=names,
            tenant=tenant,
            home=ctx.obj.home(),
            progress=lambda p: show(p.stage, p.rows, p.total_rows),
        )
    document = report.to_json() if output_format == "json" else report.document()
    click.echo(render(document, output_format))
    ctx.exit(exit_status(document, fail_on))


def _echo_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


COMMANDS = (
    prove,
    check_proof,
    export,
    share,
    clean,
    waive,
    approve,
    endorse,
    delete,
    destroy,
    check_destruction,
)
