"""``trainguard keys``: the keys that sign and verify records: list, rotate, retire, revoke, trust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from guard_core.errors import Denied
from guard_core.output import format_option

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.identity import Principal

_key = click.argument("key", metavar="KEY")


@click.group()
def keys() -> None:
    """Keys that sign records, and keys whose records are believed."""


@keys.command("list")
@format_option("text", "json")
@click.pass_context
def list_(ctx: click.Context, output_format: str) -> None:
    """List public keys: which signs now, which are retired or revoked."""
    from guard_core.keys import listed

    found = listed(ctx.obj.home())
    if output_format == "json":
        click.echo(json.dumps(found, indent=2))
        return
    for key in found:
        mark = "signs now" if key["signing"] else key["state"]
        when = key["revoked_at"] or key["retired_at"]
        since = f" since {when[:16]}Z" if when else ""
        why = f"  ({key['reason']})" if key["reason"] else ""
        click.echo(f"{key['key_id'][:16]}  {key['algorithm']:<10}  {mark}{since}{why}")


@keys.command()
@click.option(
    "--algorithm",
    type=click.Choice(["ed25519", "ecdsa-p256", "ecdsa-p384"]),
    default="ed25519",
    show_default=True,
    help="Kind of the new key; model-signing and cosign want an ecdsa one.",
)
@click.pass_context
def rotate(ctx: click.Context, algorithm: str) -> None:
    """Make a new signing key; what the old one signed stays valid, and it signs no more."""
    from guard_core.keys import rotate as run

    home: Home = ctx.obj.home()
    old, new = run(home, by=_admin(home), algorithm=algorithm)
    click.echo(f"key {new[:16]} signs from now on; {old[:16]} is retired, its records stay valid", err=True)


@keys.command()
@_key
@click.pass_context
def retire(ctx: click.Context, key: str) -> None:
    """End the time of a key that signs elsewhere: what it signed until now stays valid."""
    from guard_core.keys import retire as run

    home: Home = ctx.obj.home()
    click.echo(f"key {run(home, key, by=_admin(home))[:16]} is retired", err=True)


@keys.command()
@_key
@click.option("--reason", required=True, help="Why; it is shown wherever the key's records are refused.")
@click.pass_context
def revoke(ctx: click.Context, key: str, reason: str) -> None:
    """Believe nothing that KEY signed, whenever it says it did. Rotate first when it signs now."""
    from guard_core.keys import revoke as run

    home: Home = ctx.obj.home()
    found = run(home, key, reason=reason, by=_admin(home))
    click.echo(
        f"key {found[:16]} is revoked; records it signed are refused until they are endorsed "
        "(trainguard dataset endorse N@V) or made again",
        err=True,
    )


@keys.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="PUB.pem")
@click.pass_context
def trust(ctx: click.Context, file: Path) -> None:
    """Believe what the key in PUB.pem signs (for which tenants: signers.yaml in the policy data)."""
    from guard_core.keys import trust as run

    home: Home = ctx.obj.home()
    click.echo(f"key {run(home, file, by=_admin(home))[:16]} is trusted", err=True)


def _admin(home: Home) -> Principal:
    principal = home.principal()
    if not principal.is_platform_admin:
        raise Denied(
            f"{principal.user} of tenant {principal.tenant} may not change keys: that takes a platform admin"
        )
    return principal
