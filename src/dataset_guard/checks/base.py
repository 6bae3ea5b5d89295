"""What a check is. Read this, then copy a sibling: ``quality/schema.py`` is the shortest.

A check lives in one module, which exposes it as ``CHECK``; the entry-point group
``dataset_guard.checks`` names the module (ours are in pyproject.toml; another distribution's are found the
same way, see ``tests/example_plugin``). A check is a frozen dataclass whose *fields are its parameters*, so a
user may set them by name and every record can say which were in force.

The data is read once for all checks. For each batch the driver (:mod:`dataset_guard.scanning.passing`) calls
``state.update``; states of disjoint row ranges can be merged in any order; ``finish`` gives the findings.
Four rules keep this honest:

* same rows, same seed, same findings, however the rows were cut into batches and states;
* a state's memory has a bound that its docstring states, and what was left out is said in the finding;
* a finding holds row numbers, column names, counts and scores, never a cell value: classes are told by
  their index in sorted order (:class:`ClassIndex`), strings not at all;
* heavy libraries are imported inside functions; a missing one is the reason that ``applies`` gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset_guard.checks.hash_index import HashIndex
from guard_core.counting import counted as counted  # for every check's messages
from guard_core.findings import Finding

Hashes = npt.NDArray[np.uint64]
"""Row hashes, shape (rows, 2): see :mod:`dataset_guard.hashing.rowhash`."""

Rows = npt.NDArray[np.int64]
"""0-based row numbers of the whole table."""

Need = Literal["row_hashes", "feature_hashes"]


class Reference(Protocol):
    """A registered version as a check sees it (:class:`dataset_guard.registry.store.Reference`)."""

    @property
    def ref(self) -> str:
        """``tenant/name@version``."""

    @property
    def label(self) -> str | None:
        """Its label column, if it has one."""

    @property
    def split(self) -> str | None:
        """``train``, ``validation``, ``test`` or None when nobody said."""

    @property
    def profile(self) -> Mapping[str, Any]:
        """Its profile as JSON (:mod:`dataset_guard.scanning.profile`)."""

    def row_hashes(self) -> Hashes:
        """Keyed hashes over all columns, in row order."""

    def feature_hashes(self) -> Hashes | None:
        """Keyed hashes over all columns but the label, in row order; None without a label."""

    def open(self) -> Any:
        """Its data as a :class:`dataset_guard.reading.Source`, verified first; None when it is gone."""


class Suite(Protocol):
    """Items of an evaluation: a registered version (:class:`Reference`), or a file."""

    @property
    def ref(self) -> str:
        """How it is called in findings: ``tenant/name@version``, or the file's name."""

    def open(self) -> Any:
        """Its data as a :class:`dataset_guard.reading.Source`; None when it is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckContext:
    """What every check may know before the first row.

    ``baseline`` is the trusted earlier version (delta mode), ``against`` are other sets that must share no
    rows with this one, ``suites`` are evaluations whose items must not be in it. ``parameters`` maps a
    check's name to its settings.
    """

    schema: pa.Schema
    label: str | None = None
    split: str | None = None
    baseline: Reference | None = None
    against: tuple[Reference, ...] = ()
    suites: tuple[Suite, ...] = ()
    seed: int = 0
    name: str = ""
    tenant: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    _indexes: dict[tuple[str, bool], HashIndex] = field(default_factory=dict, repr=False, compare=False)

    def __reduce__(self) -> Any:
        """Pickled without the indexes: they are large, and made again where they are needed."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.init and not f.name.startswith("_")}
        return partial(CheckContext, **plain), ()

    def rows_of(self, reference: Reference) -> HashIndex:
        """``reference``'s row hashes, sorted once for all checks."""
        return self._index(reference, features=False)

    def features_of(self, reference: Reference) -> HashIndex:
        """``reference``'s feature hashes, sorted once; of an unlabelled set, its row hashes are just that."""
        return self._index(reference, features=True)

    def _index(self, reference: Reference, *, features: bool) -> HashIndex:
        key = (reference.ref, features)
        if key not in self._indexes:
            hashes = reference.feature_hashes() if features else None
            self._indexes[key] = HashIndex(reference.row_hashes() if hashes is None else hashes)
        return self._indexes[key]


S = TypeVar("S", bound="State")


class State(Protocol):
    """One check's memory of the rows it has seen.

    A state that learns from the rows that it cannot judge them may set an attribute ``skipped`` to one
    sentence why, in ``finish``; it is recorded like a reason that ``applies`` gives. An
    attribute ``details``, a mapping of JSON values, goes into the check's record as it is.
    """

    def update(
        self, batch: pa.RecordBatch, first_row: int, hashes: Hashes | None, feature_hashes: Hashes | None
    ) -> None:
        """Take the rows ``first_row ...``; hashes are None unless the check's ``needs`` names them."""

    def merge(self: S, other: S) -> None:
        """Absorb a state that saw other rows of the same table (before or after these)."""

    def finish(self) -> Iterator[Finding]:
        """The findings over all rows seen; called once."""


@runtime_checkable
class Check(Protocol):
    """One detector. ``version`` changes whenever the same data may get other findings."""

    @property
    def name(self) -> str:
        """Unique, snake_case: what ``--checks`` takes."""

    @property
    def version(self) -> str:
        """Raised whenever findings may change."""

    @property
    def rule_ids(self) -> tuple[str, ...]:
        """Every rule it may emit; each has a page in docs/rules."""

    @property
    def needs(self) -> frozenset[Need]:
        """Hashes to compute for it."""

    def applies(self, context: CheckContext) -> str | None:
        """None, or one sentence why it is skipped here; the sentence is recorded."""

    def start(self, context: CheckContext) -> Any:
        """A fresh :class:`State`."""


class ClassIndex:
    """Label classes told by number: 0, 1, ... in sorted order of the values, which stay inside."""

    def __init__(self, values: Any) -> None:
        present = [v for v in values if v is not None and v == v]  # NaN, unequal to itself, is no class
        self._order = sorted(set(present), key=lambda v: (str(type(v)), v))
        self._codes = {v: i for i, v in enumerate(self._order)}

    def __len__(self) -> int:
        return len(self._order)

    def codes(self, values: Any) -> npt.NDArray[np.int64]:
        """The class of each label in ``values`` (an Arrow array or a list); -1 for null."""
        plain = values.to_pylist() if hasattr(values, "to_pylist") else values
        return np.array([self._codes.get(v, -1) for v in plain], np.int64)


def set_name(reference: Reference | Suite) -> str:
    """``tenant/name`` of a reference: the same for all versions of one set."""
    return reference.ref.partition("@")[0]
