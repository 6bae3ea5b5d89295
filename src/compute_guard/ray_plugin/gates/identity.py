"""Who calls a gate: Ray's own processes, or a tenant. The token says it, and nothing else does.

No process of a tenant is ever given the system's token. That is as good as what keeps a tenant from reading
it: in profile *gate* a habit (`cooperative`), in profile *hardened* the Unix user (`enforced`).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping

import grpc

from compute_guard.ray_plugin.gates.front import Identify
from compute_guard.ray_plugin.gates.wire import REMEMBERED, Metadata, Refusal


def bearer(metadata: Metadata) -> str:
    """The token of a call; empty without one."""
    for name, value in metadata:
        if name == "authorization":
            text = value if isinstance(value, str) else value.decode("ascii", "replace")
            return text.removeprefix("Bearer ").strip()
    return ""


def same(left: str, right: str) -> bool:
    """Whether two tokens are equal and not empty, in constant time."""
    return bool(left) and bool(right) and hmac.compare_digest(left.encode(), right.encode())


def tenant_of(token: str, system: str, tenants: Mapping[str, str]) -> str | None:
    """The tenant of a token, None for the system's. Raises Refusal for a token nobody knows."""
    if same(token, system):
        return None
    found = [tenant for known, tenant in tenants.items() if same(token, known)]
    if not found:
        raise Refusal("the token is known to nobody here", grpc.StatusCode.UNAUTHENTICATED)
    return found[0]


def by_token(system: Callable[[], str], tenants: Callable[[], Mapping[str, str]]) -> Identify:
    """Identifies each call's caller; ``tenants`` gives tenant by token, in a new mapping when it changed."""
    asked: tuple[str, Mapping[str, str]] | None = None
    known: dict[Metadata, str | None] = {}

    def identify(metadata: Metadata) -> str | None:
        nonlocal asked, known
        secret, others = system(), tenants()
        if asked is None or asked[0] != secret or asked[1] is not others or len(known) >= REMEMBERED:
            asked, known = (secret, others), {}
        try:
            # Found by a hash whose key is this process's own: of a wrong token nobody learns from the time
            # this takes how much of it was right.
            return known[metadata]
        except KeyError:
            tenant = known[metadata] = tenant_of(bearer(metadata), secret, others)
            return tenant

    return identify
