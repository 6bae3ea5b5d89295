"""What several checks need of the same batch: made by the first that asks, forgotten with the batch."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import pyarrow as pa

T = TypeVar("T")


class OfBatch(Generic[T]):
    """Values by batch and column. The driver hands the same batch object to every check, so its identity
    is the key; a batch that is gone takes its values along.
    """

    def __init__(self) -> None:
        self._held: dict[int, tuple[weakref.ref[pa.RecordBatch], dict[str, T]]] = {}

    def known(self, batch: pa.RecordBatch, column: str) -> T | None:
        """The value, if another check has made it."""
        entry = self._held.get(id(batch))
        return entry[1].get(column) if entry is not None and entry[0]() is batch else None

    def get(self, batch: pa.RecordBatch, column: str, make: Callable[[Any], T]) -> T:
        """The value: ``make(batch.column(column))`` at the first call."""
        found = self.known(batch, column)
        if found is None:
            found = make(batch.column(column))
            entry = self._held.get(id(batch))
            if entry is None or entry[0]() is not batch:
                gone = id(batch)
                entry = (weakref.ref(batch, lambda _: self._held.pop(gone, None)), {})
                self._held[gone] = entry
            entry[1][column] = found
        return found
