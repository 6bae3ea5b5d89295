"""Reading recorded decisions in bulk: piece by piece, in several processes, in bounded memory.

The log is cut into pieces at line ends. What a piece is reduced to grows with the number of *distinct*
questions, not of decisions: per question and old outcome a count, GPU-hours and a few decision ids.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from guard_core.audit import record
from guard_core.audit.segments import segments
from guard_core.policy.lifecycle.input_use import InputUse
from guard_core.policy.lifecycle.outcome import Outcome
from guard_core.policy.lifecycle.question_key import Question, QuestionKey

PIECE_BYTES = 8 << 20
EXAMPLES = 3

Place = tuple[str, int]
"""Where a record stands: segment file and byte offset."""
Old = tuple[str, str | None, tuple[str, ...], str]
"""Recorded outcome (kind, verdict, rules) and tenant."""


class Reading(NamedTuple):
    """How a rule path's questions are told apart: what of an input counts, and what of it but the clock.

    ``timeless`` is None where the rules never read the clock's value, or read all of the input.
    """

    use: InputUse
    counted: QuestionKey
    timeless: QuestionKey | None


class _Named(msgspec.Struct, gc=False):
    revision: str


class _Bundles(msgspec.Struct, gc=False):
    guard: _Named


class _Event(msgspec.Struct, gc=False):
    """What replay reads of a decision record. The input and the result stay bytes until they are needed."""

    kind: str
    timestamp: str
    path: str
    decision_id: str
    bundles: _Bundles
    input: msgspec.Raw
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Any = None
    erased: list[str] = msgspec.field(default_factory=list)
    masked: list[str] = msgspec.field(default_factory=list)


class _Principal(msgspec.Struct, gc=False):
    tenant: Any = ""


class _Who(msgspec.Struct, gc=False):
    principal: _Principal | None = None


_event_of = msgspec.json.Decoder(_Event).decode
_who_asked = msgspec.json.Decoder(_Who).decode


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes ``first`` to ``last`` of a segment: the lines that begin there."""

    path: str
    first: int
    last: int


@dataclass(slots=True)
class Tally:
    """Decisions that ask the same and were answered the same."""

    count: int = 0
    gpu_hours: float = 0.0
    examples: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count ``other`` too; the examples stay few."""
        self.count += other.count
        self.gpu_hours += other.gpu_hours
        self.examples = (self.examples + other.examples)[:EXAMPLES]


@dataclass(slots=True)
class Gathered:
    """What was found in some pieces. Merging is a sum, so pieces may be read anywhere in any order."""

    decisions: int = 0
    allows: int = 0
    tallies: dict[tuple[Question, Old], Tally] = field(default_factory=dict)
    places: dict[Question, tuple[str, Place]] = field(default_factory=dict)
    timeless: set[Question] = field(default_factory=set)
    """Questions told apart without the clock's value, although the rules can read it."""
    masked: dict[tuple[str, str, Old], Tally] = field(default_factory=dict)
    """Undecidable ones by rule path, the masked field that the policy needs, and old outcome."""
    revisions: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0

    def add(self, other: Gathered) -> None:
        """Take in what ``other`` found."""
        self.decisions += other.decisions
        self.allows += other.allows
        self.unreadable += other.unreadable
        self.revisions.update(other.revisions)
        self.timeless |= other.timeless
        for question, place in other.places.items():
            self.places.setdefault(question, place)
        for key, tally in other.tallies.items():
            self.tallies.setdefault(key, Tally()).add(tally)
        for masked, tally in other.masked.items():
            self.masked.setdefault(masked, Tally()).add(tally)


def pieces(directory: Path, *, since: str = "", piece_bytes: int = PIECE_BYTES) -> list[Piece]:
    """The log cut up, oldest first, without the segments that end before ``since`` (RFC 3339)."""
    files = segments(directory)
    beginnings = [_first_time(path) for path in files]
    found = []
    for number, path in enumerate(files):
        if number + 1 < len(files) and beginnings[number + 1] < since:
            continue  # the next segment begins before `since`, so all of this one is older
        size = path.stat().st_size
        found += [Piece(str(path), at, min(at + piece_bytes, size)) for at in range(0, size, piece_bytes)]
    return found


def _first_time(path: Path) -> str:
    with path.open("rb") as file:
        line = file.readline()
    try:
        return str(record.decode(line).get("timestamp", ""))
    except record.BadRecord:
        return ""


def lines_of(piece: Piece) -> Iterator[tuple[int, bytes]]:
    """The whole lines that begin in a piece, each with its offset."""
    with open(piece.path, "rb", buffering=1 << 20) as file:  # noqa: PTH123 - the hot loop of replay
        offset = piece.first
        if offset:
            file.seek(offset - 1)
            offset += (
                len(file.readline()) - 1
            )  # the rest of a line that began before; nothing at a line's start
        for line in file:
            if offset >= piece.last or not line.endswith(b"\n"):
                return
            yield offset, line
            offset += len(line)


def gather(
    piece: Piece,
    *,
    reading_of: Callable[[str], Reading],
    gpu_hours: Mapping[str, float],
    since: str = "",
    timed: frozenset[Question] | None = None,
) -> Gathered:
    """Reduce one piece; ``reading_of`` says for a rule path what of an input counts under the candidate.

    Questions are first told apart without the clock's value. With ``timed``, the ones whose answer did read
    it, only their records are taken, now told apart by it too.
    """
    found = Gathered()
    for offset, line in lines_of(piece):
        if b'"kind":"decision"' not in line:
            continue
        try:
            event = _read(line)
            if event.kind != "decision" or event.timestamp < since:
                continue
            _count(found, event, (piece.path, offset), reading_of(event.path), gpu_hours, timed)
        except (ValueError, KeyError, TypeError, AttributeError, msgspec.MsgspecError):
            found.unreadable += 1
    return found


def _read(line: bytes) -> _Event:
    try:
        return _event_of(line)
    except (msgspec.MsgspecError, UnicodeError):  # half a surrogate pair, which JSON can write
        value = record.decode(line)
        raws = {
            key: msgspec.Raw(json.dumps(value[key]).encode()) for key in ("input", "result") if key in value
        }
        return msgspec.convert({key: v for key, v in value.items() if key not in raws} | raws, _Event)


def _count(
    found: Gathered,
    event: _Event,
    place: Place,
    reading: Reading,
    gpu_hours: Mapping[str, float],
    timed: frozenset[Question] | None,
) -> None:
    path, decision_id = event.path, event.decision_id
    outcome = _recorded(event)
    old: Old = (outcome.kind, outcome.verdict, outcome.rules, _tenant(event.input))
    allowed = outcome.kind == "allow"
    needed = _masked_and_needed(event, reading.use) if event.erased or event.masked else ""
    tally: Tally | None
    if needed:
        if timed is not None:
            return  # counted in the first pass
        tally = found.masked.setdefault((path, needed, old), Tally())
    else:
        # A question that could not be asked (half a surrogate pair, ...) may fail for any of its parts.
        unaskable = outcome.kind == "error" and "cannot be asked" in outcome.message
        timeless = None if unaskable else reading.timeless
        key = reading.counted.whole(event.input) if unaskable else (timeless or reading.counted)(event.input)
        if timed is not None:
            if timeless is None or key not in timed:
                return
            key = reading.counted(event.input)
        tally = found.tallies.get((key, old))
        if tally is None:
            tally = found.tallies[key, old] = Tally()
            found.places.setdefault(key, (path, place))
            if timed is None and timeless is not None:
                found.timeless.add(key)
    found.decisions += 1
    found.allows += allowed
    found.revisions[event.bundles.guard.revision] += 1
    tally.count += 1
    tally.gpu_hours += gpu_hours.get(decision_id, 0.0) if allowed and gpu_hours else 0.0
    if len(tally.examples) < EXAMPLES:
        tally.examples.append(decision_id)


def _tenant(question: msgspec.Raw) -> str:
    try:
        who = _who_asked(question)
    except (msgspec.MsgspecError, UnicodeError):
        return str((json.loads(bytes(question)).get("principal") or {}).get("tenant", ""))
    return str(who.principal.tenant) if who.principal else ""


def _masked_and_needed(event: _Event, use: InputUse) -> str:
    """The first field that was taken out although the candidate reads it, or the old outcome was in it.

    Empty when there is none. A reason's words may go; its rule, and what was decided, are the old outcome.
    """
    for pointer in (*event.erased, *event.masked):
        part = tuple(key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:])
        if part[:1] == ("input",) and use.touches(part[1:]):
            return str(pointer)
        if part[:1] == ("result",) and not _beside_the_outcome(part[1:]):
            return str(pointer)
    return ""


def _beside_the_outcome(part: tuple[str, ...]) -> bool:
    if part[:1] in (("deny",), ("hold",), ("warn",)):
        return len(part) > 2 and part[2] != "rule"
    return part[:1] not in ((), ("allow",), ("verdict",))


@lru_cache(maxsize=4096)
def _outcome(result: bytes) -> Outcome:
    return Outcome.of(json.loads(result))


def _recorded(event: _Event) -> Outcome:
    """`Outcome.recorded`, working each distinct result out once."""
    if event.error is None and event.result is not msgspec.UNSET:
        return _outcome(bytes(event.result))
    said = {} if event.result is msgspec.UNSET else {"result": json.loads(bytes(event.result))}
    return Outcome.recorded({"error": event.error, **said})


def separated(found: Gathered, timed: frozenset[Question]) -> None:
    """Take the questions ``timed`` out of ``found``: a second pass tells them apart by the clock."""
    for key in [key for key in found.tallies if key[0] in timed]:
        del found.tallies[key]
    for question in timed:
        del found.places[question]


def question_at(place: Place) -> dict[str, Any]:
    """The whole input recorded at ``place``. Raises BadRecord when the log changed meanwhile."""
    with Path(place[0]).open("rb") as file:
        file.seek(place[1])
        event = record.decode(file.readline())
    question = event.get("input")
    if not isinstance(question, dict):
        raise record.BadRecord("the line is no decision any more")
    return question
