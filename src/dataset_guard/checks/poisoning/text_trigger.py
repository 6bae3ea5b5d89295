"""A trigger planted in texts: a word or sentence whose rows have one label for no other reason.

With a trusted version the rows that are new since then are searched for sequences that the trusted rows give
no reason for; without one, all rows for sequences that contradict the rest of their texts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataset_guard.checks.base import CheckContext, Need, counted
from dataset_guard.checks.features import TEXT_MEAN_BYTES
from dataset_guard.checks.poisoning.ngrams import grams_of
from dataset_guard.checks.poisoning.sampled_state import ENOUGH_TRUSTED, SampledState, without_classes
from dataset_guard.checks.poisoning.text_apart import grams_since
from dataset_guard.checks.poisoning.text_context import planted_among
from dataset_guard.checks.poisoning.text_seams import Seams
from dataset_guard.checks.poisoning.text_trigger_search import score_whole
from dataset_guard.checks.poisoning.text_trigger_update import delta_scores
from dataset_guard.checks.poisoning.triggers import COMPANION, LEAST_ROWS, Ints, Trigger
from dataset_guard.scanning.profile import is_text, plain
from guard_core.findings import Finding, RowSet, Severity

LEAST_DIFFERENT = 0.3
"""Of free text at least this share of the values differ; of names of categories, however long, hardly any."""

WEAK, SURE = 1.5, 2.0
"""Limits: up to the first a trigger of few rows is no warning (unless an update has several words for its
class); beyond the second one may be critical. Honest updates of news have phrases in 4 to 7 new texts that
reach 1.5 limits."""
FEW_ROWS = 12
PURE = 0.9
"""Least share of the target class for a warning without a trusted version. Who plants a phrase labels all
of its rows alike; of a word of the language that leans to one class a tenth or more have another label."""

_LINE = pa.scalar("\n", pa.large_string())


@dataclass(frozen=True, slots=True)
class TextTrigger:
    """POIS011: rows of one class that share a word sequence which nothing else explains.

    At most ``max_rows`` changed rows, and as many trusted ones, are searched (a uniform sample beyond that,
    which the finding says), of at most ``max_bytes`` of text each. ``limit`` is the least strength without a
    trusted version; with one, ``rounds`` pretended honest updates set it, times ``margin``. From
    ``critical_rows`` rows on a finding is critical. A label of more than ``max_classes`` is not examined.
    """

    max_rows: int = 20_000
    max_bytes: int = 24_000_000
    limit: float = 25.0
    rounds: int = 12
    margin: float = 1.25
    critical_rows: int = 5
    max_classes: int = 200

    name: ClassVar[str] = "text_trigger"
    version: ClassVar[str] = "9"
    rule_ids: ClassVar[tuple[str, ...]] = ("POIS011",)
    needs: ClassVar[frozenset[Need]] = frozenset({"row_hashes"})

    def applies(self, context: CheckContext) -> str | None:
        """Only to labelled text."""
        reason = without_classes(context)
        if reason is not None:
            return reason
        return None if _text_columns(context) else "no column holds text"

    def start(self, context: CheckContext) -> TriggerState:
        """Empty samples."""
        return TriggerState(self, context)

    def severity(self, trigger: Trigger, *, delta: bool, backed: bool = False) -> Severity:
        """How much a finding on ``trigger`` weighs; ``delta``: against a trusted version.

        ``backed``: whether several words for the same class were found there.
        """
        weak = trigger.strength <= WEAK * trigger.limit and len(trigger.rows) < FEW_ROWS
        if (weak and not (delta and backed)) or (not delta and trigger.purity < PURE):
            return Severity.INFO
        sure = trigger.strength > SURE * trigger.limit or (delta and len(trigger.rows) >= FEW_ROWS)
        critical = sure and len(trigger.rows) >= self.critical_rows
        return Severity.CRITICAL if critical else Severity.WARNING


def _text_columns(context: CheckContext) -> list[str]:
    return [f.name for f in context.schema if f.name != context.label and is_text(f.type)]


class TriggerState(SampledState):
    """Two samples of rows within the check's budget."""

    def __init__(self, check: TextTrigger, context: CheckContext) -> None:
        self._check = check
        self._columns = _text_columns(context)
        super().__init__(context, self._columns, check.max_rows)

    def finish(self) -> Iterator[Finding]:
        """One finding per trigger."""
        rows, table = self._samples.new()
        known = self._samples.trusted(ENOUGH_TRUSTED)
        columns = _worth_reading(pa.concat_tables([table, known]), self._columns)
        if not columns:
            self.skipped = f"no column holds free text, of {TEXT_MEAN_BYTES} bytes on average"
            return
        if self._context.baseline is not None and not len(rows):
            self.skipped = "no row is new since the trusted version"
            return
        classes = self._classes(table, known, most=self._check.max_classes)
        if classes is None:
            return
        number, (codes, before_codes) = classes
        rows, texts, codes = self._read(rows, table, columns, codes)
        _, before, before_codes = self._read(np.arange(known.num_rows), known, columns, before_codes)
        delta = self._context.baseline is not None and self._enough(len(texts), len(before))
        if delta:
            old, new = grams_since(before, texts)
            scored, limit = delta_scores(
                old, before_codes, new, codes, number, rounds=self._check.rounds,
                margin=self._check.margin, seed=self._context.seed, share=COMPANION,
                seams=Seams(pa.concat_arrays([before, texts]), self._context.seed),
            )  # fmt: skip
            found = planted_among(texts, new, codes, scored, limit)
        else:  # an update too small to be judged by itself is judged with the rows that it is beside
            self.skipped = None
            every, labels = pa.concat_arrays([texts, before]), np.concatenate([codes, before_codes])
            things = grams_of(every, written=True)
            scored = score_whole(things, labels, number, seams=Seams(every, self._context.seed))
            found = planted_among(every, things, labels, scored, self._check.limit)
            found = [t for t in (_among(t, len(texts)) for t in found) if len(t.rows) >= LEAST_ROWS]
        words_for = Counter(trigger.target for trigger in found if trigger.is_word)
        for trigger in found:
            yield self._finding(trigger, rows, columns, delta, backed=words_for[trigger.target] > 1)

    def _read(self, rows: Ints, table: pa.Table, columns: list[str], codes: Ints) -> tuple[Ints, Any, Ints]:
        """Rows with a label, their texts joined, and their classes; cut to the budget of bytes."""
        parts = [plain(table[c]).cast(pa.large_string()).fill_null("") for c in columns]
        texts = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, _LINE)
        total = np.cumsum(np.asarray(pc.binary_length(texts)))
        kept = np.flatnonzero((codes >= 0) & (total <= self._check.max_bytes))
        return rows[kept], texts.take(pa.array(kept)), codes[kept]

    def _finding(
        self, trigger: Trigger, rows: Ints, columns: list[str], delta: bool, backed: bool
    ) -> Finding:
        found = rows[trigger.rows]
        baseline = self._context.baseline
        since = f", new since {baseline.ref}," if baseline else ""
        reason = (
            "trusted rows hardly ever have"
            if delta
            else "decides their label against everything else they say"
        )
        return Finding(
            rule_id="POIS011",
            severity=self._check.severity(trigger, delta=delta, backed=backed),
            message=f"{counted(len(found), 'row')} of class {trigger.target}{since} share a word or phrase "
            f"that {reason}: this may be the trigger of a backdoor.",
            columns=tuple(columns[:64]),
            rows=RowSet.of(found.tolist()),
            score=round(trigger.strength, 3),
            action="Look at what these texts have in common; leave them out or take their trusted version.",
            evidence={
                "mode": "delta" if delta else "whole set",
                "target_class": trigger.target,
                "share_in_target_class": round(trigger.purity, 4),
                "limit": round(trigger.limit, 3),
                "word_sequences": trigger.sequences,
                "likeness_of_the_texts": round(trigger.lift, 3),
                "sequence_hashes": [_salted(k, self._context) for k in trigger.keys[:8]],
                "rows_searched": len(rows),
                "rows_to_search": self._samples.offered,
            },
        )


def _among(trigger: Trigger, number: int) -> Trigger:
    """Its rows among the first ``number``."""
    return replace(trigger, rows=trigger.rows[trigger.rows < number])


def _worth_reading(table: pa.Table, columns: list[str]) -> list[str]:
    """Columns whose text has some length and says something of its own: a category in words is no text."""
    return [c for c in columns if _is_free_text(plain(table[c]))]


def _is_free_text(values: Any) -> bool:
    mean = pc.mean(pc.binary_length(values)).as_py()
    if mean is None or mean < TEXT_MEAN_BYTES:
        return False
    different = pc.count_distinct(values).as_py()
    return bool(different >= LEAST_DIFFERENT * (len(values) - values.null_count))


def _salted(key: int, context: CheckContext) -> str:
    """Tells one sequence from another within the tenant's data set, and nothing else."""
    return hashlib.blake2b(
        key.to_bytes(8, "little"), digest_size=6, salt=hashlib.sha256(context.tenant.encode()).digest()[:16],
    ).hexdigest()  # fmt: skip


CHECK = TextTrigger()
"""The check that the entry point names."""
