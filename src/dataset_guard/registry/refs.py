"""How people name a registered version: ``[tenant/]name[@version | @alias]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from guard_core.errors import UserError
from guard_core.identity import NAME as TENANT_NAME

DATASET_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$")
"""Dataset names: they become folder names."""

ALIAS = re.compile(r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")
"""Alias names: they begin with a letter, so they are never taken for a version."""

_VERSION = re.compile(r"^[1-9][0-9]{0,9}$")


@dataclass(frozen=True, slots=True)
class Ref:
    """A parsed reference. At most one of ``version`` and ``alias`` is set; neither means the latest."""

    tenant: str
    name: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        selector = self.version if self.version is not None else self.alias
        return f"{self.tenant}/{self.name}" + ("" if selector is None else f"@{selector}")


def parse_ref(text: str, *, tenant: str) -> Ref:
    """``text`` as seen from ``tenant``. Raises UserError for anything that is not a reference."""
    place, slash, rest = text.rpartition("/")
    name, at, selector = rest.partition("@")
    owner = place if slash else tenant
    fine = TENANT_NAME.match(owner) and DATASET_NAME.match(name) and bool(selector) == bool(at)
    if fine and not at:
        return Ref(owner, name)
    if fine and _VERSION.match(selector):
        return Ref(owner, name, version=int(selector))
    if fine and ALIAS.match(selector):
        return Ref(owner, name, alias=selector)
    raise UserError(
        f"{text!r} is not a dataset reference; write name, name@version, name@alias or tenant/name@version"
    )


def check_dataset_name(name: str) -> str:
    """``name`` when it can name a dataset. Raises UserError."""
    if not DATASET_NAME.match(name):
        raise UserError(
            f"dataset name {name!r} cannot be used; take letters, digits, '.', '_' and '-' (128 at most)"
        )
    return name
