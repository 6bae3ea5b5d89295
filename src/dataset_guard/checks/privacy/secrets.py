"""Keys, tokens and passwords in text: one fast search over everything, exact rules for the few hits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from dataset_guard.checks.base import CheckContext, Hashes, Need, counted
from dataset_guard.profile import is_text, plain
from guard_core.findings import Finding, RowSet, Severity

_WINDOW_BYTES = 16 << 20
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Secrets:
    """PRIV001 secrets of a known form, PRIV002 random text in an assignment to a telling name.

    ``columns``: columns to search; none named means every column that holds text, at any depth of lists and
    structs.
    """

    columns: tuple[str, ...] = ()

    name: ClassVar[str] = "secrets"
    version: ClassVar[str] = "1"
    rule_ids: ClassVar[tuple[str, ...]] = ("PRIV001", "PRIV002")
    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies(self, context: CheckContext) -> str | None:
        """Needs a column that holds text."""
        return None if self.chosen(context) else "there is no text column"

    def chosen(self, context: CheckContext) -> list[str]:
        """The columns to search."""
        texts = [f.name for f in context.schema if holds_text(f.type)]
        return [n for n in texts if not self.columns or n in self.columns]

    def start(self, context: CheckContext) -> SecretsState:
        """Nothing found."""
        return SecretsState(self, context)


def holds_text(kind: pa.DataType) -> bool:
    """Whether there is text in values of this type, at any depth."""
    if isinstance(kind, pa.BaseExtensionType):
        return holds_text(kind.storage_type)
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return holds_text(kind.value_type)
    if pt.is_map(kind):
        return holds_text(kind.key_type) or holds_text(kind.item_type)
    if _is_list(kind):
        return holds_text(kind.value_type)
    if pt.is_struct(kind):
        return any(holds_text(kind.field(i).type) for i in range(kind.num_fields))
    return is_text(kind)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))


def texts_in(array: Any, rows: _Ints) -> Iterator[tuple[Any, _Ints]]:
    """Text arrays inside ``array``, each with the row that every value belongs to."""
    array = plain(array)
    kind = array.type
    if is_text(kind):
        yield array, rows
    elif pt.is_map(kind):
        offsets = np.asarray(array.offsets)
        parents = rows[np.repeat(np.arange(len(array)), np.diff(offsets))]
        start, length = int(offsets[0]), int(offsets[-1] - offsets[0])
        for part in (array.keys.slice(start, length), array.items.slice(start, length)):
            yield from texts_in(part, parents)
    elif _is_list(kind) and holds_text(kind.value_type):
        yield from texts_in(array.flatten(), rows[np.asarray(pc.list_parent_indices(array))])
    elif pt.is_struct(kind):
        for i, part in enumerate(array.flatten()):
            if holds_text(kind.field(i).type):
                yield from texts_in(part, rows)


class SecretsState:
    """Memory: the numbers of the rows found, and 16 MiB of text at a time."""

    def __init__(self, check: Secrets, context: CheckContext) -> None:
        self._columns = check.chosen(context)
        self._found: dict[tuple[int, str], list[int]] = defaultdict(list)
        self._bytes = 0

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Search the text of the batch."""
        rows = np.arange(first_row, first_row + batch.num_rows, dtype=np.int64)
        for name in self._columns:
            for texts, owners in texts_in(batch.column(name), rows):
                self._search(name, texts, owners)

    def _search(self, name: str, texts: Any, owners: _Ints) -> None:
        present = np.flatnonzero(np.asarray(texts.is_valid()))
        if len(present) < len(texts):
            texts, owners = texts.drop_null(), owners[present]
        sizes = np.asarray(pc.binary_length(texts)).astype(np.int64)
        ends = np.cumsum(sizes + 1)  # each text is followed by a newline, so no hit crosses two
        start = 0
        while start < len(texts):
            base = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, base + _WINDOW_BYTES, side="right")))
            self._window(name, texts.slice(start, stop - start), owners[start:stop], ends[start:stop] - base)
            start = stop

    def _window(self, name: str, texts: Any, owners: _Ints, ends: _Ints) -> None:
        from dataset_guard.checks.privacy.secret_kinds import compiled, kind_at

        whole = pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts.cast(pa.large_string()))
        text = pc.binary_join(whole, pa.scalar("\n", pa.large_string()))[0].as_buffer().to_pybytes()
        self._bytes += len(text)
        hits = np.array([m.start() for m in compiled()[0].finditer(text)], np.int64)
        cells = np.searchsorted(ends, hits, side="right")
        for hit, cell in zip(hits.tolist(), cells.tolist(), strict=True):
            kind = kind_at(text, hit, int(ends[cell]) - 1)
            if kind is not None:
                self._found[kind, name].append(int(owners[cell]))

    def merge(self, other: SecretsState) -> None:
        """Take in other rows."""
        self._bytes += other._bytes
        for key, rows in other._found.items():
            self._found[key] += rows

    def finish(self) -> Iterator[Finding]:
        """One finding for each kind of secret."""
        from dataset_guard.checks.privacy.secret_kinds import KINDS

        by_kind: dict[tuple[str, bool], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for (kind, column), rows in self._found.items():
            by_kind[KINDS[kind].name, KINDS[kind].certain][column] += rows
        for (name, certain), columns in sorted(by_kind.items()):
            held = RowSet.of(r for found in columns.values() for r in found)
            verb = "holds" if len(held) == 1 else "hold"
            yield Finding(
                rule_id="PRIV001" if certain else "PRIV002",
                severity=Severity.CRITICAL if certain else Severity.WARNING,
                message=f"{counted(len(held), 'row')} {verb} what looks like {_article(name)} {name}.",
                columns=tuple(sorted(columns)),
                rows=held,
                score=float(len(held)),
                action="Revoke the secret where it was issued, then remove it and register again.",
                evidence={"kind": name, "occurrences": sum(len(r) for r in columns.values())},
            )


def _article(name: str) -> str:
    return "an" if name[0] in "AO" else "a"


CHECK = Secrets()
