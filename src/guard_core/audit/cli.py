"""``trainguard audit``: verify, export, ship, head, prove, check-proof, restart."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from guard_core.audit.shipping.cli import ship
from guard_core.counting import counted
from guard_core.errors import UserError
from guard_core.files import write_atomic
from guard_core.output import echo_json, format_option

if TYPE_CHECKING:
    from guard_core.audit.verify import AuditReport
    from guard_core.cli import CommandContext
    from guard_core.home import Home


@click.group()
def audit() -> None:
    """Verify, export and prove the audit log."""


audit.add_command(ship)


@audit.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option(
    "--head", type=click.Path(path_type=Path), help="A head kept from earlier: the log must continue it."
)
@click.option(
    "--key", "keys", multiple=True, type=click.Path(path_type=Path), help="Trusted public key (PEM)."
)
@format_option("text", "json")
@click.pass_context
def verify(
    ctx: click.Context, path: Path | None, head: Path | None, keys: tuple[Path, ...], output_format: str
) -> None:
    """Prove that the log is whole, or name the record where it is not.

    PATH is a log's folder (default: the home's) or an exported file. Exit status 1 when it is not whole.
    A copy that lies apart from its home's keys is checked with this home's, unless --key names others.
    """
    from guard_core.attestation import Verifier
    from guard_core.audit.verify import verify as verify_log

    folder = path if path is not None else _folder(ctx.obj)
    if path is not None and path.is_dir() and not keys and not (path.parent / "keys").is_dir():
        keys = (_folder(ctx.obj).parent / "keys",)
    witness = _read(head) if head is not None else None
    report = verify_log(folder, verifier=Verifier.of(*keys) if keys else None, witness=witness)
    click.echo(json.dumps(report.to_json(), indent=2) if output_format == "json" else _text(folder, report))
    if not report.ok:
        ctx.exit(1)


@audit.command()
@click.option("--since", help="Leave out records before this RFC 3339 time.")
@click.option("--kind", help="Only this kind of record; with a final dot, one area (dataset.).")
@click.option("--output", "target", type=click.Path(path_type=Path), help="File to write (default: stdout).")
@click.option(
    "--masked/--unmasked",
    "mask",
    default=True,
    help="Without what guard/audit/mask hides (default), or the log's own lines (platform admins).",
)
@click.pass_context
def export(ctx: click.Context, since: str | None, kind: str | None, target: Path | None, mask: bool) -> None:
    """Write records as JSON lines, in OPA's decision-log shape.

    Fields that the policy guard/audit/mask names are taken out (data/masks.yaml); when the policy does not
    say what to mask, nothing is written (exit status 3).

    With --unmasked, lines are the log's own, byte for byte: such an export without --since and --kind can
    be verified as a file. Inputs are in it whole; only platform admins may ask for it.
    """
    from guard_core.audit.export import exported, exported_masked
    from guard_core.errors import Denied

    folder, moment = _folder(ctx.obj), _moment(since)
    home = _unopened(ctx.obj)
    if mask:
        from guard_core.audit.masked import Masks

        lines = exported_masked(folder, Masks(lambda: home.policy, home.clock), since=moment, kind=kind)
    else:
        if not home.principal().is_platform_admin:
            raise Denied("only a platform admin may export unmasked records; leave out --unmasked")
        lines = exported(folder, since=moment, kind=kind)
    if target is not None:
        content = b"".join(lines)
        write_atomic(target, content)
        click.echo(f"wrote {counted(content.count(bytes([10])), 'record')} to {target}", err=True)
        return
    for line in lines:
        sys.stdout.buffer.write(line)


@audit.command()
@click.pass_context
def head(ctx: click.Context) -> None:
    """Print the signed head. Keep it where this machine cannot change it, for `audit verify --head`."""
    from guard_core.audit.head import HEAD_FILE

    click.echo(_read(_folder(ctx.obj) / HEAD_FILE).decode().rstrip("\n"))


@audit.command()
@click.argument("wanted", metavar="NUMBER|ID")
@click.pass_context
def prove(ctx: click.Context, wanted: str) -> None:
    """Print a proof that a record (by number, decision id or event id) is in the signed log."""
    from guard_core.attestation import Verifier
    from guard_core.audit.proof import prove as prove_record

    folder = _folder(ctx.obj)
    number = int(wanted) if wanted.isdecimal() else wanted
    click.echo(json.dumps(prove_record(folder, number, Verifier.of(folder.parent / "keys")), indent=2))


@audit.command("check-proof")
@click.argument("proof", type=click.Path(path_type=Path))
@click.option(
    "--key", "keys", multiple=True, type=click.Path(path_type=Path), help="Trusted public key (PEM)."
)
@click.pass_context
def check_proof(ctx: click.Context, proof: Path, keys: tuple[Path, ...]) -> None:
    """Check a proof made by `audit prove` and print the record. Needs the public key, not the log."""
    from guard_core.attestation import Verifier
    from guard_core.audit.proof import check

    try:
        value = json.loads(_read(proof))
    except ValueError:
        raise UserError(f"{proof} is not JSON") from None
    places = keys or (_folder(ctx.obj).parent / "keys",)
    echo_json(check(value, Verifier.of(*places)))


@audit.command()
@click.option("--reason", required=True, help="Why: kept as the new log's first record.")
@click.pass_context
def restart(ctx: click.Context, reason: str) -> None:
    """Put a log that is not whole aside and begin a new one (no decision is given until then)."""
    from guard_core.audit.verify import verify as verify_log
    from guard_core.errors import Denied

    home = ctx.obj.home()
    principal = home.principal()
    if not principal.is_platform_admin:
        raise Denied("only a platform admin may restart the audit log")
    if verify_log(home.audit.directory).ok:
        raise UserError(f"the audit log {home.audit.directory} is whole: there is nothing to restart")
    aside = home.audit.restart(reason=reason, by=f"{principal.tenant}/{principal.user}")
    click.echo(f"the old log lies in {aside}; the new one begins with the reason")


def _unopened(obj: CommandContext) -> Home:
    """The home without the repair of its log, which opening it would do. Raises UserError without a log."""
    from guard_core.audit.segments import segments
    from guard_core.clock import system_clock
    from guard_core.home import Home

    folder = _folder(obj)
    if not segments(folder):
        raise UserError(f"there is no audit log at {folder}; set TRAINGUARD_HOME or give --home")
    home = Home(obj.settings(), system_clock)
    home.storage.upgrade()
    return home


def _folder(obj: CommandContext) -> Path:
    # Not through Home.open(): looking at a log must never repair it first.
    return obj.settings().home / "audit"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"--since {text!r} is not an RFC 3339 time such as 2026-11-23T04:05:06Z") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _text(folder: Path, report: AuditReport) -> str:
    told = [f"{folder}: {counted(report.records, 'record')}, {report.signed:,} signed"]
    if report.torn_bytes:
        told.append(
            f"a torn last line of {counted(report.torn_bytes, 'byte')} (a crash; repaired at the next use)"
        )
    for problem in report.problems:
        place = f" ({problem.file} line {problem.line})" if problem.line else ""
        told.append(f"NOT WHOLE: {problem.message}{place}")
    if report.ok:
        told.append(f"whole; root {report.root}")
    return "\n".join(told)
