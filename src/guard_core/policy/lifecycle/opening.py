"""Which policies a home uses: the configured directory, else its policy store, else the shipped ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guard_core.findings import Enforcement
from guard_core.policy.bundle import Bundle
from guard_core.policy.decision import PolicyEngine
from guard_core.policy.lifecycle.store import PolicyStore

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from guard_core.home import Home


def store_of(home: Home) -> PolicyStore:
    """The home's policy store, whether it exists yet or not."""
    return PolicyStore(home.path("policy"), keys=home.path("keys", "policy"), signer=lambda: home.signer)


def base_of(home: Home) -> Bundle:
    """The policies a home begins with: the configured directory or the shipped ones, gate passed."""
    from guard_core.policy.engine import accepted, bundle_in_force

    return accepted(bundle_in_force(home.settings))


def engine_of(home: Home) -> PolicyEngine:
    """The home's engine. A directory named in the settings, or an OPA server, goes before the store.

    Raises UserError for a broken directory, Tampered for a store that was changed.
    """
    policy = home.settings.policy
    if policy.dir is not None or policy.engine != "embedded":
        from guard_core.policy.engine import make_engine

        return make_engine(home.settings)
    from guard_core.policy.lifecycle.active import ActivePolicies

    def notify(kind: str, data: Mapping[str, Any]) -> None:
        home.audit.event(kind, subject="policy", data=data, enforcement=Enforcement.COOPERATIVE)

    def expire() -> None:
        from guard_core.policy.lifecycle.steps import end_emergency

        end_emergency(home)

    return ActivePolicies(
        store_of(home), lambda: base_of(home), notify=notify, expire=expire, clock=home.clock
    )


def bundle_of_revision(home: Home, revision: str) -> Bundle | None:
    """The policies that decided under ``revision``, when they are in force or the store has kept them."""
    from guard_core.errors import GuardError
    from guard_core.policy.lifecycle.bundle_archive import read_archive

    store = store_of(home)
    try:
        in_force = bundle_of(home)
        if in_force.revision == revision:
            return in_force
        for path in sorted((store.directory / "versions").glob("*.tar.gz")):
            kept = read_archive(path, store.verifier())
            if kept.revision == revision:
                return kept.bundle
    except GuardError:  # what cannot be trusted explains nothing
        return None
    return None


def bundle_of(home: Home) -> Bundle:
    """The policies and data in force, for code that needs data rather than decisions. Raises GuardError."""
    if home.settings.policy.dir is None:
        store = store_of(home)
        state = store.state()
        if state is not None:
            return store.open(state.active).bundle
    return base_of(home)
