"""Secrets in text: keys, tokens and passwords that a model would learn and repeat.

Two stages: RE2 looks for short anchors in the Arrow buffers (:mod:`.text_buffers`), and Python judges the few
places found (:mod:`.secret_kinds`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa

from dataset_guard.checks.ascii_pass import looked_at, proposed
from dataset_guard.checks.base import CheckContext, Hashes, Need, Rows, counted
from dataset_guard.checks.privacy.secret_kinds import (
    ANCHOR,
    ANY,
    ASSIGNED,
    CONNECTION,
    PREFIXED,
    Belief,
    Kind,
)
from dataset_guard.checks.privacy.tally import Tally
from dataset_guard.checks.privacy.text_buffers import Hit, TextBuffer, holds_text
from guard_core.findings import Finding, Severity

_BEFORE = 32
_AFTER = 18_000  # the longest form: a JSON web token


@dataclass(frozen=True, slots=True)
class Secrets:
    """PRIV001 secrets of a known form, critical when genuine in structure; PRIV002 random assigned values.

    ``columns``: the columns to look at; none named means all. ``assigned_values``: whether to report values
    that are told only by the name before them and by looking random.
    """

    columns: tuple[str, ...] = ()
    assigned_values: bool = True

    name: ClassVar[str] = "secrets"
    version: ClassVar[str] = "2"
    rule_ids: ClassVar[tuple[str, ...]] = ("PRIV001", "PRIV002")
    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies(self, context: CheckContext) -> str | None:
        """Needs a column with text or bytes in it, the label included."""
        return None if self.chosen(context) else "there is no column with text"

    def chosen(self, context: CheckContext) -> list[str]:
        """The columns to look at."""
        held = [f.name for f in context.schema if holds_text(f.type)]
        return [n for n in held if not self.columns or n in self.columns]

    def start(self, context: CheckContext) -> SecretsState:
        """Nothing seen."""
        return SecretsState(self, context)


@dataclass(frozen=True, slots=True)
class Found:
    """One believed secret in one item of a buffer; ``value`` lives only until it is counted."""

    item: int
    kind: str
    belief: Belief
    value: bytes
    start: int
    end: int


def find(buffer: TextBuffer, within: Rows | None = None, *, assigned_values: bool = True) -> list[Found]:
    """All secrets in ``buffer``: one that its issuer's form tells is not told again as an assigned value.

    ``within`` are the only items that may have one, if that is known.
    """
    items = proposed(buffer, within, ANY if assigned_values else ANCHOR)
    if not len(items):
        return []
    found = _find(buffer.only(items), assigned_values)
    return [replace(one, item=int(items[one.item])) for one in found]


def _find(buffer: TextBuffer, assigned_values: bool) -> list[Found]:
    found: list[Found] = []
    for hit in buffer.hits(ANCHOR):
        if not _covered(found, hit.start):
            found += _judged(buffer, hit, (*PREFIXED, CONNECTION))
    if assigned_values:
        taken: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for known in found:
            taken[known.item].append((known.start, known.end))
        assigned: list[Found] = []
        for hit in buffer.hits(ASSIGNED[-1].anchor):
            for one in _judged(buffer, hit, ASSIGNED):
                overlaps = any(a < one.end and one.start < b for a, b in taken[one.item])
                if not overlaps and not _covered(assigned, one.start):
                    assigned.append(one)
        found += assigned
    return found


def _covered(found: list[Found], start: int) -> bool:
    return bool(found) and start < found[-1].end


def _judged(buffer: TextBuffer, hit: Hit, kinds: tuple[Kind, ...]) -> list[Found]:
    """The first kind that believes the hit; at most one."""
    window, at = buffer.around(hit, _BEFORE, _AFTER)
    for kind in kinds:
        if kind is CONNECTION:
            match = kind.form.search(window, max(0, at - 25))
            if match is not None and match.start("user") != at + 3:
                match = None
        elif kind is ASSIGNED[0]:
            match = kind.form.search(window, at, at + 160)
        else:
            match = kind.form.match(window, at)
        if match is None:
            continue
        belief = kind.judge(match)
        if belief is not Belief.NO:
            group = "secret" if "secret" in match.re.groupindex else 0
            offset = hit.start - at
            start, end = match.start(group) + offset, match.end(group) + offset
            return [Found(hit.item, kind.name, belief, match[group], start, end)]
    return []


_Verdict = tuple[str, Belief]
"""Rule id and belief: what decides into which finding a secret goes."""


def _verdict(found: Found) -> _Verdict:
    return ("PRIV002" if found.kind == ASSIGNED[-1].name else "PRIV001"), found.belief


class SecretsState:
    """Memory: a :class:`Tally` for each column, rule and belief, below 1.2 MB; a batch's hits."""

    def __init__(self, check: Secrets, context: CheckContext) -> None:
        self._check = check
        self._columns = check.chosen(context)
        self._tallies: dict[tuple[str, _Verdict], Tally] = defaultdict(Tally)

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Search the batch's text."""
        for name in self._columns:
            rows: dict[_Verdict, list[Rows]] = defaultdict(list)
            kinds: dict[_Verdict, Counter[str]] = defaultdict(Counter)
            values: dict[_Verdict, list[bytes]] = defaultdict(list)
            for buffer, within in looked_at(batch, name):
                found = find(buffer, within, assigned_values=self._check.assigned_values)
                for verdict in {_verdict(f) for f in found}:
                    chosen = [f for f in found if _verdict(f) == verdict]
                    at, index = buffer.uses(np.array([f.item for f in chosen], np.int64))
                    rows[verdict].append(at)
                    kinds[verdict].update(chosen[i].kind for i in index.tolist())
                    values[verdict] += [chosen[i].value for i in np.unique(index)]
            for verdict, parts in rows.items():
                at = np.unique(np.concatenate(parts))
                if len(at):
                    self._tallies[name, verdict].add(kinds[verdict], at + first_row, values[verdict])

    def merge(self, other: SecretsState) -> None:
        """Add the counts."""
        for key, tally in other._tallies.items():
            self._tallies[key].merge(tally)

    def finish(self) -> Iterator[Finding]:
        """For each column at most one critical finding, and one warning of each rule."""
        for (column, (rule_id, belief)), tally in sorted(self._tallies.items()):
            valid = belief is Belief.VALID
            verb = "holds" if tally.rows == 1 else "hold"
            what = "a secret" if valid else "what may be a secret"
            kinds = ", ".join(f"{n.replace('_', ' ')} ({c:,})" for n, c in sorted(tally.kinds.items()))
            yield Finding(
                rule_id=rule_id,
                severity=Severity.CRITICAL if valid else Severity.WARNING,
                message=f"{counted(tally.rows, 'row')} of column {column!r} {verb} {what}: {kinds}.",
                columns=(column,),
                rows=tally.row_set(),
                count=tally.rows,
                action="Revoke it at its issuer first, then remove or mask it and register again."
                if valid
                else "Look at the rows; revoke what is genuine, remove or mask it and register again.",
                evidence=tally.evidence(),
            )


CHECK = Secrets()
