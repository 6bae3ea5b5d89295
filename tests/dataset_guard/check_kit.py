"""What tests of checks share: scans of tables, and registered versions made from tables with real hashes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from dataset_guard.checks.base import Check, CheckContext
from dataset_guard.hashing.rowhash import RowHasher
from dataset_guard.reading import open_source
from dataset_guard.scanning.profile import Profiler
from dataset_guard.scanning.result import ScanResult
from dataset_guard.scanning.scan import scan_source

KEY = bytes(range(32))


@dataclass(frozen=True)
class Registered:
    """A version of a set, as the registry would hand it to a check."""

    ref: str
    table: pa.Table
    label: str | None = None
    split: str | None = None
    gone: bool = False

    @cached_property
    def _hashes(self) -> tuple[Any, Any]:
        hasher = RowHasher(self.table.schema, key=KEY, label=self.label)
        parts = [hasher.hash(batch) for batch in self.table.to_batches()]
        rows = np.concatenate([p.keyed for p in parts])
        return rows, None if self.label is None else np.concatenate([p.features for p in parts])

    def row_hashes(self) -> Any:
        return self._hashes[0]

    def feature_hashes(self) -> Any:
        return self._hashes[1]

    @property
    def profile(self) -> dict[str, Any]:
        profiler = Profiler(self.table.schema, label=self.label, salt=KEY)
        first_row = 0
        for batch in self.table.to_batches():
            profiler.update(batch, first_row)
            first_row += batch.num_rows
        return profiler.finish()

    def open(self) -> Any:
        return None if self.gone else open_source(self.table)


def scan(table: pa.Table, check: Check | None = None, **context: Any) -> ScanResult:
    """Scan ``table`` with one check (or none), as ``register`` would."""
    known = CheckContext(schema=table.schema, tenant="acme", name="set", **context)
    available = (() if check is None else (check,), ())
    return scan_source(open_source(table), known, row_key=KEY, available=available)


def only(result: ScanResult, rule_id: str) -> Any:
    """The one finding of ``rule_id``."""
    found = [f for f in result.findings if f.rule_id == rule_id]
    assert len(found) == 1, [f.rule_id for f in result.findings]
    return found[0]


def rules(result: ScanResult) -> list[str]:
    return [f.rule_id for f in result.findings]


def digits_table(pixels: Any, labels: Any) -> pa.Table:
    columns = {f"pixel_{i}": pa.array(pixels[:, i]) for i in range(pixels.shape[1])}
    return pa.table({**columns, "label": pa.array(np.asarray(labels).astype(np.int64))})
