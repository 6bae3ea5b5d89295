"""The policy store: signed bundles, and the signed state that says which of them is in force.

::

    <home>/policy/versions/<digest>.tar.gz   bundles, never changed once written
    <home>/policy/state.json                 DSSE envelope around the state; replaced by one rename
    <home>/policy/.lock                      held while the state changes (the kernel drops it on a crash)
    <home>/keys/policy/                      the key that signs bundles, public keys that are trusted,
                                             and ``generation``, the newest state ever put in force

A crash at any moment leaves the old state or the new one, and its bundle lies complete beside it before
the state names it. An old state put back, or a state removed, is told by ``generation`` and refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from guard_core.attestation import Signer
from guard_core.errors import Tampered, Undecidable, UserError
from guard_core.files import locked, sync_directory, write_atomic
from guard_core.policy.bundle import Bundle
from guard_core.policy.lifecycle.bundle_archive import SignedBundle, build_archive, open_archive, read_archive
from guard_core.policy.lifecycle.bundle_signature import BundleKey, BundleVerifier
from guard_core.policy.lifecycle.state import KEPT, Held, State

STATE_FILE = "state.json"
STATE_TYPE = "application/vnd.trainguard.policy-state+json"

Stamp = tuple[int, int, int]
"""What tells one state file from another without reading it: inode, time and size."""


class PolicyStore:
    """The store of one home. Construction touches nothing; safe across threads and processes."""

    def __init__(self, directory: Path, *, keys: Path, signer: Callable[[], Signer]) -> None:
        self.directory = directory
        self.keys = keys
        self._signer = signer
        self._state_path = os.fspath(directory / STATE_FILE)

    # --- reading --------------------------------------------------------------------------------------

    def stamp(self) -> Stamp | None:
        """One ``stat``: differs whenever the state was replaced. None when there is no store."""
        try:
            found = os.stat(self._state_path)  # noqa: PTH116 - asked at every decision; Path doubles its cost
        except FileNotFoundError:
            return None
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def state(self) -> State | None:
        """The state in force, verified; None when this home has no store.

        Raises Tampered when it was changed, put back to an older one, or removed.
        """
        newest = self._newest()
        try:
            content = Path(self._state_path).read_bytes()
        except FileNotFoundError:
            if newest:
                raise Tampered(
                    f"the policy store {self.directory} was removed, but state {newest} was in force; "
                    "restore it from a backup"
                ) from None
            return None
        except OSError as error:
            raise Undecidable(f"the policy store {self.directory} cannot be read: {error}") from error
        try:
            envelope = json.loads(content)
            payload = self._signer().verifier.verify_bytes(envelope, payload_type=STATE_TYPE)
            state = State.from_json(json.loads(payload))
        except (ValueError, Tampered) as error:
            raise Tampered(f"{self._state_path} was changed: {error}; restore it from a backup") from None
        if state.generation < newest:
            raise Tampered(
                f"{self._state_path} is state {state.generation}, but state {newest} was in force: "
                "an older one was put back; restore the newest"
            )
        return state

    def open(self, held: Held) -> SignedBundle:
        """The bundle ``held``, its signature, content and number checked. Raises Tampered, UserError."""
        path = self.path(held)
        found = read_archive(path, self.verifier())
        if (found.digest, found.sequence, found.revision) != (held.digest, held.sequence, held.revision):
            raise Tampered(f"{path} is not the bundle that was put in force; restore it from a backup")
        return found

    def path(self, held: Held) -> Path:
        """The file of a bundle of this store."""
        return self.directory / "versions" / f"{held.digest}.tar.gz"

    def verifier(self) -> BundleVerifier:
        """Checks bundles against the public keys in ``<home>/keys/policy``."""
        return BundleVerifier.of(self.keys)

    def signing_key(self) -> BundleKey:
        """The key that signs this home's bundles, made at first use. Raises UserError."""
        return BundleKey.open(self.keys)

    # --- changing -------------------------------------------------------------------------------------

    @contextmanager
    def changing(self, base: Callable[[], Bundle]) -> Iterator[Draft]:
        """Hold the store while its state changes; :meth:`Draft.put_in_force` is the moment it does.

        Without a store yet, it begins with ``base()`` as bundle 1.
        Raises Undecidable when it cannot be written.
        """
        try:
            (self.directory / "versions").mkdir(parents=True, exist_ok=True, mode=0o700)
            self.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
            with locked(self.directory / ".lock"):
                state = self.state()
                if state is None:
                    first = self._sign(base(), 1)
                    state = State(generation=0, highest=1, active=first)
                yield Draft(self, state)
        except OSError as error:
            raise Undecidable(
                f"the policy store {self.directory} cannot be written ({error.strerror or error}); "
                "what was in force stays"
            ) from error

    def sign_again(self) -> None:
        """Sign the state in force with the key in use now, if there is one. Raises OSError, Tampered."""
        if self.stamp() is None:
            return
        with locked(self.directory / ".lock"):
            state = self.state()
            if state is not None:
                self._replace(state)

    def _sign(self, bundle: Bundle, sequence: int) -> Held:
        content = build_archive(bundle, sequence=sequence, key=self.signing_key())
        return self._keep(content, sequence, bundle)

    def _keep(self, content: bytes, sequence: int, bundle: Bundle) -> Held:
        size = len(bundle.data_json) + sum(map(len, bundle.modules.values()))
        held = Held(hashlib.sha256(content).hexdigest(), sequence, bundle.revision, size)
        with suppress(FileExistsError):
            write_atomic(self.path(held), content, mode=0o444, exclusive=True)
        return held

    def _newest(self) -> int:
        try:
            return int((self.keys / "generation").read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError):
            raise Tampered(f"{self.keys / 'generation'} does not hold a number; restore it") from None

    def _replace(self, state: State) -> None:
        payload = json.dumps(state.to_json(), sort_keys=True, separators=(",", ":")).encode()
        content = json.dumps(self._signer().sign_bytes(payload, payload_type=STATE_TYPE)).encode()
        path = Path(self._state_path)
        before = self.stamp()
        temporary = path.with_name(f".{STATE_FILE}.{secrets.token_hex(6)}.tmp")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                now = os.fstat(file.fileno()).st_mtime_ns
                # File systems tick in milliseconds and use inodes again: without this, a reader could take
                # the state after next for the one it knows.
                later = now if before is None else max(now, before[1] + 1_000)
                os.utime(file.fileno(), ns=(later, later))
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        sync_directory(path.parent)
        # After the state: a crash between the two leaves a low number, which refuses nothing that is right.
        write_atomic(self.keys / "generation", str(state.generation).encode(), mode=0o600)


class Draft:
    """The store while it is held for a change."""

    def __init__(self, store: PolicyStore, state: State) -> None:
        self._store = store
        self.state = state

    def open(self, held: Held) -> SignedBundle:
        """As :meth:`PolicyStore.open`."""
        return self._store.open(held)

    def sign(self, bundle: Bundle) -> Held:
        """Sign ``bundle`` as the next number and keep it, not yet in force."""
        sequence = self.state.highest + 1
        held = self._store._sign(bundle, sequence)
        self.state = replace(self.state, highest=sequence)
        return held

    def admit(self, path: Path) -> tuple[Held, Bundle]:
        """Keep a bundle that was signed elsewhere, not yet in force.

        Raises Tampered for one that is not whole, not signed by a trusted key, or not newer than every
        bundle accepted before.
        """
        content = path.read_bytes() if path.is_file() else None
        if content is None:
            raise UserError(f"the bundle {path} does not exist")
        try:
            found = open_archive(content, self._store.verifier())
        except Tampered as error:
            raise Tampered(f"the bundle {path} is refused: {error}") from None
        if found.sequence <= self.state.highest:
            raise Tampered(
                f"the bundle {path} is number {found.sequence}, but number {self.state.highest} was accepted "
                "before: an older bundle is not taken; to go back use: trainguard policy rollback"
            )
        held = self._store._keep(content, found.sequence, found.bundle)
        self.state = replace(self.state, highest=found.sequence)
        return held, found.bundle

    def put_in_force(self, state: State, *, former: tuple[Held, ...] | None = None) -> State:
        """Replace the state, atomically and for good: the commit point of every step. Raises OSError.

        What was active becomes the newest of the former ones, unless ``former`` says otherwise.
        """
        if former is None:
            former = state.former
            if state.active != self.state.active:
                former = (self.state.active, *former)[:KEPT]
        new = replace(
            state,
            generation=self.state.generation + 1,
            highest=max(state.highest, self.state.highest),
            former=former,
        )
        self._store._replace(new)
        self.state = new
        return new
