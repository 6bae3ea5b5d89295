"""Validating data against a suite of Great Expectations, and suggesting a suite from a trusted version.

::

    import dataset_guard as dg

    found = dg.validate("new.parquet", "suite.json")     # or "reviews@3": then every block is verified first
    found.success, found.findings
    found.to_json()                                      # an ExpectationSuiteValidationResult
    found.to_html()                                      # one page, no network

Nothing is stored and no policy is asked about a file of your own; a registered version is read as any
verified read is, so policy decides and the reading is on record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.quality.expectations import Expectations, ExpectationsState
from guard_core.clock import rfc3339, system_clock
from guard_core.errors import UserError
from guard_core.findings import Finding, RowSet

if TYPE_CHECKING:
    from guard_core.home import Home

BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Validation:
    """What came of a suite. ``unexpected_rows`` has one set of row numbers per result, in its order."""

    name: str
    rows: int
    columns: int
    fingerprint: str
    validated_at: str
    result: Mapping[str, Any]
    unexpected_rows: tuple[RowSet, ...]
    findings: tuple[Finding, ...]

    @property
    def success(self) -> bool:
        """Whether every expectation is met."""
        return bool(self.result["success"])

    def to_json(self) -> dict[str, Any]:
        """Great Expectations' ``ExpectationSuiteValidationResult``; it holds no value of the data."""
        return dict(self.result)

    def document(self) -> dict[str, Any]:
        """What the page shows: the result, and the row numbers as ranges (first, last) by result."""
        engines = sorted({r["meta"]["engine"] for r in self.result["results"]})
        version = self.result["meta"]["great_expectations_version"]
        told = [f"Great Expectations {version}" if e != "trainguard" else "TrainGuard" for e in engines]
        return {
            "name": self.name,
            "rows": self.rows,
            "columns": self.columns,
            "fingerprint": self.fingerprint,
            "validated_at": self.validated_at,
            "engines": ", ".join(told),
            "result": self.to_json(),
            "unexpected_rows": {
                str(i): [list(r) for r in rows.ranges]
                for i, rows in enumerate(self.unexpected_rows)
                if rows.ranges
            },
        }

    def to_html(self, *, lang: str = "en") -> str:
        """One self-contained page in English and Chinese; ``lang`` is shown first."""
        from guard_core.output.html import render_validation

        return render_validation(self.document(), lang=lang)

    def _repr_html_(self) -> str:
        from dataset_guard.registration.notebook import validation_html

        return validation_html(self)

    def __repr__(self) -> str:
        told = self.result["statistics"]
        return (
            f"<Validation of {self.name}: {told['successful_expectations']} of "
            f"{told['evaluated_expectations']} expectations met, {self.rows:,} rows>"
        )


def validate(
    data: Any,
    suite: Any,
    *,
    tenant: str | None = None,
    home: Home | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Validation:
    """Check ``data`` against ``suite``, in one pass.

    ``data`` is a path, a frame or table, or a registered version (``name@version``), which is read for the
    purpose ``inspect`` with every block verified. ``suite`` is the path of a suite's JSON, the JSON, or an
    ``ExpectationSuite``. Raises UserError for what is neither, Denied and Tampered as a verified read does.
    """
    name, fingerprint, schema, total, batches = _opened(data, tenant, home)
    state = _started(suite, schema)
    row = 0
    for batch in batches:
        state.update(batch, row, None, None)
        row += batch.num_rows
        if progress is not None:
            progress(row, total)
    findings = tuple(state.finish())
    return Validation(
        name=name,
        rows=row,
        columns=len(schema),
        fingerprint=fingerprint,
        validated_at=rfc3339(system_clock()),
        result=state.result(most=None),
        unexpected_rows=tuple(state.unexpected_rows()),
        findings=findings,
    )


def _started(suite: Any, schema: pa.Schema) -> ExpectationsState:
    return Expectations(suite=suite).start(CheckContext(schema=schema))


def _opened(
    data: Any, tenant: str | None, home: Home | None
) -> tuple[str, str, pa.Schema, int | None, Iterator[pa.RecordBatch]]:
    """Name, fingerprint if registered, schema, rows if known, and the batches."""
    if is_reference(data):
        from dataset_guard.reads.verified_read import read

        reader = read(data, purpose="inspect", tenant=tenant, home=home)
        return reader.ref, reader.report.fingerprint, reader.schema, reader.num_rows, reader.batches()
    from dataset_guard.reading import open_source

    source = open_source(data)
    name = source.uri.rsplit("/", 1)[-1] if isinstance(data, str | Path) else type(data).__name__
    return name, "", source.schema, source.num_rows, source.batches(batch_rows=BATCH_ROWS)


def is_reference(data: Any) -> bool:
    """Whether ``data`` names a registered version rather than a file: it says so with ``@``, and is none."""
    return isinstance(data, str) and "@" in data and "://" not in data and not Path(data).exists()


def suggest_suite(
    ref: str,
    *,
    values: bool = False,
    tenant: str | None = None,
    home: Home | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """A suite that the registered version ``ref`` meets, as Great Expectations' JSON, to be edited and kept.

    The version is read (every block verified, purpose ``inspect``). Ranges are widened by a quarter of their
    width, so the suite tells about where values lie; with ``values`` it also lists the values of columns
    that have few. Raises as :func:`dataset_guard.read` does.
    """
    from dataset_guard.checks.quality.suggestion import Suggester
    from dataset_guard.reads.verified_read import read

    reader = read(ref, purpose="inspect", tenant=tenant, home=home)
    found = Suggester(reader.schema, reader.report.profile, reader.report.label, values=values)
    row = 0
    for batch in reader.batches():
        found.update(batch, row)
        row += batch.num_rows
    return {
        "name": name or reader.ref.replace("/", "_").replace("@", "_v"),
        "expectations": [
            {"type": e.type, "kwargs": dict(e.kwargs), "meta": {}, "severity": e.severity.value}
            for e in found.finish()
        ],
        "meta": {"trainguard": {"suggested_from": reader.ref, "fingerprint": reader.report.fingerprint}},
        "notes": None,
    }


def write_suite(suite: Mapping[str, Any], path: Path) -> None:
    """Write a suite's JSON atomically. Raises UserError where it cannot be written."""
    from guard_core.files import write_atomic

    try:
        write_atomic(path, json.dumps(suite, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n")
    except OSError as error:
        raise UserError(f"the suite cannot be written to {path}: {error.strerror}") from error
