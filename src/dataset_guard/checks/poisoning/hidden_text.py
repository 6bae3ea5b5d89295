"""Text that is hidden from a reader, or speaks to the model: for texts that train language models.

Characters nobody sees (POIS020), letters that only look like others (POIS021), and instructions that are
addressed to a model rather than part of the text (POIS022). With a trusted version, only rows that are new.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from dataset_guard.checks.ascii_pass import looked_at, proposed
from dataset_guard.checks.base import CheckContext, Hashes, Need, Rows, counted
from dataset_guard.checks.poisoning.changes import changed_rows
from dataset_guard.checks.poisoning.hidden_text_kinds import ANY, ANY_ASCII, BEFORE, KINDS, SHORTEST
from dataset_guard.checks.privacy.tally import Tally
from dataset_guard.checks.privacy.text_buffers import Hit, TextBuffer, holds_text
from guard_core.findings import Finding, Severity

_WORDS = {
    "POIS020": "with characters that a reader does not see",
    "POIS021": "with words in which letters of another script stand for Latin ones",
    "POIS022": "with instructions to a model, or marks of a chat format",
}
_CRITICAL = ("tag characters", "instructions in HTML comments")


@dataclass(frozen=True, slots=True)
class HiddenText:
    """POIS020 to POIS022: hidden characters, look-alike letters, injected instructions.

    ``columns``: the columns to look at; none named means all with text. ``critical_rows``: from so many rows
    on, tag characters and instructions inside HTML comments are critical; everything else is a warning.
    ``format_share``: control marks in more than this share of the rows are taken for the set's own format.
    """

    columns: tuple[str, ...] = ()
    critical_rows: int = 3
    format_share: float = 0.2

    name: ClassVar[str] = "hidden_text"
    version: ClassVar[str] = "2"
    rule_ids: ClassVar[tuple[str, ...]] = ("POIS020", "POIS021", "POIS022")
    needs: ClassVar[frozenset[Need]] = frozenset({"row_hashes"})

    def applies(self, context: CheckContext) -> str | None:
        """Needs a column with text."""
        return None if self.chosen(context) else "there is no column with text"

    def chosen(self, context: CheckContext) -> list[str]:
        """The columns to look at."""
        held = [f.name for f in context.schema if holds_text(f.type)]
        return [n for n in held if not self.columns or n in self.columns]

    def start(self, context: CheckContext) -> HiddenTextState:
        """Nothing seen."""
        return HiddenTextState(self, context)


class HiddenTextState:
    """Memory: one :class:`Tally` per kind and column that had a hit."""

    def __init__(self, check: HiddenText, context: CheckContext) -> None:
        self._check = check
        self._context = context
        self._columns = check.chosen(context)
        self._rows = 0
        self._tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Search the texts of these rows."""
        self._rows += batch.num_rows
        new = None
        for column in self._columns:
            found: dict[str, list[Rows]] = defaultdict(list)
            for buffer, within in looked_at(batch, column):
                for kind, rows in _found(buffer, within).items():
                    found[kind].append(rows)
            if found and new is None and self._context.baseline is not None:
                assert hashes is not None
                new = changed_rows(self._context, hashes)
            for kind, parts in found.items():
                rows = np.unique(np.concatenate(parts))
                kept = rows if new is None else rows[new[rows]]
                if len(kept):
                    self._tallies[column, kind].add(Counter({kind: len(kept)}), first_row + kept, ())

    def merge(self, other: HiddenTextState) -> None:
        """Take in other rows."""
        self._rows += other._rows
        for key, tally in other._tallies.items():
            self._tallies[key].merge(tally)

    def finish(self) -> Iterator[Finding]:
        """One finding per column and kind."""
        order = {kind.name: i for i, kind in enumerate(KINDS)}
        rules = {kind.name: kind.rule_id for kind in KINDS}
        for column, kind in sorted(self._tallies, key=lambda key: (order[key[1]], key[0])):
            tally = self._tallies[column, kind]
            share = tally.rows / max(1, self._rows)
            if kind == "control marks of chat formats" and share > self._check.format_share:
                continue
            critical = kind in _CRITICAL and tally.rows >= self._check.critical_rows
            since = "" if self._context.baseline is None else f", new since {self._context.baseline.ref},"
            yield Finding(
                rule_id=rules[kind],
                severity=Severity.CRITICAL if critical else Severity.WARNING,
                message=f"{counted(tally.rows, 'row')}{since} {_WORDS[rules[kind]]}: {kind}.",
                columns=(column,),
                rows=tally.row_set(),
                count=tally.rows,
                score=round(share, 6),
                action="Show the rows in an editor that reveals such characters; remove what was planted."
                if rules[kind] != "POIS022"
                else "Read the rows; leave out what speaks to the model instead of being an example for it.",
                evidence={"kind": kind, **{k: v for k, v in tally.evidence().items() if k == "rows_listed"}},
            )


def _found(buffer: TextBuffer, within: Rows | None) -> dict[str, Rows]:
    """Rows of the batch per kind; ``within`` the items given, where the text is ASCII."""
    if len(buffer.offsets) < 2 or int(np.diff(buffer.offsets).max()) < SHORTEST:
        return {}
    found: dict[str, Rows] = {}
    items = proposed(buffer, within, ANY if within is None else ANY_ASCII)
    texts = buffer.only(items)
    for kind in KINDS if len(items) else ():
        hits = [
            hit.item
            for hit in texts.hits(kind.pattern)
            if kind.refused_after is None or not kind.refused_after.search(_before(texts, hit))
        ]
        read = [item for item in sorted(set(hits)) if _is_text(texts, item)]
        if read:
            found[kind.name] = buffer.uses(items[np.array(read, np.int64)])[0]
    return found


def _is_text(buffer: TextBuffer, item: int) -> bool:
    """Whether the item is UTF-8: in a picture's bytes every short pattern occurs by chance."""
    low, high = int(buffer.offsets[item]), int(buffer.offsets[item + 1])
    try:
        str(buffer.data[low:high], "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _before(buffer: TextBuffer, hit: Hit) -> bytes:
    text, start = buffer.around(hit, BEFORE, 0)
    return text[:start]


CHECK = HiddenText()
