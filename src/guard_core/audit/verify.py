"""Proving that a log is whole, or naming the record where it is not.

One pass over the bytes, no JSON parsing: each line's own hash, its link to the line before, its number,
and the Merkle root against the signed head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from guard_core.attestation import Verifier
from guard_core.audit import record
from guard_core.audit.head import ANCHOR_FILE, HEAD_FILE, Head
from guard_core.audit.merkle import Frontier
from guard_core.audit.segments import first_of, lines, segments
from guard_core.errors import Tampered, UserError

PROBLEM_LIMIT = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong. ``record`` is the number of the record concerned, None for the log as a whole."""

    message: str
    record: int | None = None
    file: str = ""
    line: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The documented shape."""
        return {"record": self.record, "file": self.file, "line": self.line, "message": self.message}


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What :func:`verify` found. ``head`` is the hash of the last record, ``root`` the Merkle root (hex).

    ``signed`` counts the records covered by a verified signed head; ``torn_bytes`` is what a crash left after
    the last whole record (repaired at the next open, no problem in itself).
    """

    ok: bool
    records: int
    head: str
    root: str
    signed: int
    torn_bytes: int = 0
    problems: tuple[Problem, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """The documented shape of ``trainguard audit verify --format json``."""
        return {
            "ok": self.ok,
            "records": self.records,
            "signed": self.signed,
            "head": self.head,
            "root": self.root,
            "torn_bytes": self.torn_bytes,
            "problems": [problem.to_json() for problem in self.problems],
        }


def verify(path: Path, *, verifier: Verifier | None = None, witness: bytes | None = None) -> AuditReport:
    """Check the log in folder ``path`` (or one ``.jsonl`` file: chain only, signed by nobody).

    ``verifier`` holds the trusted public keys; by default those in ``../keys``. ``witness`` is a signed head
    kept from earlier (``trainguard audit head``): the log must continue it. Raises UserError when there is
    nothing to check. Problems are listed in order, at most 20.
    """
    if path.exists() and not path.is_dir():
        return _Check([path], None, None, [], first=None).run()
    if not path.is_dir():
        raise UserError(f"there is no audit log at {path}; give its folder, or set TRAINGUARD_HOME")
    keys = verifier if verifier is not None else Verifier.of(path.parent / "keys")
    problems: list[Problem] = []
    head = _read_head(path / HEAD_FILE, keys, problems)
    kept = None
    if witness is not None:
        try:
            kept = Head.verified(witness, keys, where=Path("--head"))
        except Tampered as error:
            problems.append(Problem(str(error)))
    files = segments(path)
    if not files and head is None and (path.parent / "keys" / ANCHOR_FILE).exists():
        problems.append(Problem(f"the audit log {path} was removed: it was begun, and nothing of it is left"))
    if not files and head is None and not problems:
        raise UserError(f"there is no audit log at {path}; give its folder, or set TRAINGUARD_HOME")
    return _Check(files, head, kept, problems, first=0).run()


def _read_head(file: Path, keys: Verifier, problems: list[Problem]) -> Head | None:
    try:
        return Head.verified(file.read_bytes(), keys, where=file)
    except FileNotFoundError:
        if segments(file.parent):
            problems.append(Problem(f"the signed head {file} is missing: the log's end cannot be proved"))
    except Tampered as error:
        problems.append(Problem(str(error), file=file.name))
    return None


class _Check:
    """One pass over a log."""

    def __init__(
        self,
        files: list[Path],
        head: Head | None,
        kept: Head | None,
        problems: list[Problem],
        first: int | None,
    ) -> None:
        self.files = files
        self.head = head
        self.kept = kept
        self.problems = problems
        self.first = first  # the number the log must begin with; None = wherever the file begins

    def run(self) -> AuditReport:
        frontier, count, last, torn = self._chain()
        if self.head is not None and self.head.size > count:
            self._say(
                f"the log was cut: {self.head.size} records were signed, {count} are there "
                f"(records {count} to {self.head.size - 1} are missing)",
                number=count,
            )
        if self.kept is not None and self.kept.size > count:
            self._say(f"the log does not reach the kept head of {self.kept.size} records", number=count)
        return AuditReport(
            ok=not self.problems,
            records=count,
            head=last,
            root=frontier.root().hex(),
            signed=min(self.head.size, count) if self.head is not None and not self.problems else 0,
            torn_bytes=torn,
            problems=tuple(self.problems[:PROBLEM_LIMIT]),
        )

    def _chain(self) -> tuple[Frontier, int, str, int]:
        frontier = Frontier()
        add, digest = frontier.add, sha256
        count, last, torn, base = 0, record.GENESIS, 0, 0
        marks = {h.size: h for h in (self.head, self.kept) if h is not None}
        for number, path, line in self._lines():
            try:
                stated, prev, seq = record.frame(line)
            except record.BadRecord as error:
                if path == self.files[-1] and not line.endswith(b"\n"):
                    torn = len(line)
                    break
                self._say(f"record {count} is damaged: {error}", count, path, number)
                stated, prev, seq = "", last, count
            if count == 0 and self.first is None:
                last, base = prev, seq
            if seq != base + count:
                self._say(
                    f"record {base + count} is missing: record {seq} stands in its place",
                    base + count,
                    path,
                    number,
                )
                base = seq - count
            elif last and prev != last:  # a damaged line said nothing to compare with
                self._say(
                    f"record {seq} does not follow the record before it: one of them was changed or moved",
                    seq,
                    path,
                    number,
                )
            if stated and digest(b"{" + line[76:-1]).hexdigest() != stated:
                self._say(f"record {seq} was changed: its content does not match its hash", seq, path, number)
            last = stated
            add(digest(b"\x00" + line[:-1]).digest())
            count += 1
            if count in marks:
                self._compare(marks[count], frontier, stated)
        return frontier, count, last, torn

    def _lines(self) -> Iterator[tuple[int, Path, bytes]]:
        seen = 0
        for path in self.files:
            if self.first is not None and first_of(path) != seen:
                self._say(
                    f"segment {path.name} begins at record {first_of(path)} where record {seen} is due: "
                    "a segment was deleted or renamed",
                    seen,
                )
            number = 0
            for number, line in enumerate(lines(path), start=1):
                yield number, path, line
            seen += number

    def _compare(self, mark: Head, frontier: Frontier, last: str) -> None:
        if any(problem.record is not None for problem in self.problems):
            return  # a named record explains the difference; "rewritten" would only repeat it
        which = "the kept head" if mark is self.kept else "the signed head"
        if frontier.root().hex() != mark.root or last != mark.last:
            self._say(f"the first {mark.size} records are not those of {which}: the log was rewritten")

    def _say(
        self, message: str, number: int | None = None, path: Path | None = None, line: int | None = None
    ) -> None:
        if len(self.problems) < PROBLEM_LIMIT:
            self.problems.append(Problem(message, number, path.name if path else "", line))
