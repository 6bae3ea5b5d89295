"""The engine of a home: follows the policy store, stages included, without dropping a decision.

Every decision first looks whether the store's state file is another one (one ``stat``); if so, the new
state is verified, its bundles are compiled, and one reference is replaced. A state or bundle that cannot
be trusted or compiled is recorded and left aside: what was in force stays. A process that starts has
nothing in force to keep, so there it decides nothing until the store is mended (fail closed).

A decision is made under one bundle from beginning to end, and its answer names that bundle's revision.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from guard_core.clock import Clock, system_clock, to_ns
from guard_core.errors import GuardError
from guard_core.policy.bundle import Bundle
from guard_core.policy.decision import Answer
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.lifecycle.staging import combined, subject_of
from guard_core.policy.lifecycle.state import Held, Stage, State
from guard_core.policy.lifecycle.stepwise import building, require_compiles, slices
from guard_core.policy.lifecycle.store import PolicyStore, Stamp

CHANGE_AREA = "guard/policy/"
"""Decisions about policies are never made by a candidate or by an emergency bundle."""
BACKGROUND_BYTES = 1 << 20
"""A bundle that unpacks to more than this is loaded beside the decisions, which meanwhile go on as before."""
STEP_SECONDS = 0.002
GIVE_WAY_SECONDS = 0.00005
PATIENCE_SECONDS = 10.0
"""How long a busy thread may go on with the former bundle while it builds the new one in steps."""

_NOTHING_REFUSED: Stamp = (-1, -1, -1)  # None would be the stamp of a store that was removed

Notify = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class InForce:
    """Everything one decision needs, taken together: what is in force cannot change half way."""

    stamp: Stamp | None
    generation: int
    active: Bundle
    stage: Stage | None
    staged: Bundle | None
    emergency: Bundle | None
    until_ns: int
    data: Mapping[str, tuple[str, ...]]
    held: Mapping[str, Bundle]
    before: InForce | None = None
    patience: float = 0.0

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """All the bundles a decision may need."""
        return tuple(b for b in (self.active, self.staged, self.emergency) if b is not None)


class ActivePolicies(EmbeddedEngine):
    """Answers under what the store has in force; under ``base()`` while there is no store."""

    def __init__(  # not EmbeddedEngine's: what is in force comes from the store
        self,
        store: PolicyStore,
        base: Callable[[], Bundle],
        *,
        notify: Notify = lambda _kind, _data: None,
        expire: Callable[[], None] = lambda: None,
        clock: Clock = system_clock,
        background_bytes: int = BACKGROUND_BYTES,
    ) -> None:
        self.name = f"embedded/regorus-{version('gordon-to-regorus')}"
        self._store = store
        self._base = base
        self._notify = notify
        self._expire = expire
        self._clock = clock
        self._background_bytes = background_bytes
        self._local = threading.local()
        self._loading = threading.Lock()
        self._refused: Stamp | None = _NOTHING_REFUSED
        self._problem = ""
        self._expired = -1
        self._force = self._loaded(None)

    # --- what is in force -----------------------------------------------------------------------------

    @property
    def revision(self) -> str:
        """Revision of the bundle in force."""
        return self.bundle.revision

    @property
    def bundle(self) -> Bundle:
        """The bundle in force now (the emergency's while there is one)."""
        force = self._current()
        if force.emergency is not None and to_ns(self._clock()) < force.until_ns:
            return force.emergency
        return force.active

    def sole_bundle(self) -> Bundle | None:
        """The active bundle while no stage and no emergency counts beside it."""
        force = self._usable_here(self._current())
        return force.active if force.stage is None and force.emergency is None else None

    @property
    def generation(self) -> int:
        """Number of the state in force; 0 without a store."""
        return self._current().generation

    def activate(self, bundle: Bundle) -> None:
        """Not here: what is in force changes through the store only, signed, decided and recorded."""
        raise NotImplementedError(f"put {bundle.revision} in force with: trainguard policy promote")

    def health(self) -> Sequence[str]:
        """Why a newer state of the store was left aside, when it was."""
        return (self._problem,) if self._problem else ()

    def refresh(self) -> None:
        """Take over the store's newest state now, in this thread. Keeps what is in force on any trouble."""
        with self._loading:
            self._take_over(self._store.stamp())

    def _current(self) -> InForce:
        force = self._force
        stamp = self._store.stamp()
        if stamp == force.stamp or stamp == self._refused:
            return force
        if not self._loading.acquire(blocking=False):
            # Another thread is at it; nobody waits for it, but it must get a turn: CPython hands its lock
            # over when a waiter's 5 ms run out undisturbed, and the look above lets go of it and takes it
            # back at every decision, so a thread that only decides could keep the loader waiting for ever.
            time.sleep(GIVE_WAY_SECONDS)
            return force
        if stamp == self._force.stamp:  # it was done between the two looks
            self._loading.release()
            return self._force
        try:
            if self._is_large(stamp):
                threading.Thread(target=self._load_aside, name="policy-reload", daemon=True).start()
                return force
        except BaseException:
            self._loading.release()
            raise
        try:
            self._take_over(stamp)
        finally:
            self._loading.release()
        return self._force

    def _is_large(self, stamp: Stamp | None) -> bool:
        if stamp is None:
            return False
        with suppress(GuardError, OSError):
            state = self._store.state()
            wanted = [] if state is None else _wanted(state)
            new = sum(held.size for held in wanted if held.digest not in self._force.held)
            return new > self._background_bytes
        return False

    def _load_aside(self) -> None:
        # The lock was taken by the thread that started this one; a lock may be released by any thread.
        try:
            self._take_over(self._store.stamp())
        finally:
            self._local.engines = {}  # this thread's engines must not outlive it
            self._loading.release()

    def _take_over(self, stamp: Stamp | None) -> None:
        before = self._force
        try:
            force = self._loaded(stamp)
            if force.generation < before.generation:
                raise GuardError(
                    f"the policy store went back from state {before.generation} to {force.generation}; "
                    "restore the newest"
                )
        except (GuardError, OSError) as error:
            self._refused, self._problem = stamp, str(error)
            # The log may be what is broken: then the next decision says so, and this one still counts.
            with suppress(GuardError):
                self._notify(
                    "policy.reload-refused", {"reason": str(error), "in_force": before.active.revision}
                )
            return
        patience = time.monotonic() + PATIENCE_SECONDS
        self._force = replace(force, before=replace(before, before=None), patience=patience)
        self._refused, self._problem = _NOTHING_REFUSED, ""

    def _loaded(self, stamp: Stamp | None) -> InForce:
        """The store's state with its bundles opened and compiled. Raises GuardError."""
        known = getattr(self, "_force", None)
        stamp = stamp if stamp is not None else self._store.stamp()
        state = self._store.state()
        if state is None:
            if known is not None:
                raise GuardError("the policy store was removed; restore it from a backup")
            base = self._base()
            force = InForce(None, 0, base, None, None, None, 0, {base.revision: slices(base)}, {})
        else:
            held = {
                h.digest: known.held[h.digest]
                if known is not None and h.digest in known.held
                else self._store.open(h).bundle
                for h in _wanted(state)
            }
            sliced = known.data if known is not None else {}
            force = InForce(
                stamp=stamp,
                generation=state.generation,
                active=held[state.active.digest],
                stage=state.stage,
                staged=None if state.stage is None else held[state.stage.held.digest],
                emergency=None if state.emergency is None else held[state.emergency.held.digest],
                until_ns=0 if state.emergency is None else state.emergency.until_ns,
                data={b.revision: sliced.get(b.revision) or slices(b) for b in held.values()},
                held=held,
            )
        for bundle in force.bundles:
            if known is None or bundle.revision not in known.data:
                require_compiles(bundle)
            data = force.data[bundle.revision]
            # The data of a larger one is taken in by the threads that decide, in steps.
            if len(data) == 1:
                self._built(bundle, data)
        return force

    # --- engines of this thread -----------------------------------------------------------------------

    def _engines(self) -> dict[str, Any]:
        found: dict[str, Any] | None = getattr(self._local, "engines", None)
        if found is None:
            found = self._local.engines = {}
        return found

    def _built(self, bundle: Bundle, data: tuple[str, ...], seconds: float | None = None) -> bool:
        """Whether this thread has an engine for ``bundle`` after building on it for up to ``seconds``."""
        engines = self._engines()
        found = engines.get(bundle.revision)
        if found is None:
            found = engines[bundle.revision] = building(bundle, data)
        if not hasattr(found, "send"):
            return True
        until = None if seconds is None else time.monotonic() + seconds
        try:
            for engine in found:
                if engine is not None:
                    engines[bundle.revision] = engine
                    return True
                if until is not None and time.monotonic() > until:
                    return False
                if len(data) > 1:
                    time.sleep(0)  # let the others decide
        except BaseException:
            engines.pop(bundle.revision, None)
            raise
        raise AssertionError("an engine is always built, or a UserError raised")

    def _engine(self, bundle: Bundle) -> Any:
        found = self._engines().get(bundle.revision)
        if found is None or hasattr(found, "send"):
            self._built(bundle, self._force.data.get(bundle.revision) or slices(bundle))
            found = self._engines()[bundle.revision]
        return found

    def _usable_here(self, force: InForce) -> InForce:
        """``force``, or what was before it while this thread still builds large engines in steps."""
        engines = self._engines()
        before = force.before
        if before is not None and time.monotonic() < force.patience and before.active.revision in engines:
            for bundle in force.bundles:
                data = force.data[bundle.revision]
                if len(data) > 1 and not self._built(bundle, data, STEP_SECONDS):
                    return before
        if len(engines) > len(force.bundles):
            wanted = {bundle.revision for bundle in force.bundles}
            for revision in [r for r in engines if r not in wanted]:
                del engines[revision]
        return force

    # --- deciding -------------------------------------------------------------------------------------

    def evaluate(self, path: str, input: Mapping[str, Any]) -> Answer:  # noqa: A002  # the protocol's name
        """Value of the rule at ``path`` under what is in force, a stage included."""
        force = self._usable_here(self._current())
        bundle = force.active
        if path.startswith(CHANGE_AREA):
            return self._answer(bundle, path, input)
        if force.emergency is not None:
            if to_ns(self._clock()) < force.until_ns:
                return self._answer(force.emergency, path, input)
            self._settle(force)
        if force.stage is None or force.staged is None:
            return self._answer(bundle, path, input)
        stage, candidate = force.stage, force.staged
        if not stage.covers(*subject_of(path, input)):
            return self._answer(bundle, path, input)
        if stage.mode == "enforce":
            return self._answer(candidate, path, input)
        return combined(stage, self._answer(bundle, path, input), self._answer(candidate, path, input))

    def _settle(self, force: InForce) -> None:
        """Record, once per process, that an emergency is over (its bundle already decides nothing)."""
        if self._expired == force.generation:
            return
        self._expired = force.generation
        with suppress(GuardError):
            self._expire()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a home's policies are opened where they are used: pickle the Home instead")


def _wanted(state: State) -> list[Held]:
    """The bundles a state needs, each once."""
    found = [state.active]
    if state.stage is not None:
        found.append(state.stage.held)
    if state.emergency is not None:
        found.append(state.emergency.held)
    return list(dict.fromkeys(found))
