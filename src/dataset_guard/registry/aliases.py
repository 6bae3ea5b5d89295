"""Moving an alias: a change of what people and jobs will read, so it is on record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataset_guard.registry.caller import caller_of
from dataset_guard.registry.store import Registry, Version
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from guard_core.home import Home


def move_alias(home: Home, ref: str, alias: str, *, tenant: str | None = None) -> Version:
    """Let ``alias`` name the version ``ref``; returns it. Raises UserError, Denied, Tampered."""
    principal = caller_of(home, ref, tenant=tenant)
    registry = Registry(home)
    reference = registry.reference(ref, tenant=principal.tenant)
    version = reference.version
    before = registry.aliases(version.name, tenant=version.tenant).get(alias)
    registry.check_alias(alias)
    home.audit.event(
        "dataset.alias",
        subject=f"{version.tenant}/{version.name}@{alias}",
        data={"from": before, "to": version.version, "by": principal.user},
        enforcement=Enforcement.COOPERATIVE,
    )
    registry.set_alias(version, alias)
    return version
