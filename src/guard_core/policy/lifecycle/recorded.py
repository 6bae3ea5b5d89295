"""Reading recorded decisions in bulk: piece by piece, in several processes, in bounded memory.

The log is cut into pieces at line ends. What a piece is reduced to grows with the number of *distinct*
questions, not of decisions: per question and old outcome a count, GPU-hours and a few decision ids.
"""

from __future__ import annotations

import hashlib
import json
import marshal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from guard_core.audit import record
from guard_core.audit.segments import segments
from guard_core.policy.lifecycle.input_use import InputUse
from guard_core.policy.lifecycle.outcome import Outcome

PIECE_BYTES = 8 << 20
EXAMPLES = 3

_PARSE = json.JSONDecoder().raw_decode

Question = bytes
"""Digest of a rule path and of what counts of an input: equal digests get equal answers."""
Place = tuple[str, int]
"""Where a record stands: segment file and byte offset."""
Old = tuple[str, str | None, tuple[str, ...], str]
"""Recorded outcome (kind, verdict, rules) and tenant."""


class Reading(NamedTuple):
    """How a rule path's questions are told apart: what of an input counts, and what of it but the clock.

    ``timeless`` is None where the rules never read the clock's value, or read all of the input.
    """

    use: InputUse
    counted: Callable[[Any], Any]
    timeless: Callable[[Any], Any] | None


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
            event, _ = _PARSE(line.decode())
            if event["kind"] != "decision" or event["timestamp"] < since:
                continue
            _count(found, event, (piece.path, offset), reading_of(event["path"]), gpu_hours, timed)
        except (ValueError, KeyError, TypeError, AttributeError):
            found.unreadable += 1
    return found


def _count(
    found: Gathered,
    event: dict[str, Any],
    place: Place,
    reading: Reading,
    gpu_hours: Mapping[str, float],
    timed: frozenset[Question] | None,
) -> None:
    path, question, decision_id = event["path"], event["input"], event["decision_id"]
    outcome = _recorded(event)
    tenant = str((question.get("principal") or {}).get("tenant", ""))
    old: Old = (outcome.kind, outcome.verdict, outcome.rules, tenant)
    allowed = outcome.kind == "allow"
    needed = _masked_and_needed(event, reading.use)
    tally: Tally
    if needed:
        if timed is not None:
            return  # counted in the first pass
        tally = found.masked.setdefault((path, needed, old), Tally())
    else:
        # A question that could not be asked (half a surrogate pair, ...) may fail for any of its parts.
        unaskable = outcome.kind == "error" and "cannot be asked" in outcome.message
        timeless = None if unaskable else reading.timeless
        key = _digest(path, question if unaskable else (timeless or reading.counted)(question))
        if timed is not None:
            if timeless is None or key not in timed:
                return
            key = _digest(path, reading.counted(question))
        found.places.setdefault(key, (path, place))
        if timed is None and timeless is not None:
            found.timeless.add(key)
        tally = found.tallies.setdefault((key, old), Tally())
    found.decisions += 1
    found.allows += allowed
    found.revisions[event["bundles"]["guard"]["revision"]] += 1
    tally.count += 1
    tally.gpu_hours += gpu_hours.get(decision_id, 0.0) if allowed and gpu_hours else 0.0
    if len(tally.examples) < EXAMPLES:
        tally.examples.append(decision_id)


def _masked_and_needed(event: Mapping[str, Any], use: InputUse) -> str:
    """The first field that was taken out although the candidate reads it, or the old outcome was in it.

    Empty when there is none. A reason's words may go; its rule, and what was decided, are the old outcome.
    """
    for pointer in (*event.get("erased", ()), *event.get("masked", ())):
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


def _digest(path: str, counted: Any) -> Question:
    # Version 0 of marshal has neither references nor interning: equal values give equal bytes, and it is
    # five times as fast as JSON. Records have sorted keys, and what counts of them keeps an order of its own.
    return hashlib.blake2b(marshal.dumps((path, counted), 0), digest_size=16).digest()


@lru_cache(maxsize=4096)
def _outcome(result: bytes) -> Outcome:
    return Outcome.of(marshal.loads(result))  # noqa: S302 - bytes made two lines before


def _recorded(event: dict[str, Any]) -> Outcome:
    """`Outcome.recorded`, working each distinct result out once."""
    if "error" in event or "result" not in event:
        return Outcome.recorded(event)
    return _outcome(marshal.dumps(event["result"], 0))


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
