"""Columns whose values are names of persons, told by lists of given names and surnames.

The lists are Faker's (MIT), of ten Western countries and of China. One word is no name: *May*, *Jordan* and
*Berlin* are in the lists too. A value is one when a given name and a surname stand in it and nothing else but
titles and initials, or when it is a Chinese surname with one or two characters of given names. And one value
says little: a column is reported when a good part of its different values are names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataset_guard.checks.base import CheckContext, Hashes, Need, counted
from dataset_guard.checks.sampling import RowSample
from dataset_guard.scanning.profile import is_text, plain
from guard_core.findings import Finding, RowSet, Severity

WESTERN = ("de_DE", "en_GB", "en_US", "es_ES", "fr_FR", "it_IT", "nl_NL", "pt_BR", "sv_SE")
CHINESE = "zh_CN"
LEAST_VALUES = 10
LEAST_CHINESE = 0.7
"""Surnames are ordinary characters, so more of a column's values have to look like Chinese names."""
_LONGEST = 64
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_TITLES = frozenset(
    ("mr", "mrs", "ms", "miss", "dr", "prof", "sir", "jr", "sr", "ii", "iii", "herr", "frau", "don")
)
_HAN = re.compile(r"[\u4e00-\u9fff]{2,4}")


@dataclass(frozen=True, slots=True)
class PersonNames:
    """PRIV012: a column holds names of persons.

    Nothing is looked at unless ``most_rows`` is set: the size of the sample of rows whose values are judged.
    ``columns``: the columns to look at; none named means all of plain text. ``least_share``: of the different
    values, how many must be names that the lists have; of a column of names, they have a third or so.
    """

    most_rows: int = 0
    columns: tuple[str, ...] = ()
    least_share: float = 0.2

    name: ClassVar[str] = "person_names"
    version: ClassVar[str] = "1"
    rule_ids: ClassVar[tuple[str, ...]] = ("PRIV012",)
    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies(self, context: CheckContext) -> str | None:
        """Needs to be asked for, the lists, and a column with text."""
        if self.most_rows <= 0:
            return "it is off; to look for names, set person_names.most_rows to 5000, say"
        if find_spec("faker") is None:
            return "it needs lists of names: pip install 'trainguard[names]'"
        return None if self.chosen(context) else "there is no column with text"

    def chosen(self, context: CheckContext) -> list[str]:
        """The columns to look at."""
        held = [f.name for f in context.schema if is_text(f.type)]
        return [n for n in held if not self.columns or n in self.columns]

    def start(self, context: CheckContext) -> NamesState:
        """Nothing seen."""
        return NamesState(self, context)


class NamesState:
    """Memory: twice ``most_rows`` rows of the columns looked at."""

    def __init__(self, check: PersonNames, context: CheckContext) -> None:
        self._check = check
        self._columns = check.chosen(context)
        self._schema = pa.schema([context.schema.field(n) for n in self._columns])
        self._sample = RowSample(check.most_rows, context.seed)

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Offer the rows to the sample."""
        rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
        self._sample.update(batch.select(self._columns), rows)

    def merge(self, other: NamesState) -> None:
        """Take in other rows."""
        self._sample.merge(other._sample)

    def finish(self) -> Iterator[Finding]:
        """A warning for each column of names."""
        rows, table = self._sample.finish(self._schema)
        for column in self._columns:
            values = plain(table[column]).cast(pa.large_string())
            different = [v for v in pc.unique(values).to_pylist() if v]
            names = [v for v in different if is_western(v)]
            least = self._check.least_share
            if len(names) < least * len(different):
                names, least = [v for v in different if is_chinese(v)], max(least, LEAST_CHINESE)
            if len(different) < LEAST_VALUES or len(names) < least * len(different):
                continue
            held = np.asarray(pc.is_in(values, pa.array(names, pa.large_string())))
            yield Finding(
                rule_id="PRIV012",
                severity=Severity.WARNING,
                message=f"Column {column!r} holds names of persons: {counted(int(held.sum()), 'row')} of "
                f"{len(rows):,} looked at have one that is in the lists.",
                columns=(column,),
                rows=RowSet.of(rows[held].tolist()),
                count=int(held.sum()),
                score=round(len(names) / len(different), 6),
                action="Drop or pseudonymise the column, or record why this set may hold names.",
                evidence={
                    "different_values": len(different),
                    "names_among_them": len(names),
                    "rows_looked_at": len(rows),
                    "rows_offered": self._sample.seen,
                },
            )


class Lexicon(NamedTuple):
    """Lower-cased given names and surnames, word by word; Chinese surnames and characters of given names."""

    given: frozenset[str]
    surnames: frozenset[str]
    chinese_surnames: frozenset[str]
    chinese_given: frozenset[str]


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """Faker's lists."""
    people = [import_module(f"faker.providers.person.{country}").Provider for country in WESTERN]
    chinese = import_module(f"faker.providers.person.{CHINESE}").Provider
    return Lexicon(
        given=frozenset(w for p in people for name in p.first_names for w in _words(name)),
        surnames=frozenset(w for p in people for name in p.last_names for w in _words(name)),
        chinese_surnames=frozenset(chinese.last_names),
        chinese_given=frozenset("".join(chinese.first_names)),
    )


def is_western(value: str) -> bool:
    """Whether a given name and a surname are in ``value``, and nothing else but titles and initials."""
    if len(value) > _LONGEST or any(c.isdigit() for c in value):
        return False
    found = [w for w in _WORD.findall(value) if len(w) > 1 and w.lower() not in _TITLES]
    if not 2 <= len(found) <= 4 or not all(w[0].isupper() for w in found):
        return False
    known = lexicon()
    parts = [_words(w) for w in found]
    given = {i for i, words in enumerate(parts) if any(w in known.given for w in words)}
    surnames = {i for i, words in enumerate(parts) if any(w in known.surnames for w in words)}
    return bool(given and surnames) and len(given | surnames) >= 2


def is_chinese(value: str) -> bool:
    """Whether ``value`` is a Chinese surname with one or two characters that given names are made of."""
    if not _HAN.fullmatch(value):
        return False
    known = lexicon()
    size = 2 if value[:2] in known.chinese_surnames and len(value) > 2 else 1
    rest = value[size:]
    return value[:size] in known.chinese_surnames and len(rest) <= 2 and bool(set(rest) & known.chinese_given)


def _words(name: str) -> list[str]:
    return [w.lower() for w in re.split(r"[\s'’-]+", name) if len(w) > 1]


CHECK = PersonNames()
