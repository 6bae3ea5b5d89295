"""Choosing the policy engine: what configuration says, never a silent fall-through to another."""

from __future__ import annotations

from guard_core.config import Settings
from guard_core.policy.bundle import Bundle, load_bundle, shipped_policies
from guard_core.policy.decision import PolicyEngine

__all__ = ["bundle_in_force", "make_engine", "shipped_policies"]


def bundle_in_force(settings: Settings) -> Bundle:
    """The policies and data of this configuration, checked. Raises UserError naming file, line and field."""
    return load_bundle(settings.policy.dir or shipped_policies())


def make_engine(settings: Settings) -> PolicyEngine:
    """The engine configuration asks for: ``embedded`` or ``server``. Raises UserError for a broken policy."""
    from guard_core.policy.embedded import EmbeddedEngine

    return EmbeddedEngine(bundle_in_force(settings))
