"""In which home, and for which tenant, a command about a registered version is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dataset_guard.registry.refs import parse_ref

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.identity import Principal


@contextmanager
def opened_home(home: Home | None) -> Iterator[Home]:
    """``home`` as it is, or the home that the settings name, closed again at the end."""
    if home is not None:
        yield home
        return
    from guard_core.home import Home as Opened

    with Opened.open() as opened:
        yield opened


def caller_of(home: Home, text: str, *, tenant: str | None = None) -> Principal:
    """Who asks about the version ``text``: the credential, acting for the tenant that owns it.

    A platform admin may name any tenant's version. Raises Denied for anybody else's, UserError for a
    tenant that does not exist or text that is no reference.
    """
    principal = home.principal(tenant=tenant)
    owner = parse_ref(text, tenant=principal.tenant).tenant
    return principal if owner == principal.tenant else home.principal(tenant=owner)
