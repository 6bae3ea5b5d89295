"""``trainguard dataset``, about one version: prove and check-proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from guard_core.output import format_option

_tenant = click.option("--tenant", metavar="T", help="Tenant to act for [your credential's]")
_file = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("ref", metavar="N@V")
@click.option("--row-file", type=_file, required=True, metavar="F", help="A data file with just the one row.")
@click.option("--out", type=_file, metavar="FILE", help="Write the proof here [standard output].")
@click.option(
    "--opening", type=_file, metavar="FILE", help="Write what ties it to the row (keep it from others)."
)
@_tenant
@click.pass_context
def prove(
    ctx: click.Context, ref: str, row_file: Path, out: Path | None, opening: Path | None, tenant: str | None
) -> None:
    """Prove to somebody with our public key alone that a row is, or is not, in N@V."""
    from dataset_guard.prove import prove as run
    from guard_core.files import write_atomic

    found = run(ref, row_file, tenant=tenant, home=ctx.obj.home())
    if opening is not None:
        write_atomic(opening, json.dumps(found.opening).encode() + b"\n", mode=0o600)
    if out is None:
        click.echo(found.to_bytes())
    else:
        write_atomic(out, found.to_bytes() + b"\n")
    click.echo(f"the row is {'' if found.present else 'not '}in {found.ref}", err=True)


@click.command("check-proof")
@click.argument("proof", type=_file, metavar="PROOF.json")
@click.option(
    "--key", type=click.Path(path_type=Path), required=True, metavar="PUB", help="The public key (PEM)."
)
@click.option("--row-file", type=_file, metavar="F", help="Also: is it about this row?")
@click.option("--opening", type=_file, metavar="FILE", help="The opening that came with the row.")
@format_option("text", "json")
def check_proof(
    proof: Path, key: Path, row_file: Path | None, opening: Path | None, output_format: str
) -> None:
    """Check a row proof with a public key; needs no home and no data."""
    from dataset_guard.prove import check_proof as run
    from dataset_guard.prove import load_json
    from guard_core.attestation import Verifier

    found = run(
        load_json(proof, "the proof"),
        Verifier.of(key),
        row=row_file,
        opening=None if opening is None else load_json(opening, "the opening"),
    )
    if output_format == "json":
        _echo_json(found.to_json())
        return
    about = (
        "this row"
        if found.row_checked
        else "the row it was made for (give --row-file and --opening to see which)"
    )
    click.echo(f"{about} is {'' if found.present else 'not '}among the {found.rows:,} rows of {found.ref}")


def _echo_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


COMMANDS = (prove, check_proof)
