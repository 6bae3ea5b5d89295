"""Moving and removing an alias: a change of what people and jobs will read, so it is on record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dataset_guard.registry.approvals import person
from dataset_guard.registry.caller import caller_of
from dataset_guard.registry.store import Registry, Version
from guard_core.errors import UserError
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from guard_core.home import Home


def move_alias(home: Home, ref: str, alias: str, *, tenant: str | None = None) -> Version:
    """Let ``alias`` name the version ``ref``; returns it. Raises UserError, Denied, Tampered."""
    principal = person(caller_of(home, ref, tenant=tenant))
    registry = Registry(home)
    reference = registry.reference(ref, tenant=principal.tenant)
    version = reference.version
    before = registry.aliases(version.name, tenant=version.tenant).get(alias)
    registry.check_alias(alias)
    _on_record(home, version, alias, {"from": before, "to": version.version, "by": principal.user})
    registry.set_alias(version, alias)
    return version


def remove_alias(home: Home, ref: str, alias: str, *, tenant: str | None = None) -> Version:
    """Let ``alias`` no longer name the version ``ref``, which may be deleted; returns it.

    Raises UserError when it does not name that version, Denied.
    """
    principal = person(caller_of(home, ref, tenant=tenant))
    registry = Registry(home)
    version = registry.get_any(ref, tenant=principal.tenant)
    named = registry.aliases(version.name, tenant=version.tenant)
    if named.get(alias) != version.version:
        own = ", ".join(sorted(a for a, number in named.items() if number == version.version))
        raise UserError(f"{version.ref} has no alias {alias!r}; its aliases: {own or 'none'}")
    _on_record(home, version, alias, {"from": version.version, "to": None, "by": principal.user})
    registry.drop_alias(version, alias)
    return version


def _on_record(home: Home, version: Version, alias: str, data: Mapping[str, Any]) -> None:
    home.audit.event(
        "dataset.alias",
        subject=f"{version.tenant}/{version.name}@{alias}",
        data=data,
        enforcement=Enforcement.COOPERATIVE,
    )


def aliases_of(home: Home, *, tenant: str) -> dict[str, list[str]]:
    """``{"tenant/name@version": aliases}``, sorted, of all versions of ``tenant`` that have any."""
    from sqlalchemy import select

    from guard_core.storage.tables import DatasetAliasRow, DatasetRow

    found: defaultdict[str, list[str]] = defaultdict(list)
    with home.storage.reading() as session:
        rows = session.execute(
            select(DatasetRow.name, DatasetAliasRow.version, DatasetAliasRow.alias)
            .join(DatasetRow, DatasetRow.id == DatasetAliasRow.dataset_id)
            .where(DatasetRow.tenant == tenant)
            .order_by(DatasetAliasRow.alias)
        )
        for name, version, alias in rows:
            found[f"{tenant}/{name}@{version}"].append(alias)
    return dict(found)
