"""What ``trainguard doctor`` looks at in the policy store. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from guard_core.attestation import PRIVATE_KEY, Signer
from guard_core.clock import Clock, system_clock, to_ns
from guard_core.config import Settings
from guard_core.counting import counted
from guard_core.doctor import Probe
from guard_core.errors import GuardError
from guard_core.policy.lifecycle.state import Held, State
from guard_core.policy.lifecycle.store import PolicyStore

AREA = "policy store"
RESTORE = "restore policy/ and keys/policy/ from a backup"


def policy_store(settings: Settings, clock: Clock = system_clock) -> Iterator[Probe]:
    """In force, staged, signatures, emergencies and the reviews that are due."""
    home = settings.home
    store = PolicyStore(
        home / "policy",
        keys=home / "keys" / "policy",
        signer=lambda: Signer.open(home / "keys", settings.signing_key_pem or settings.signing_key),
    )
    # Without a state file and without `generation` there never was a store: then no key is made by looking.
    if store.stamp() is None and not (store.keys / "generation").exists():
        yield Probe(AREA, "state", "info", "none yet: it begins with the first staged change")
        return
    key = settings.signing_key or home / "keys" / PRIVATE_KEY
    if not key.exists():  # opening it would make one
        yield Probe(
            AREA, "state", "broken", f"its signing key {key} is missing", "restore keys/ from a backup"
        )
        return
    try:
        state = store.state()
    except GuardError as error:
        yield Probe(AREA, "state", "broken", str(error), RESTORE)
        return
    assert state is not None
    yield Probe(AREA, "state", "ok", f"generation {state.generation}, signed")
    yield _bundle(store, "in force", state.active)
    if settings.policy.dir is not None or settings.policy.engine == "server":
        other = settings.policy.dir or f"the OPA server {settings.policy.server_url}"
        yield Probe(AREA, "use", "info", f"not asked: the settings name {other}")
    yield from _stage(store, state)
    yield from _emergencies(store, state, to_ns(clock()))


def _bundle(store: PolicyStore, name: str, held: Held) -> Probe:
    try:
        store.open(held)
    except GuardError as error:
        return Probe(AREA, name, "broken", str(error), RESTORE)
    return Probe(AREA, name, "ok", f"bundle {held.sequence}, {held.revision}, as signed")


def _stage(store: PolicyStore, state: State) -> Iterator[Probe]:
    stage = state.stage
    if stage is None:
        return
    found = _bundle(store, "staged", stage.held)
    if found.status != "ok":
        yield found
        return
    reach = ", ".join(stage.tenants) or "all tenants"
    approved = counted(len(stage.valid_approvals), "approval")
    message = f"{found.message}; {stage.mode} for {reach}, {stage.percent} %, by {stage.author}, {approved}"
    yield Probe(AREA, "staged", "ok", message)


def _emergencies(store: PolicyStore, state: State, now_ns: int) -> Iterator[Probe]:
    emergency = state.emergency
    if emergency is not None:
        found = _bundle(store, "emergency", emergency.held)
        until = f"{datetime.fromtimestamp(emergency.until_ns // 1_000_000_000, UTC):%Y-%m-%d %H:%M:%S}Z"
        if found.status != "ok":
            yield found
        elif now_ns < emergency.until_ns:
            message = f"{emergency.id} by {emergency.by} decides until {until}: {emergency.reason}"
            yield Probe(AREA, "emergency", "info", message, "to end it sooner: trainguard policy rollback")
        else:
            yield Probe(AREA, "emergency", "info", f"{emergency.id} ended at {until} and decides nothing")
    for review in state.reviews:
        message = f"{review.id} by {review.by} awaits somebody else's review: {review.reason}"
        remedy = f"run: trainguard policy review {review.id} --verdict justified --note ..."
        yield Probe(AREA, "review", "info", message, remedy)
