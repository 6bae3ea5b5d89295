"""``trainguard tenant``: issue, list and revoke credentials."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from guard_core.clock import rfc3339
from guard_core.errors import Denied, UserError
from guard_core.output import format_option

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.identity import Credential, Principal

_LIFETIME = re.compile(r"^(\d+)([smhd])$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.group()
def tenant() -> None:
    """Issue, list and revoke credentials."""


@tenant.command()
@click.argument("tenant_name", metavar="TENANT")
@click.option("--user", required=True, help="Who holds the credential.")
@click.option("--role", "roles", multiple=True, help="A role, e.g. platform-admin. May be repeated.")
@click.option("--ttl", help="Lifetime, e.g. 90d, 12h. Without it the credential does not expire.")
@click.pass_context
def issue(ctx: click.Context, tenant_name: str, user: str, roles: tuple[str, ...], ttl: str | None) -> None:
    """Make a credential for TENANT and print its token, this once, on stdout."""
    home: Home = ctx.obj.home()
    admin = _admin(home)
    if tenant_name not in home.tenants():
        known = ", ".join(sorted(home.tenants())) or "none"
        raise UserError(
            f"there is no tenant {tenant_name!r} in the policy data (known: {known}); add it to tenants.yaml"
        )
    token = home.credentials.issue(tenant=tenant_name, user=user, roles=roles, ttl_seconds=_seconds(ttl))
    credential_id = token.split("_")[1]
    data = {
        "credential_id": credential_id,
        "tenant": tenant_name,
        "user": user,
        "roles": list(roles),
        "ttl": ttl,
    }
    try:
        _record(home, "credential.issued", credential_id, admin, data)
    except BaseException:
        home.credentials.revoke(credential_id)  # a credential that is on no record must not work
        raise
    click.echo(
        f"credential {credential_id} for {user} of {tenant_name}; the token is shown this once:", err=True
    )
    click.echo(token)


@tenant.command("list")
@format_option("text", "json")
@click.pass_context
def list_(ctx: click.Context, output_format: str) -> None:
    """List credentials (never their tokens)."""
    home: Home = ctx.obj.home()
    asker = home.principal()
    seen = [c for c in home.credentials.list() if asker.is_platform_admin or c.tenant == asker.tenant]
    now = home.clock()
    if output_format == "json":
        click.echo(json.dumps([_shape(c, now) for c in seen], indent=2))
        return
    for c in seen:
        until = f"until {c.expires_at:%Y-%m-%d %H:%M}Z" if c.expires_at else "no expiry"
        bound = f"  {c.workload}" if c.workload else ""
        roles = ",".join(c.roles) or "-"
        click.echo(f"{c.id}  {c.state(now):<7}  {c.kind:<6}  {c.tenant}/{c.user}  {roles}  {until}{bound}")


@tenant.command()
@click.argument("credential_id")
@click.pass_context
def revoke(ctx: click.Context, credential_id: str) -> None:
    """End a credential now."""
    home: Home = ctx.obj.home()
    admin = _admin(home)
    home.credentials.revoke(credential_id)
    _record(home, "credential.revoked", credential_id, admin, {"credential_id": credential_id})
    click.echo(f"credential {credential_id} is revoked", err=True)


def _admin(home: Home) -> Principal:
    principal = home.principal()
    if not principal.is_platform_admin:
        raise Denied(
            f"{principal.user} of tenant {principal.tenant} may not change credentials: "
            "that takes a platform admin"
        )
    return principal


def _record(home: Home, kind: str, subject: str, admin: Principal, data: dict[str, Any]) -> None:
    from guard_core.findings import Enforcement

    by = {"by": f"{admin.tenant}/{admin.user}", "by_credential_id": admin.credential_id}
    home.audit.event(kind, subject=subject, data={**data, **by}, enforcement=Enforcement.COOPERATIVE)


def _seconds(ttl: str | None) -> int | None:
    if ttl is None:
        return None
    match = _LIFETIME.match(ttl)
    if match is None:
        raise UserError(f"--ttl {ttl!r} is not a lifetime; write a number with s, m, h or d, e.g. 90d")
    return int(match[1]) * _SECONDS[match[2]]


def _shape(credential: Credential, now: datetime) -> dict[str, Any]:
    return {
        "id": credential.id,
        "state": credential.state(now),
        "kind": credential.kind,
        "tenant": credential.tenant,
        "user": credential.user,
        "roles": list(credential.roles),
        "workload": credential.workload,
        "datasets": list(credential.datasets),
        "created_at": rfc3339(credential.created_at),
        "expires_at": rfc3339(credential.expires_at) if credential.expires_at else None,
        "revoked_at": rfc3339(credential.revoked_at) if credential.revoked_at else None,
    }
