"""Appending to and reading the audit log.

Any number of processes append: each append holds an exclusive file lock, continues from the signed head,
writes its lines in one write, forces them and the head signed for them to disk, then replaces the head.
Nothing is acknowledged before it is on disk. After a crash the torn last line is cut off, kept in a side
file, and its removal is itself recorded (``audit.repaired``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from guard_core.attestation import Signer
from guard_core.audit import record
from guard_core.audit.decision_event import decision_event
from guard_core.audit.head import HEAD_FILE, Head, segment_name
from guard_core.audit.masking import without_secrets
from guard_core.audit.merkle import leaf_hash
from guard_core.audit.segments import first_of, lines, segments
from guard_core.clock import Clock, new_id, rfc3339, system_clock
from guard_core.errors import Tampered, Undecidable
from guard_core.files import locked, replaced_after, sync_directory, write_atomic
from guard_core.findings import Enforcement
from guard_core.policy.decision import Decision
from guard_core.version import __version__

SEGMENT_BYTES = 64 * 1024 * 1024
LOCK_FILE = ".lock"

Event = tuple[str, str, Mapping[str, Any], Enforcement, str]
"""Something that happened: (kind, subject, data, enforcement, decision id)."""


class AuditLog:
    """The audit log in one folder. Construction touches nothing; safe across threads, forks and processes."""

    def __init__(
        self,
        directory: Path,
        *,
        signer: Callable[[], Signer],
        clock: Clock = system_clock,
        segment_bytes: int = SEGMENT_BYTES,
        anchor: Path | None = None,
        masked: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    ) -> None:
        self.directory = directory
        self._signer = signer
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._anchor = anchor
        self._masked = masked
        self._seen: tuple[bytes, Head] | None = None

    def decision(
        self,
        decision: Decision,
        *,
        question: Mapping[str, Any],
        requested_by: str,
        subject: str = "",
        moment: datetime | None = None,
    ) -> str:
        """Record a decision in OPA's decision-log shape; returns its id once it is on disk.

        ``question`` (the policy's input) is kept whole, save what looks like a secret and, where the log was
        made with ``masked``, what that takes out. Raises as :meth:`append`, and what ``masked`` raises.
        """
        when = moment if moment is not None else self._clock()
        self.append(
            self.bodies_of(
                decision, question=question, requested_by=requested_by, subject=subject, moment=when
            )
        )
        return decision.decision_id

    def bodies_of(
        self,
        decision: Decision,
        *,
        question: Mapping[str, Any],
        requested_by: str,
        subject: str,
        moment: datetime,
        difference: Mapping[str, Any] | None = None,
    ) -> list[Mapping[str, Any]]:
        """The records of a decision, for :meth:`append`: it, and what a staged candidate said otherwise."""
        body: Mapping[str, Any] = decision_event(
            decision, question=question, requested_by=requested_by, subject=subject, moment=moment
        )
        if self._masked is not None:
            body = self._masked(body)
        if difference is None:
            return [body]
        event = self._event(
            "policy.difference", subject, difference, Enforcement.DETECTIVE, decision.decision_id
        )
        return [body, event]

    def bodies_of_events(self, events: Sequence[Event]) -> list[Mapping[str, Any]]:
        """The records of events that happen now, for :meth:`append`."""
        now = rfc3339(self._clock()) if events else ""
        return [self._event(*event, timestamp=now) for event in events]

    def events(self, events: Sequence[Event]) -> None:
        """:meth:`event` of several, all or none."""
        if events:
            self.append(self.bodies_of_events(events))

    def event(
        self,
        kind: str,
        *,
        subject: str,
        data: Mapping[str, Any],
        enforcement: Enforcement,
        decision_id: str = "",
    ) -> str:
        """Record that something happened; returns the event's id once it is on disk.

        ``kind`` is ``area.what`` (``dataset.registered``).
        Raises as :meth:`append`.
        """
        body = self._event(kind, subject, data, enforcement, decision_id)
        self.append([body])
        return str(body["event_id"])

    def _event(
        self,
        kind: str,
        subject: str,
        data: Mapping[str, Any],
        enforcement: Enforcement,
        decision_id: str = "",
        timestamp: str = "",
    ) -> dict[str, Any]:
        erased: list[str] = []
        body: dict[str, Any] = {
            "kind": kind,
            "event_id": new_id("evt"),
            "subject": subject,
            "data": without_secrets(data, "/data", erased),
            "enforcement": enforcement.value,
            "decision_id": decision_id,
            "timestamp": timestamp or rfc3339(self._clock()),
            "labels": {"app": "trainguard", "version": __version__},
        }
        return {**body, "erased": erased} if erased else body

    def append(self, bodies: Sequence[Mapping[str, Any] | bytes]) -> int:
        """Append records in order, all or none; returns the first one's number. Bytes are `record.prepared`.

        Raises Tampered when the log does not continue its signed head, Undecidable when it cannot be written,
        TypeError or ValueError when a body is not JSON (in each case nothing was written).
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with locked(self.directory / LOCK_FILE):
                head = self._recovered(self._head())
                return self._write(head, bodies).size - len(bodies)
        except OSError as error:
            raise Undecidable(
                f"the audit log {self.directory} cannot be written ({error.strerror or error}), "
                "so nothing may happen; free space or mend its permissions"
            ) from error

    def recover(self) -> None:
        """Repair what a crash left, if anything (run when a home is opened). Raises Tampered, OSError.

        Looks at sizes only, and takes no lock, when there is nothing to do.
        """
        files = segments(self.directory)
        if not files:
            return
        try:
            head = self._head()
        except Tampered:
            return  # for `audit verify` to report and the next append to refuse; reading must stay possible
        if files[-1].name == head.segment and files[-1].stat().st_size == head.offset:
            return
        with locked(self.directory / LOCK_FILE):
            try:
                self._recovered(self._head())
            except Tampered:
                return

    def head(self) -> Head:
        """The signed head, verified. Raises Tampered."""
        return self._head()

    def records(self, *, since: datetime | None = None, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """Whole records in order, as dicts with their frame. Does not verify: see `verify`.

        ``since`` drops records with an earlier ``timestamp``; ``kind`` keeps one kind, or with a final dot
        (``dataset.``) one area.
        """
        earliest = rfc3339(since) if since is not None else ""
        for path in segments(self.directory):
            for line in lines(path):
                if not line.endswith(b"\n"):
                    return  # being written, or torn by a crash
                value = record.decode(line)
                if record.chosen(value, earliest=earliest, kind=kind):
                    yield value

    def restart(self, *, reason: str, by: str) -> Path:
        """Put a log that cannot be trusted aside, whole, and begin a new one whose first record says why.

        Returns the folder where the old one lies now. Raises OSError, UserError for a signing key in trouble.
        """
        with locked(self.directory / LOCK_FILE):
            now = self._clock()
            aside = self.directory.with_name(
                f"{self.directory.name}-{now:%Y%m%dT%H%M%S}-{new_id('old')[-8:]}"
            )
            aside.mkdir(mode=0o700)
            head = self.directory / HEAD_FILE
            digest = sha256(head.read_bytes()).hexdigest() if head.exists() else ""
            for path in [*segments(self.directory), head, *self.directory.glob("torn-*.bin")]:
                if path.exists():
                    path.rename(aside / path.name)
            data = {"reason": reason, "by": by, "previous": aside.name, "previous_head_sha256": digest}
            note = self._note("audit.restarted", Path(segment_name(0)), data)
            self._write(Head.empty(rfc3339(now)), [note])
        return aside

    # --- one append, under the lock -------------------------------------------------------------------

    def _head(self) -> Head:
        file = self.directory / HEAD_FILE
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return self._begin()
        if self._seen is None or self._seen[0] != content:
            self._seen = (content, Head.verified(content, self._signer().verifier, where=file))
        return self._seen[1]

    def _begin(self) -> Head:
        if segments(self.directory):
            raise Tampered(
                f"the audit log {self.directory} has records but no {HEAD_FILE}: its signed head was removed"
            )
        if self._anchor is not None and self._anchor.exists():
            raise Tampered(
                f"the audit log {self.directory} was removed: {self._anchor} says that it was begun; "
                "restore it from a backup"
            )
        return Head.empty(rfc3339(self._clock()))

    def _recovered(self, head: Head) -> Head:
        """Continue from what is really on disk, recording whatever a crash left behind."""
        files = segments(self.directory)
        if not files and head.size == 0:
            return head
        names = [path.name for path in files]
        if head.segment not in names and not (head.offset == 0 and head.size == first_of(Path(head.segment))):
            raise Tampered(
                f"the audit segment {self.directory / head.segment} is missing; its records were deleted"
            )
        if names[0] != segment_name(0):
            raise Tampered(
                f"the audit log {self.directory} begins at {names[0]}; earlier segments were deleted"
            )
        path = self.directory / head.segment
        size = path.stat().st_size if path.exists() else 0
        if size < head.offset:
            raise Tampered(
                f"the audit log {path} was cut: {head.size} records were signed, "
                f"but it has {size} of their {head.offset} bytes"
            )
        if head.offset:
            self._check_last(path, head)
        later = [p for p in files if p.name > head.segment]
        if size == head.offset and not later:
            return head
        return self._adopt(head, [path, *later])

    def _check_last(self, path: Path, head: Head) -> None:
        with path.open("rb") as file:
            window = min(head.offset, 1 << 16)
            file.seek(head.offset - window)
            tail = file.read(window)
            if tail[:-1].rfind(b"\n") < 0 and window < head.offset:  # one record longer than the window
                file.seek(0)
                tail = file.read(head.offset)
        last = tail[tail[:-1].rfind(b"\n") + 1 :]
        try:
            stated = record.frame(last)[0]
        except record.BadRecord:
            stated = ""
        if stated != head.last or record.content_hash(last) != head.last:
            raise Tampered(
                f"record {head.size - 1} in {path} was changed after signing; run: trainguard audit verify"
            )

    def _adopt(self, head: Head, files: Sequence[Path]) -> Head:
        frontier, last, genesis = head.frontier(), head.last, head.genesis
        offset, torn = head.offset, b""
        for number, path in enumerate(files):
            offset = head.offset if number == 0 else 0
            if not path.exists():
                continue
            for line in lines(path, offset):
                try:
                    stated, prev, seq = record.frame(line)
                except record.BadRecord:
                    stated, prev, seq = "", "", -1
                if not line.endswith(b"\n"):
                    torn = line
                    break
                if (prev, seq) != (last, frontier.size) or record.content_hash(line) != stated:
                    raise Tampered(
                        f"record {frontier.size} in {path} does not continue the signed log; "
                        "run: trainguard audit verify"
                    )
                last = stated
                genesis = stated if frontier.size == 0 else genesis
                frontier.add(leaf_hash(record.entry(line)))
                offset += len(line)
        notes: list[dict[str, Any]] = []
        if torn:
            notes.append(self._cut(files[-1], offset, torn))
        if frontier.size > head.size:
            data = {"first": head.size, "last": frontier.size - 1}
            notes.append(self._note("audit.recovered", files[-1], data))
        found = Head.of(frontier, genesis, last, files[-1].name, offset, rfc3339(self._clock()))
        return self._write(found, notes) if notes else found

    def _cut(self, path: Path, offset: int, torn: bytes) -> dict[str, Any]:
        """Take a torn last line out of the log. Its bytes are kept beside it: they may be evidence."""
        digest = sha256(torn).hexdigest()
        write_atomic(self.directory / f"torn-{digest[:16]}.bin", torn, mode=0o600)
        with path.open("r+b") as file:
            file.truncate(offset)
            os.fsync(file.fileno())
        return self._note("audit.repaired", path, {"bytes": len(torn), "sha256": digest})

    def _note(self, kind: str, path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
        return self._event(kind, path.name, data, Enforcement.DETECTIVE)

    def _write(self, head: Head, bodies: Sequence[Mapping[str, Any] | bytes]) -> Head:
        frontier, last, genesis, chunks = head.frontier(), head.last, head.genesis, []
        first = frontier.size
        for body in bodies:
            line, last = record.encode(body, seq=frontier.size, prev=last)
            genesis = last if frontier.size == 0 else genesis
            frontier.add(leaf_hash(record.entry(line)))
            chunks.append(line)
        segment, offset = head.segment, head.offset
        if offset >= self._segment_bytes:
            segment, offset = segment_name(first), 0
        signer = self._signer()
        if not (self.directory / HEAD_FILE).exists():
            # The head comes before the first record, so that records without a head are never innocent.
            write_atomic(self.directory / HEAD_FILE, head.sign(signer), mode=0o600)
        if self._anchor is not None and not self._anchor.exists():
            write_atomic(self._anchor, b"an audit log was begun here\n", mode=0o600)
        content = b"".join(chunks)
        new = Head.of(frontier, genesis, last, segment, offset + len(content), rfc3339(self._clock()))
        signed = new.sign(signer)
        # A head that lost its name with the power is the one before: the next append adopts what follows it.
        with replaced_after(self.directory / HEAD_FILE, signed, mode=0o600):
            _append_durably(self.directory / segment, offset, content)
        self._seen = (signed, new)
        return new


def _append_durably(path: Path, offset: int, content: bytes) -> None:
    """Write all of ``content`` at ``offset`` (the file's end) and force it to disk, or leave it as it was."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, offset)
            raise
    finally:
        os.close(handle)
    if offset == 0:
        sync_directory(path.parent)
