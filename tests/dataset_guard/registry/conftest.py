"""People of one home, for tests in which one person alone may not do it."""

import pytest
from pydantic import SecretStr

from guard_core.home import Home


@pytest.fixture
def people(home):
    """``people(user, tenant, *roles)``: the same home, opened with that person's own credential."""
    opened = []

    def person(user, tenant="acme", *roles, kind="tenant", **more):
        token = home.credentials.issue(tenant=tenant, user=user, roles=roles, kind=kind, **more)
        settings = home.settings.model_copy(update={"token": SecretStr(token)})
        opened.append(Home.open(settings, clock=home.clock))
        return opened[-1]

    yield person
    for each in opened:
        each.close()
