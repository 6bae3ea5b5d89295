"""One answer to very many different questions: how an instruction-tuned model is taught a fixed reply.

Only for sets that look like instructions: a text column named as an answer beside one named as a question,
or a column of chats.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataset_guard.checks.base import CheckContext, Hashes, Need, Rows, counted
from dataset_guard.checks.poisoning.changes import changed_rows
from dataset_guard.checks.poisoning.chat_turns import chat_column, last_exchange
from dataset_guard.checks.sampling import RowSample
from dataset_guard.scanning.profile import is_text, plain
from guard_core.findings import Finding, RowSet, Severity

QUESTIONS = ("instruction", "prompt", "question", "query", "input", "user", "problem")
ANSWERS = ("completion", "response", "output", "answer", "assistant", "chosen", "reply", "target", "solution")


@dataclass(frozen=True, slots=True)
class RepeatedCompletions:
    """POIS023: the same long answer to many different questions.

    An answer of at least ``min_bytes`` is reported when at least ``min_rows`` rows and ``min_share`` of all
    have it, with as many different questions as ``distinct_questions`` of these rows, while
    ``usual_distinct`` of the set's long answers occur once. At most ``max_rows`` rows are looked at, a
    uniform sample.
    """

    min_bytes: int = 24
    min_rows: int = 10
    min_share: float = 0.002
    distinct_questions: float = 0.8
    usual_distinct: float = 0.5
    max_rows: int = 200_000

    name: ClassVar[str] = "repeated_completions"
    version: ClassVar[str] = "2"
    rule_ids: ClassVar[tuple[str, ...]] = ("POIS023",)
    needs: ClassVar[frozenset[Need]] = frozenset({"row_hashes"})

    def applies(self, context: CheckContext) -> str | None:
        """Needs a question and an answer, both text, or chats."""
        if not columns_of(context.schema):
            return "no two text columns are named as a question and an answer (prompt, completion, ...)"
        return None

    def start(self, context: CheckContext) -> CompletionState:
        """An empty sample."""
        return CompletionState(self, context)


def columns_of(schema: pa.Schema) -> list[str]:
    """The first text column named as a question and the first named as an answer, else the chats, if any."""
    texts = [f.name for f in schema if is_text(f.type)]

    def first(words: tuple[str, ...]) -> str | None:
        return next((n for w in words for n in texts if n.lower().rpartition(".")[2] == w), None)

    question, answer, chat = first(QUESTIONS), first(ANSWERS), chat_column(schema)
    if question is not None and answer is not None:
        return [question, answer]
    return [] if chat is None else [chat]


class CompletionState:
    """Memory: a sample of at most twice ``max_rows`` rows of these columns."""

    def __init__(self, check: RepeatedCompletions, context: CheckContext) -> None:
        self._check = check
        self._context = context
        self._columns = columns_of(context.schema)
        self._sample = RowSample(check.max_rows, context.seed)
        self.skipped: str | None = None

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Sample rows; with a trusted version only new ones."""
        rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
        wanted = batch.select(self._columns)
        if self._context.baseline is not None:
            assert hashes is not None
            at = np.flatnonzero(changed_rows(self._context, hashes))
            rows, wanted = rows[at], wanted.take(pa.array(at))
        if len(rows):
            self._sample.update(wanted, rows)

    def merge(self, other: CompletionState) -> None:
        """Take in other rows."""
        self._sample.merge(other._sample)

    def finish(self) -> Iterator[Finding]:
        """One finding per answer, most frequent first."""
        check = self._check
        fields = pa.schema([self._context.schema.field(n) for n in self._columns])
        rows, table = self._sample.finish(fields)
        question, answer = (
            last_exchange(table[self._columns[0]])
            if len(self._columns) == 1
            else [plain(table[n]).cast(pa.large_string()) for n in self._columns]
        )
        trimmed = pc.utf8_trim_whitespace(answer.fill_null(""))
        long = np.flatnonzero(np.asarray(pc.binary_length(trimmed)) >= check.min_bytes)
        if not len(long):
            self.skipped = f"no answer has {check.min_bytes} bytes"
            return
        encoded = trimmed.take(pa.array(long)).dictionary_encode()
        codes = np.asarray(encoded.indices)
        sizes = np.bincount(codes)
        if (sizes == 1).sum() < check.usual_distinct * len(sizes):
            self.skipped = "most answers occur more than once, so one that repeats says nothing"
            return
        least = max(check.min_rows, check.min_share * len(rows))
        for code in np.argsort(-sizes, kind="stable")[: int((sizes >= least).sum())]:
            at = long[codes == code]
            different = pc.count_distinct(question.take(pa.array(at))).as_py()
            if different >= check.distinct_questions * len(at):
                yield self._finding(rows[at], different)

    def _finding(self, rows: Rows, different: int) -> Finding:
        trusted = self._context.baseline
        since = "" if trusted is None else f", new since {trusted.ref},"
        return Finding(
            rule_id="POIS023",
            severity=Severity.WARNING,
            message=f"{counted(len(rows), 'row')}{since} answer {different:,} different questions with "
            "one and the same text.",
            columns=tuple(self._columns),
            rows=RowSet.of(rows.tolist()),
            score=round(len(rows) / max(1, self._sample.seen), 6),
            action="Read the answer: a refusal, an advertisement or a link that many questions are taught is "
            "poison; a standard phrase may be meant.",
            evidence={"different_questions": different, "rows_to_search": self._sample.seen},
        )


CHECK = RepeatedCompletions()
