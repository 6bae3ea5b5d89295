"""One pass over the data for everything that wants to see it.

Each batch of 65,536 rows feeds the fingerprint, the row hashes, the profile and every check, so the data is
decoded once. Memory: one batch, 768 MiB of row hashes (the rest is mapped from a temporary file), and each
check's own stated bound. Nothing here depends on time or on chance: the same rows and seed give the same
result.

A check that raises must not be mistaken for one that found nothing: its failure becomes a critical finding
QUAL099, which policy quarantines.
"""

from __future__ import annotations

import secrets
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dataset_guard.checks.base import Check, CheckContext, Hashes
from dataset_guard.checks.discover import Broken, configured, discover, parameters_of, select
from guard_core.errors import GuardError, UserError
from guard_core.findings import Finding, RowSet, Severity

if TYPE_CHECKING:
    from dataset_guard.fingerprint import Fingerprint
    from dataset_guard.reading import Source

BATCH_ROWS = 65_536
_SET_ROOT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a scan is; ``total_rows`` is None when only reading would tell."""

    stage: str
    rows: int
    total_rows: int | None


@dataclass(frozen=True, slots=True)
class RowHashes:
    """What the sidecar stores, in row order, shape (rows, 2) each; ``features`` is None without a label."""

    rows: Hashes
    features: Hashes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """Everything one pass found out. ``seconds`` are CPU seconds by stage."""

    fingerprint: Fingerprint
    rowhashes: RowHashes
    profile: Mapping[str, Any]
    findings: tuple[Finding, ...]
    checks: tuple[Mapping[str, Any], ...]
    seconds: Mapping[str, float]


class _Timer:
    """CPU seconds of this process by stage."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = self._clock()
        try:
            yield
        finally:
            self.seconds[name] += self._clock() - start


class _Run:
    """One check at work: its state, or why it has none."""

    def __init__(self, check: Check, context: CheckContext, timer: _Timer) -> None:
        self.check = check
        self._timer = timer
        self._state: Any = None
        self.skipped: str | None = None
        self.failure: Finding | None = None
        self.details: Mapping[str, Any] | None = None
        with self._guarded():
            self.skipped = check.applies(context)
            if self.skipped is None:
                self._state = check.start(context)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """A failing check is a finding; its error may quote a cell, so only type and place are told."""
        try:
            with self._timer.stage(f"check:{self.check.name}"):
                yield
        except (GuardError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - a check may be anybody's code
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
            self._state = None
            self.skipped = f"failed: {type(error).__name__} at {place}"
            self.failure = Finding(
                rule_id="QUAL099",
                severity=Severity.CRITICAL,
                message=f"The check {self.check.name} failed, so its rules say nothing about this data.",
                action="Report the failure to the check's author, or leave the check out with --checks.",
                evidence={"error": type(error).__name__, "place": place, "rules": list(self.check.rule_ids)},
            )

    def update(self, batch: Any, first_row: int, hashes: Hashes | None, features: Hashes | None) -> None:
        if self._state is not None:
            needs = self.check.needs
            with self._guarded():
                self._state.update(
                    batch,
                    first_row,
                    hashes if "row_hashes" in needs else None,
                    features if "feature_hashes" in needs else None,
                )

    def finish(self) -> list[Finding]:
        found: list[Finding] = []
        if self._state is not None:
            with self._guarded():
                found = list(self._state.finish())
                self.skipped = getattr(self._state, "skipped", None)
                self.details = getattr(self._state, "details", None)
        if self.failure is not None:
            found.append(self.failure)
        return [replace(f, check=self.check.name, check_version=self.check.version) for f in found]

    def record(self) -> dict[str, Any]:
        return {
            "name": self.check.name,
            "version": self.check.version,
            "parameters": {k: v for k, v in parameters_of(self.check).items() if _is_json(v)},
            "seconds": round(self._timer.seconds[f"check:{self.check.name}"], 4),
            "skipped": self.skipped,
            **({} if self.details is None else {"details": dict(self.details)}),
        }


def _is_json(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_json(v) for v in value)
    return value is None or isinstance(value, str | int | float | bool)


def _runs(
    context: CheckContext, names: Sequence[str] | None, available: Sequence[Check], timer: _Timer
) -> list[_Run]:
    for name in context.parameters:
        select(available, [name])
    chosen = [configured(c, context.parameters.get(c.name, {})) for c in select(available, names)]
    return [_Run(check, context, timer) for check in chosen]


def _validate(source: Source, context: CheckContext, row_key: bytes | None) -> None:
    if context.label is not None and context.label not in source.schema.names:
        known = ", ".join(source.schema.names[:20]) + (", ..." if len(source.schema.names) > 20 else "")
        raise UserError(f"the label column {context.label!r} is not in the data; its columns are: {known}")
    if row_key is None and (context.baseline is not None or context.against):
        raise ValueError("comparing with registered sets needs the tenant's row key")


def scan_source(
    source: Source,
    context: CheckContext,
    *,
    row_key: bytes | None,
    checks: Sequence[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    available: tuple[tuple[Check, ...], tuple[Broken, ...]] | None = None,
    cpu_clock: Callable[[], float] = time.process_time,
) -> ScanResult:
    """Read ``source`` once and say everything about it.

    ``row_key`` is the tenant's 32-byte key; None (a scan that stores nothing and compares with nothing)
    takes a fresh random one. ``checks`` limits the checks by name. Raises UserError for a label or check
    that does not exist and for data that cannot be read.
    """
    from dataset_guard.fingerprint import Fingerprinter
    from dataset_guard.hash_store import HashStore
    from dataset_guard.profile import Profiler
    from dataset_guard.rowhash import RowHasher
    from dataset_guard.rowset import SetRoot

    _validate(source, context, row_key)
    key = secrets.token_bytes(32) if row_key is None else row_key
    timer = _Timer(cpu_clock)
    with timer.stage("start"):
        found, broken = discover() if available is None else available
        for lost in broken:
            if checks is not None and lost.name in checks:
                raise UserError(f"the check {lost.name!r} could not be loaded: {lost.error}")
        runs = _runs(context, checks, found, timer)
        fingerprinter = Fingerprinter(source.schema)
        hasher = RowHasher(source.schema, key=key, label=context.label)
        set_root = SetRoot(source.schema.names, memory_bytes=_SET_ROOT_BYTES)
        profiler = Profiler(source.schema, label=context.label, salt=key, seed=context.seed)
        rows, features = HashStore(rows=source.num_rows), HashStore(rows=source.num_rows)
    timer.seconds["start"] -= sum(v for k, v in timer.seconds.items() if k.startswith("check:"))

    batches = iter(source.batches(batch_rows=BATCH_ROWS))
    first_row = 0
    while True:
        with timer.stage("read"):
            batch = next(batches, None)
        if batch is None:
            break
        with timer.stage("fingerprint"):
            fingerprinter.update(batch)
        with timer.stage("row hashes"):
            hashed = hasher.hash(batch)
            set_root.add(hashed.public)
            assert hashed.keyed is not None
            keyed = rows.add(hashed.keyed)
            unlabelled = None if hashed.features is None else features.add(hashed.features)
        with timer.stage("profile"):
            profiler.update(batch, first_row)
        for run in runs:
            run.update(batch, first_row, keyed, unlabelled)
        first_row += batch.num_rows
        if progress is not None:
            progress(Progress("read", first_row, source.num_rows))

    findings: list[Finding] = []
    for run in runs:
        if progress is not None:
            progress(Progress(run.check.name, first_row, source.num_rows))
        findings += run.finish()
    with timer.stage("fingerprint"):
        fingerprint = fingerprinter.finish(set_root=set_root.finish())
    with timer.stage("profile"):
        profile = profiler.finish()
    records = [run.record() for run in runs] + [_broken_record(b) for b in broken if checks is None]
    return ScanResult(
        fingerprint=fingerprint,
        rowhashes=RowHashes(rows.all(), features.all() if context.label is not None else None),
        profile=profile,
        findings=tuple(sorted(findings, key=_rank)),
        checks=tuple(sorted(records, key=lambda r: str(r["name"]))),
        seconds={name: round(spent, 4) for name, spent in timer.seconds.items()},
    )


def _broken_record(broken: Broken) -> dict[str, Any]:
    skipped = f"could not be loaded: {broken.error}"
    return {"name": broken.name, "version": "", "parameters": {}, "seconds": 0.0, "skipped": skipped}


def _rank(finding: Finding) -> tuple[int, str, tuple[str, ...], tuple[tuple[int, int], ...]]:
    rows: RowSet = finding.rows
    return -finding.severity.rank, finding.rule_id, finding.columns, rows.ranges[:1]
