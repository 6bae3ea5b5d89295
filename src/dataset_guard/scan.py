"""One pass over the data for everything that wants to see it.

Each batch of 65,536 rows feeds the fingerprint, the row hashes, the profile and every check, so the data is
decoded once. Memory: one batch, 768 MiB of row hashes (the rest is mapped from a temporary file), and each
check's own stated bound. Nothing here depends on time or on chance: the same rows and seed give the same
result. (A budget of CPU time does depend on time; what it cut short is recorded as skipped.)

A :class:`Pass` sees some blocks of the rows; passes over all of them, on whatever machine, merge into what
one pass would have seen (:mod:`dataset_guard.scan_ray`).

A check that raises must not be mistaken for one that found nothing: its failure becomes a critical finding
QUAL099, which policy quarantines.
"""

from __future__ import annotations

import secrets
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any

from dataset_guard.checks.base import Check, CheckContext, Hashes
from dataset_guard.checks.discover import Broken, configured, discover, parameters_of, select
from dataset_guard.checks.novelty import with_novelty
from guard_core.errors import GuardError, UserError
from guard_core.findings import Finding, RowSet, Severity

if TYPE_CHECKING:
    from dataset_guard.fingerprint import Fingerprint, Fingerprinter, FingerprintPart
    from dataset_guard.known import KnownHashes
    from dataset_guard.learnt import Learnt, Place
    from dataset_guard.reading import Source
    from dataset_guard.rowset import SetRoot

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
    """What the sidecars store, shape (rows, 2) each.

    Tenant hashes are in row order (``features`` is None without a label), public hashes in ascending order.
    """

    rows: Hashes
    features: Hashes | None
    public: Hashes


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """Everything one pass found out. ``seconds`` are CPU seconds by stage."""

    fingerprint: Fingerprint
    rowhashes: RowHashes
    profile: Mapping[str, Any]
    findings: tuple[Finding, ...]
    checks: tuple[Mapping[str, Any], ...]
    seconds: Mapping[str, float]
    learnt: IO[bytes] | None = None
    """What :mod:`dataset_guard.learnt` keeps, when that was wanted and can be had."""


class Timer:
    """CPU seconds of this process by stage."""

    def __init__(self, clock: Callable[[], float] = time.process_time) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge the block to ``name``."""
        start = self._clock()
        try:
            yield
        finally:
            self.seconds[name] += self._clock() - start


class _Run:
    """One check at work: its state, or why it has none."""

    def __init__(self, check: Check, context: CheckContext, timer: Timer) -> None:
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

    @property
    def seconds(self) -> float:
        return self._timer.seconds[f"check:{self.check.name}"]

    def stop(self, reason: str) -> None:
        """Give up; what was seen so far says nothing about all rows."""
        if self._state is not None:
            self._state, self.skipped = None, reason

    @property
    def running(self) -> bool:
        return self._state is not None

    @property
    def state(self) -> Any:
        return self._state

    def merge(self, other: _Run) -> None:
        """Absorb what the check saw of other rows; trouble there is trouble here."""
        self.failure = self.failure or other.failure
        if other._state is None and self._state is not None:
            self._state, self.skipped = None, other.skipped
        elif self._state is not None:
            with self._guarded():
                self._state.merge(other._state)

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


@dataclass(frozen=True, slots=True)
class Plan:
    """What every pass of one scan needs; picklable. ``budget`` is CPU-seconds for the checks of one pass."""

    schema: Any
    context: CheckContext
    key: bytes
    checks: tuple[Check, ...]
    budget: float | None = None


class Pass:
    """All that is learnt from some consecutive blocks of rows; picklable when it has read them."""

    def __init__(
        self,
        plan: Plan,
        timer: Timer,
        *,
        first_block: int = 0,
        rows: int | None = None,
        holding: bool = False,
    ) -> None:
        """``rows`` is how many will come, if that is known; ``holding`` fills :attr:`held`."""
        from dataset_guard.fingerprint import Fingerprinter
        from dataset_guard.hash_store import HashStore
        from dataset_guard.profile import Profiler

        self.timer = timer
        self.runs = [_Run(check, plan.context, timer) for check in plan.checks]
        self._plan = plan
        self._first_block = first_block
        self._fingerprinter: Fingerprinter | None = Fingerprinter(plan.schema, first_block=first_block)
        self.held: list[tuple[Hashes, Place]] = []
        """The row hashes that states were given, which they may hold on to, and where they lie."""
        self._holding = holding
        self.profiler = Profiler(plan.schema, label=plan.context.label, salt=plan.key, seed=plan.context.seed)
        self._rows, self._features = HashStore(rows=rows), HashStore(rows=rows)

    def read(
        self,
        batches: Iterator[Any],
        public: Callable[[Hashes], None],
        progress: Callable[[int], None],
        known: KnownHashes | None = None,
    ) -> FingerprintPart:
        """Take all ``batches``; ``public`` gets their public row hashes, ``progress`` the rows so far.

        ``known`` rows are not hashed again, and ``public`` does not get theirs.
        """
        from dataset_guard.fingerprint import BLOCK_ROWS
        from dataset_guard.known import KnownRowHasher
        from dataset_guard.rowhash import RowHasher

        plan, timer, fingerprinter = self._plan, self.timer, self._fingerprinter
        assert fingerprinter is not None
        fresh = RowHasher(plan.schema, key=plan.key, label=plan.context.label)
        first_row, done = self._first_block * BLOCK_ROWS, 0
        hasher = fresh if known is None else KnownRowHasher(fresh, known, first_row=first_row)
        while True:
            with timer.stage("read"):
                batch = next(batches, None)
            if batch is None:
                break
            with timer.stage("fingerprint"):
                fingerprinter.update(batch)
            with timer.stage("row hashes"):
                hashed = hasher.hash(batch)
                public(hashed.public)
                assert hashed.keyed is not None
                keyed = self._rows.add(hashed.keyed)
                unlabelled = None if hashed.features is None else self._features.add(hashed.features)
            if self._holding:
                stop = first_row + batch.num_rows
                self.held.append((keyed, ("rows", first_row, stop)))
                if unlabelled is not None:
                    self.held.append((unlabelled, ("features", first_row, stop)))
            with timer.stage("profile"):
                self.profiler.update(batch, first_row)
            for run in self.runs:
                run.update(batch, first_row, keyed, unlabelled)
            first_row += batch.num_rows
            done += batch.num_rows
            self._keep_to_budget(done)
            progress(done)
        with timer.stage("fingerprint"):
            part = fingerprinter.part()
        self._fingerprinter = None
        return part

    def _keep_to_budget(self, rows: int) -> None:
        """Stop the costliest check when all of them together have spent more than the budget."""
        if self._plan.budget is None:
            return
        running = [run for run in self.runs if run.running]
        if running and sum(run.seconds for run in self.runs) > self._plan.budget:
            most = max(running, key=lambda run: run.seconds)
            most.stop(f"the budget of {self._plan.budget:g} CPU-seconds was spent after {rows:,} rows")

    def merge(self, other: Pass) -> None:
        """Absorb the pass over the rows that follow these."""
        for name, spent in other.timer.seconds.items():
            self.timer.seconds[name] += spent
        for mine, theirs in zip(self.runs, other.runs, strict=True):
            mine.merge(theirs)
        with self.timer.stage("profile"):
            self.profiler.merge(other.profiler)
        self._rows.extend(other._rows)
        self._features.extend(other._features)
        self.held += other.held

    def adopt(self, learnt: Learnt, held: list[tuple[Hashes, Place]], known: KnownHashes) -> FingerprintPart:
        """Absorb what was learnt of the first blocks, which hold ``known`` rows only; returns their leaves.

        Raises whatever a check's state does; this pass is of no use then.
        """
        from dataset_guard.canonical import canonical_schema
        from dataset_guard.fingerprint import BLOCK_ROWS, FingerprintPart

        rows = learnt.blocks * BLOCK_ROWS
        for run in self.runs:
            if run.running:
                run.state.merge(learnt.states[run.check.name])
        self.profiler.merge(learnt.profiler)
        self._rows.add(known.keyed[:rows])
        if known.features is not None:
            self._features.add(known.features[:rows])
        self.held += held
        columns = canonical_schema(self._plan.schema)
        return FingerprintPart(columns, 0, rows, learnt.bytes, known.leaves[: learnt.blocks])

    def findings(self, progress: Callable[[str], None]) -> list[Finding]:
        """What the checks have found; called once."""
        found: list[Finding] = []
        for run in self.runs:
            progress(run.check.name)
            found += run.finish()
        with self.timer.stage("row hashes"):
            found = with_novelty(found, self._plan.context, self._rows.all)
        return sorted(found, key=_rank)

    def result(
        self,
        parts: list[FingerprintPart],
        roots: SetRoot,
        findings: list[Finding],
        records: list[dict[str, Any]],
    ) -> ScanResult:
        """Everything together; ``records`` are of checks that could not be loaded."""
        from dataset_guard.fingerprint import combine
        from dataset_guard.hash_store import HashStore

        public = HashStore(memory_bytes=_SET_ROOT_BYTES)
        with self.timer.stage("fingerprint"):
            fingerprint = combine(parts, set_root=roots.finish(public.add))
        labelled = self._plan.context.label is not None
        with self.timer.stage("profile"):
            profile = self.profiler.finish()
        records = [run.record() for run in self.runs] + records
        return ScanResult(
            fingerprint=fingerprint,
            rowhashes=RowHashes(self._rows.all(), self._features.all() if labelled else None, public.all()),
            profile=profile,
            findings=tuple(findings),
            checks=tuple(sorted(records, key=lambda r: str(r["name"]))),
            seconds={name: round(spent, 4) for name, spent in self.timer.seconds.items()},
        )


def planned(
    source: Source,
    context: CheckContext,
    *,
    row_key: bytes | None,
    checks: Sequence[str] | None,
    available: tuple[tuple[Check, ...], tuple[Broken, ...]] | None,
    budget: float | None,
) -> tuple[Plan, list[dict[str, Any]]]:
    """The plan of a scan, and the records of checks that could not be loaded. Raises UserError."""
    if context.label is not None and context.label not in source.schema.names:
        known = ", ".join(source.schema.names[:20]) + (", ..." if len(source.schema.names) > 20 else "")
        raise UserError(f"the label column {context.label!r} is not in the data; its columns are: {known}")
    if row_key is None and (context.baseline is not None or context.against):
        raise ValueError("comparing with registered sets needs the tenant's row key")
    if budget is not None and budget <= 0:
        raise UserError(f"a budget of {budget:g} CPU-seconds lets no check run; give more, or name --checks")
    found, broken = discover() if available is None else available
    for lost in broken:
        if checks is not None and lost.name in checks:
            raise UserError(f"the check {lost.name!r} could not be loaded: {lost.error}")
    for name in context.parameters:
        select(found, [name])
    chosen = tuple(configured(c, context.parameters.get(c.name, {})) for c in select(found, checks))
    key = secrets.token_bytes(32) if row_key is None else row_key
    lost_records = [_broken_record(b) for b in broken if checks is None]
    return Plan(source.schema, context, key, chosen, budget), lost_records


def scan_source(
    source: Source,
    context: CheckContext,
    *,
    row_key: bytes | None,
    checks: Sequence[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    available: tuple[tuple[Check, ...], tuple[Broken, ...]] | None = None,
    cpu_clock: Callable[[], float] = time.process_time,
    budget: float | None = None,
    known: KnownHashes | None = None,
    keep: bool = False,
) -> ScanResult:
    """Read ``source`` once and say everything about it.

    ``row_key`` is the tenant's 32-byte key; None (a scan that stores nothing and compares with nothing)
    takes a fresh random one. ``checks`` limits the checks by name, ``budget`` their CPU-seconds while rows
    are read. ``known`` rows are not hashed again, and those whose states were kept with their version are not
    read either. ``keep`` asks for the states of this scan (``learnt``). Raises UserError for a label or check
    that does not exist and for data that cannot be read.
    """
    from dataset_guard import learnt
    from dataset_guard.fingerprint import BLOCK_ROWS
    from dataset_guard.rowset import SetRoot

    timer = Timer(cpu_clock)
    tell = progress or (lambda _: None)
    with timer.stage("start"):
        plan, lost = planned(
            source, context, row_key=row_key, checks=checks, available=available, budget=budget
        )
        whole, parts = _begun(source, plan, timer, known, holding=keep)
        roots = SetRoot(source.schema.names, memory_bytes=_SET_ROOT_BYTES)
    timer.seconds["start"] -= sum(v for k, v in timer.seconds.items() if k.startswith("check:"))
    done = sum(part.rows for part in parts)

    def read(batches: Iterator[Any]) -> None:
        nonlocal done
        before, block = done, done // BLOCK_ROWS
        seen = Pass(plan, Timer(cpu_clock), first_block=block, holding=keep) if block else whole
        said = lambda rows: tell(Progress("read", before + rows, source.num_rows))  # noqa: E731
        parts.append(seen.read(batches, roots.add, said, known))
        done += parts[-1].rows
        if seen is not whole:
            whole.merge(seen)

    batches = _Batches(source.batches(batch_rows=BATCH_ROWS, first_row=done))
    file = None
    if keep and budget is None:
        if batches.head_is_whole():
            read(batches.whole())
        with timer.stage("keep"):
            file = learnt.keep(whole, plan, parts)
    if batches.head is not None or not parts:
        read(batches.all())
    if known is not None:
        roots.add_sorted(known.rows.public)
    findings = whole.findings(lambda name: tell(Progress(name, done, source.num_rows)))
    return replace(whole.result(parts, roots, findings, lost), learnt=file)


class _Batches:
    """Batches of which the next one, ``head``, can be looked at; None at the end."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = iter(batches)
        self.head = next(self._batches, None)

    def head_is_whole(self) -> bool:
        return self.head is not None and self.head.num_rows == BATCH_ROWS

    def all(self) -> Iterator[Any]:
        """Those that are left."""
        while self.head is not None:
            yield self.head
            self.head = next(self._batches, None)

    def whole(self) -> Iterator[Any]:
        """Those before the first that is not a whole block."""
        while self.head_is_whole():
            yield self.head
            self.head = next(self._batches, None)


def _begun(
    source: Source, plan: Plan, timer: Timer, known: KnownHashes | None, *, holding: bool
) -> tuple[Pass, list[FingerprintPart]]:
    """A pass that knows what was learnt of the first blocks, if it was kept, and the leaves of those."""
    from dataset_guard import learnt

    if known is not None:
        begun = Pass(plan, timer, rows=source.num_rows, holding=holding)
        with suppress(Exception):  # a check may be anybody's code, and reading everything is always right
            found = learnt.recall(plan, known)
            if found is not None:
                return begun, [begun.adopt(*found, known)]
    return Pass(plan, timer, rows=source.num_rows, holding=holding), []


def _broken_record(broken: Broken) -> dict[str, Any]:
    skipped = f"could not be loaded: {broken.error}"
    return {"name": broken.name, "version": "", "parameters": {}, "seconds": 0.0, "skipped": skipped}


def _rank(finding: Finding) -> tuple[int, str, tuple[str, ...], tuple[tuple[int, int], ...]]:
    rows: RowSet = finding.rows
    return -finding.severity.rank, finding.rule_id, finding.columns, rows.ranges[:1]
