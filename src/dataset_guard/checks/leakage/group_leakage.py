"""The same patient, user or document on both sides of a split: keys that are found without being named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from dataset_guard.checks.base import CheckContext, Hashes, Need, Reference, set_name
from dataset_guard.checks.leakage.columns import plain_type
from dataset_guard.scanning.profile import is_text, plain
from guard_core.findings import Finding, RowSet, Severity

_LISTED = 100_000
_NAMES = re.compile(
    r"(^|[_\W])(id|uid|uuid|key|user|customer|client|patient|subject|person|member|account|card|device|session"
    r"|visit|author|speaker|document|doc|group|household|family|student|driver|vehicle|store|site|hospital)"
    r"($|[_\W\d])|编号|用户|患者|客户|病人|设备|会话|作者|学号|账号",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class GroupLeakage:
    """LEAK006: values of a key column occur in this set and in a test or validation set.

    A key: text or whole numbers with at least ``least_values`` values, which repeat, and which are no more
    than one in ``rows_per_value`` rows on average. ``value_budget`` values per column are followed (chosen by
    hash, so that both sides follow the same). A warning when its name says that it is a key and
    ``warning_share`` of the followed values are on both sides; else information. ``columns`` names keys
    outright.
    """

    columns: tuple[str, ...] = ()
    least_values: int = 30
    rows_per_value: float = 1.05
    value_budget: int = 50_000
    warning_share: float = 0.01

    name: ClassVar[str] = "group_leakage"
    version: ClassVar[str] = "1"
    rule_ids: ClassVar[tuple[str, ...]] = ("LEAK006",)
    needs: ClassVar[frozenset[Need]] = frozenset()

    def applies(self, context: CheckContext) -> str | None:
        """Needs a column that may be a key, and a test or validation set."""
        if not self.chosen(context):
            return "no column can be a key"
        return None if self.tests(context) else "no test or validation set was named (--against)"

    def chosen(self, context: CheckContext) -> list[str]:
        """Columns of text and whole numbers; only those named, if any are."""
        held = [f.name for f in context.schema if f.name != context.label and _may_be_key(f.type)]
        return [n for n in held if not self.columns or n in self.columns]

    def tests(self, context: CheckContext) -> list[Reference]:
        """The sets to compare with."""
        own = f"{context.tenant}/{context.name}"
        return [r for r in context.against if r.split in ("test", "validation") and set_name(r) != own]

    def start(self, context: CheckContext) -> GroupState:
        """Nothing seen."""
        return GroupState(self, context)


def _may_be_key(kind: pa.DataType) -> bool:
    kind = plain_type(kind)
    return bool(pt.is_integer(kind) or is_text(kind))


def says_key(name: str) -> bool:
    """Whether a column's name says that it names things: ``user_id``, ``PatientId``, ``患者编号``."""
    return _NAMES.search(_CAMEL.sub("_", name)) is not None


def words(column: Any) -> npt.NDArray[np.uint64]:
    """64 mixed bits for each value that is not null; equal values have equal bits, also in other sets."""
    from dataset_guard.checks.sampling import priorities
    from dataset_guard.hashing.distinct import hash_strings

    array = plain(column).drop_null()
    if pt.is_integer(array.type):
        return priorities(np.asarray(array.cast(pa.int64(), safe=False)), 0)
    wide = array.cast(pa.large_binary())
    out = np.zeros(len(wide), np.uint64)
    offsets = np.frombuffer(wide.buffers()[1], np.int64)[wide.offset : wide.offset + len(wide) + 1]
    hash_strings(offsets, np.frombuffer(wide.buffers()[2] or b"", np.uint8), out)
    return priorities(out.view(np.int64), 0)


class Values:
    """The values of one column with the least hashes, and how many rows each has. Bounded and mergeable."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self.limit = np.uint64(2**64 - 1)
        self.rows = 0
        self.hashes = np.empty(0, np.uint64)
        self.counts = np.empty(0, np.int64)

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Count values."""
        self.rows += len(hashes)
        self._join(*np.unique(hashes[hashes <= self.limit], return_counts=True))

    def merge(self, other: Values) -> None:
        """Count the values of other rows."""
        self.rows += other.rows
        self.limit = min(self.limit, other.limit)
        self._join(other.hashes, other.counts)

    def _join(self, hashes: npt.NDArray[np.uint64], counts: npt.NDArray[np.int64]) -> None:
        every, at = np.unique(np.concatenate([self.hashes, hashes]), return_inverse=True)
        total = np.bincount(at, np.concatenate([self.counts, counts]), len(every)).astype(np.int64)
        kept = every <= self.limit
        if int(kept.sum()) > self._budget:
            self.limit = every[kept][self._budget - 1]
            kept = every <= self.limit
        self.hashes, self.counts = every[kept], total[kept]


class GroupState:
    """Memory: 16 bytes for each of at most ``value_budget`` values per column, and as much for the other
    set."""

    def __init__(self, check: GroupLeakage, context: CheckContext) -> None:
        self._check = check
        self._tests = check.tests(context)
        self._values = {name: Values(check.value_budget) for name in check.chosen(context)}
        self._unlikely: set[str] = set()

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Count the values."""
        for name, values in self._values.items():
            values.add(words(batch.column(name)))

    def merge(self, other: GroupState) -> None:
        """Count the values of other rows."""
        for name, values in self._values.items():
            values.merge(other._values[name])

    def finish(self) -> Iterator[Finding]:
        """One finding for each key and test set that share values."""
        keys = [n for n, v in self._values.items() if n in self._check.columns or self._is_key(v)]
        for reference in self._tests if keys else []:
            source = reference.open()
            names = [] if source is None else [n for n in keys if n in source.schema.names]
            names = [n for n in names if _may_be_key(source.schema.field(n).type)]
            theirs = {n: Values(self._check.value_budget) for n in names}
            for batch in source.batches(columns=names) if names else []:
                for name, values in theirs.items():
                    values.add(words(batch.column(name)))
            for name in names:
                yield from self._shared(name, reference, theirs[name])

    def _is_key(self, values: Values) -> bool:
        followed = len(values.hashes)
        per_value = values.counts.sum() / max(1, followed)
        share = float(values.limit) / 2.0**64
        many = followed / share if share else 0.0
        return (
            followed >= self._check.least_values
            and per_value >= self._check.rows_per_value
            and (many >= 0.002 * values.rows)
        )

    def _shared(self, name: str, reference: Reference, theirs: Values) -> Iterator[Finding]:
        mine = self._values[name]
        limit = min(mine.limit, theirs.limit)
        own, other = mine.hashes[mine.hashes <= limit], theirs.hashes[theirs.hashes <= limit]
        both = np.isin(own, other)
        if not both.any() or not len(other):
            return
        rows = int(mine.counts[mine.hashes <= limit][both].sum())
        of_test = float(np.isin(other, own).mean())
        named = says_key(name) or name in self._check.columns
        yield Finding(
            rule_id="LEAK006",
            severity=Severity.WARNING if named and of_test >= self._check.warning_share else Severity.INFO,
            message=f"{of_test:.1%} of the values of {name!r} in the {reference.split} set {reference.ref} "
            "are also here, so a model may know them by heart instead of learning.",
            columns=(name,),
            rows=RowSet(),
            count=rows,
            score=round(of_test, 6),
            action=f"Split by {name!r}, so that each of its values is on one side only.",
            evidence={
                "reference": reference.ref,
                "values_on_both_sides": int(both.sum()),
                "values_followed": [len(own), len(other)],
                "share_of_values_followed": round(float(limit) / 2.0**64, 6),
                "rows_here_of_followed_values": rows,
                "named_like_a_key": says_key(name),
            },
        )


CHECK = GroupLeakage()
