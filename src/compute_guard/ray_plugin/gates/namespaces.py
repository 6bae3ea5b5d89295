"""Ray namespaces, one set per tenant: ``ns`` is stored as ``ns@tenant`` and shown as ``ns`` again.

Refusing foreign namespaces would break Ray's own libraries, which keep singletons under fixed names (Data's
coordinator, Serve's controller); a set per tenant gives every tenant its own.
"""

from __future__ import annotations

from compute_guard.ray_plugin.gates.wire import Refusal


def stored(namespace: str, tenant: str) -> str:
    """What the GCS is told. Raises Refusal for a name that tries to be another tenant's."""
    suffix = "@" + tenant
    bare = namespace.removesuffix(suffix)
    if "@" in bare:
        raise Refusal(f"namespace {namespace} is not one of tenant {tenant}")
    return bare + suffix


def shown(namespace: str, tenant: str) -> str:
    """What the tenant is told."""
    return namespace.removesuffix("@" + tenant)


def question(namespace: str, tenant: str) -> str:
    """The namespace as policy knows it: ``tenant/ns``, or as given when it names a tenant itself."""
    bare = shown(namespace, tenant)
    return bare if "/" in bare else f"{tenant}/{bare}"
