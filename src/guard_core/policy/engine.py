"""Choosing the policy engine: what configuration says, never a silent fall-through to another."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from guard_core.config import Settings
from guard_core.errors import UserError
from guard_core.policy.bundle import Bundle, load_bundle, shipped_policies
from guard_core.policy.decision import PolicyEngine

if TYPE_CHECKING:
    from guard_core.policy.rego_ast import Diagnostic

__all__ = ["accepted", "bundle_in_force", "make_engine", "shipped_policies"]


def bundle_in_force(settings: Settings) -> Bundle:
    """The policies and data of this configuration, checked. Raises UserError naming file, line and field."""
    return load_bundle(settings.policy.dir or shipped_policies())


def accepted(bundle: Bundle) -> Bundle:
    """``bundle`` itself when its Rego is portable. Raises UserError naming the first fault's place."""
    faults = _faults(tuple(bundle.modules.items()), frozenset(bundle.config))
    if faults:
        more = f" (and {len(faults) - 1} more: trainguard policy check)" if len(faults) > 1 else ""
        raise UserError(f"{faults[0]}{more}")
    return bundle


# The gate costs 0.2 s, and a process may open many homes, or new data, over the same texts.
@lru_cache(maxsize=16)
def _faults(modules: tuple[tuple[str, str], ...], config: frozenset[str]) -> tuple[Diagnostic, ...]:
    from guard_core.policy.gate import gate

    return gate(dict(modules), config=config)


def make_engine(settings: Settings) -> PolicyEngine:
    """The engine configuration asks for: ``embedded`` or ``server``. Raises UserError for a broken policy."""
    if settings.policy.engine == "server":
        from guard_core.policy.server import ServerEngine, ca_from, client_cert_from, token_from

        policy = settings.policy
        return ServerEngine(
            policy.server_url,
            token=token_from(policy.server_token_file),
            deadline_s=policy.deadline_ms / 1000,
            client_cert=client_cert_from(policy.server_client_cert, policy.server_client_key),
            ca_file=ca_from(policy.server_ca_file),
        )
    from guard_core.policy.embedded import EmbeddedEngine

    return EmbeddedEngine(accepted(bundle_in_force(settings)))
