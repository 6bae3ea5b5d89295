"""Presidio's opinion of the values that :mod:`personal_data` found, and of nothing else.

Presidio reads a few hundredths of a megabyte per CPU-second, so it is shown a window around each of a sample
of the different values, not the text. The values' hashes choose the sample, so that it is the same however
the rows were cut. Presidio's recognisers are those for the kinds that both know; no language model is loaded.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from dataset_guard.checks.base import CheckContext, Hashes, Need
from dataset_guard.checks.privacy.personal_data import NAMES, located
from dataset_guard.checks.privacy.text_buffers import TextBuffer, holds_text, text_buffers
from guard_core.findings import Finding, RowSet, Severity

ENTITIES = {
    "payment_card": "CREDIT_CARD",
    "bank_account": "IBAN_CODE",
    "wallet_address": "CRYPTO",
    "us_social_security_number": "US_SSN",
    "phone_number": "PHONE_NUMBER",
}
"""Kinds that Presidio knows too. E-mail addresses are left out: its recogniser fetches a list of domains."""

BEFORE, AFTER = 65, 100
"""Bytes around the place that led to a value: the value, and the words that speak for or against it."""

_SURE = 1.645  # one-sided 95 %


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """PRIV011: how many of the personal numbers of a column and kind Presidio takes for such, too.

    Nothing is asked unless ``most_values`` is set: the number of different values of a column and kind that
    Presidio is shown (about 3 ms each). ``columns``: the columns to look at; none named means all.
    ``least_score``: the confidence from which on Presidio's word counts.
    """

    most_values: int = 0
    columns: tuple[str, ...] = ()
    least_score: float = 0.4

    name: ClassVar[str] = "presidio"
    version: ClassVar[str] = "1"
    rule_ids: ClassVar[tuple[str, ...]] = ("PRIV011",)
    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies(self, context: CheckContext) -> str | None:
        """Needs to be asked for, the library, and a column with text."""
        if self.most_values <= 0:
            return "it is off; to ask Presidio, set presidio.most_values to 200, say"
        if find_spec("presidio_analyzer") is None:
            return "it needs Presidio: pip install 'trainguard[presidio]'"
        return None if self.chosen(context) else "there is no column with text"

    def chosen(self, context: CheckContext) -> list[str]:
        """The columns to look at."""
        held = [f.name for f in context.schema if holds_text(f.type)]
        return [n for n in held if not self.columns or n in self.columns]

    def start(self, context: CheckContext) -> OpinionState:
        """Nothing seen."""
        return OpinionState(self, context)


class _Seen(NamedTuple):
    """Where a value was seen first: the row, the bytes around it, and the place that led to it in them."""

    row: int
    window: bytes
    at: int


class OpinionState:
    """Memory: twice ``most_values`` windows of 165 bytes for each column and kind, until ``finish``."""

    def __init__(self, check: SecondOpinion, context: CheckContext) -> None:
        self._check = check
        self._columns = check.chosen(context)
        self._seen: dict[tuple[str, str], dict[bytes, _Seen]] = defaultdict(dict)

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Search the batch's text as the first stage does."""
        for name in self._columns:
            for buffer in text_buffers(batch.column(name)):
                self._search(name, buffer, first_row)

    def _search(self, column: str, buffer: TextBuffer, first_row: int) -> None:
        found = [(i, start, *told) for i, start, told in located(buffer) if told[1] and told[0] in ENTITIES]
        if not found:
            return
        rows, which = buffer.uses(np.array([f[0] for f in found], np.int64))
        for row, index in sorted(zip(rows.tolist(), which.tolist(), strict=True)):
            item, start, kind, _, value = found[index]
            window, at = buffer.window(item, start, BEFORE, AFTER)
            self._offer((column, kind), _key(value), _Seen(first_row + row, window, at))

    def _offer(self, where: tuple[str, str], key: bytes, seen: _Seen) -> None:
        kept = self._seen[where]
        if key not in kept or seen.row < kept[key].row:
            kept[key] = seen
        if len(kept) > 2 * self._check.most_values:
            self._cut(where)

    def _cut(self, where: tuple[str, str]) -> None:
        kept = self._seen[where]
        self._seen[where] = {k: kept[k] for k in sorted(kept)[: self._check.most_values]}

    def merge(self, other: OpinionState) -> None:
        """Take in the values of other rows."""
        for where, kept in other._seen.items():
            for key, seen in kept.items():
                self._offer(where, key, seen)

    def finish(self) -> Iterator[Finding]:
        """One note for each column and kind of which there is a value."""
        analyzer = _analyzer() if self._seen else None
        for column, kind in sorted(self._seen):
            self._cut((column, kind))
            asked = self._seen.pop((column, kind))
            right = [s.row for s in asked.values() if _confirms(analyzer, s, kind, self._check.least_score)]
            yield Finding(
                rule_id="PRIV011",
                severity=Severity.INFO,
                message=f"Presidio confirms {len(right):,} of {len(asked):,} {NAMES[kind]} of column "
                f"{column!r} that it was shown.",
                columns=(column,),
                rows=RowSet.of(sorted(set(right))),
                count=len(right),
                score=round(len(right) / len(asked), 6),
                action="Treat confirmed values as personal data; look at a few of the others before waiving.",
                evidence={
                    "kind": kind,
                    "presidio_entity": ENTITIES[kind],
                    "values_shown": len(asked),
                    "confirmed_share_at_least": round(_at_least(len(right), len(asked)), 4),
                },
            )


def _key(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=8).digest()


def _at_least(hits: int, number: int) -> float:
    """The lower end of Wilson's 95 % interval for a share (one-sided)."""
    share, z2 = hits / number, _SURE**2
    middle = share + z2 / (2 * number)
    spread = _SURE * math.sqrt(share * (1 - share) / number + z2 / (4 * number**2))
    return max(0.0, (middle - spread) / (1 + z2 / number))


def _confirms(analyzer: Any, seen: _Seen, kind: str, least_score: float) -> bool:
    """Whether Presidio sees such a value where the first stage saw one."""
    text = seen.window.decode("utf-8", "replace")
    at = len(seen.window[: seen.at].decode("utf-8", "replace"))
    told = analyzer.analyze(text=text, language="en", entities=[ENTITIES[kind]], score_threshold=least_score)
    return any(result.start <= at < result.end for result in told)


def _analyzer() -> Any:
    """Presidio's analyzer with the recognisers of ``ENTITIES``, over words as a blank pipeline cuts them."""
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        CryptoRecognizer,
        IbanRecognizer,
        PhoneRecognizer,
        UsSsnRecognizer,
    )

    words = SpacyNlpEngine()
    words.nlp = {"en": spacy.blank("en")}
    kinds = (CreditCardRecognizer, CryptoRecognizer, IbanRecognizer, PhoneRecognizer, UsSsnRecognizer)
    registry = RecognizerRegistry([kind() for kind in kinds], supported_languages=["en"])
    return AnalyzerEngine(registry=registry, nlp_engine=words, supported_languages=["en"])


CHECK = SecondOpinion()
