"""``trainguard config``: what is in force, and why."""

from __future__ import annotations

import json
from typing import Any

import click

from guard_core.config import SECRET_KEYS, flat
from guard_core.output import format_option
from guard_core.storage import Storage


@click.group()
def config() -> None:
    """Show the settings in force and where each comes from."""


@config.command()
@format_option("text", "json")
@click.pass_context
def show(ctx: click.Context, output_format: str) -> None:
    """Print every setting with its origin. Secrets are masked."""
    settings, origins = ctx.obj.settings_with_origins()
    rows = {key: (_shown(key, value), origins[key]) for key, value in flat(settings).items()}
    if output_format == "json":
        click.echo(json.dumps({k: {"value": v, "origin": o} for k, (v, o) in rows.items()}, indent=2))
        return
    width = max(map(len, rows))
    values = {key: "(not set)" if value is None else str(value) for key, (value, _) in rows.items()}
    wide = max(map(len, values.values()))
    for key, (_, origin) in rows.items():
        click.echo(f"{key:<{width}}  {values[key]:<{wide}}  {origin}")


def _shown(key: str, value: Any) -> str | int | None:
    if value is None:
        return None
    if key == "storage_url":
        return Storage(str(value)).safe_url
    if key in SECRET_KEYS:
        return "********"
    return value if isinstance(value, int) else str(value)
