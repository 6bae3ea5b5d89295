"""All that is learnt from some consecutive blocks of rows.

Each batch feeds the fingerprint, the row hashes, the profile and every check, so the data is decoded once.
Memory: one batch, 700 MiB of row hashes (the rest is mapped from temporary files), and each check's own
stated bound. Passes over all the rows, on whatever machine, merge into what one pass would have seen
(:mod:`dataset_guard.scanning.on_ray`); what was learnt of the first rows at an earlier registration is
adopted (:mod:`dataset_guard.sidecars.learnt`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dataset_guard.checks.novelty import with_novelty
from dataset_guard.scanning.check_run import CheckRun
from dataset_guard.scanning.result import RowHashes, ScanResult

if TYPE_CHECKING:
    from dataset_guard.checks.base import Hashes
    from dataset_guard.hashing.fingerprint import Fingerprinter, FingerprintPart
    from dataset_guard.hashing.rowset import SetRoot
    from dataset_guard.scanning.plan import Plan
    from dataset_guard.scanning.result import Timer
    from dataset_guard.sidecars.known import KnownHashes
    from dataset_guard.sidecars.learnt import Learnt, Place
    from guard_core.findings import Finding, RowSet

SET_ROOT_BYTES = 192 << 20
"""Memory for the public row hashes, and for the root of their set; the rest goes to temporary files."""


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
        after: Pass | None = None,
    ) -> None:
        """``rows`` is how many will come, if that is known; ``holding`` fills :attr:`held`.

        The rows follow those of ``after``, which is to be merged with it: their hashes go to one store.
        """
        from dataset_guard.hashing.fingerprint import Fingerprinter
        from dataset_guard.hashing.hash_store import HashStore
        from dataset_guard.scanning.profile import Profiler

        self.timer = timer
        self.runs = [CheckRun(check, plan.context, timer) for check in plan.checks]
        self._plan = plan
        self._first_block = first_block
        self._fingerprinter: Fingerprinter | None = Fingerprinter(plan.schema, first_block=first_block)
        self.held: list[tuple[Hashes, Place]] = []
        """The row hashes that states were given, which they may hold on to, and where they lie."""
        self._holding = holding
        self.profiler = Profiler(plan.schema, label=plan.context.label, salt=plan.key, seed=plan.context.seed)
        if after is None:
            self._rows = HashStore(rows=rows)
            self._features = HashStore(rows=rows if plan.context.label is not None else None)
        else:
            self._rows, self._features = after._rows, after._features

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
        from dataset_guard.hashing.fingerprint import BLOCK_ROWS
        from dataset_guard.hashing.rowhash import RowHasher
        from dataset_guard.sidecars.known import KnownRowHasher

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
        if other._rows is not self._rows:
            self._rows.extend(other._rows)
            self._features.extend(other._features)
        self.held += other.held

    def adopt(self, learnt: Learnt, held: list[tuple[Hashes, Place]], known: KnownHashes) -> FingerprintPart:
        """Absorb what was learnt of the first blocks, which hold ``known`` rows only; returns their leaves.

        Raises whatever a check's state does; this pass is of no use then.
        """
        from dataset_guard.hashing.canonical import canonical_schema
        from dataset_guard.hashing.fingerprint import BLOCK_ROWS, FingerprintPart

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
        from dataset_guard.hashing.fingerprint import combine
        from dataset_guard.hashing.hash_store import HashStore

        # In memory they are the pieces themselves, not a copy.
        known = None if 16 * roots.rows <= SET_ROOT_BYTES else roots.rows
        public = HashStore(rows=known, memory_bytes=SET_ROOT_BYTES)
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
            scope=replace(
                self._plan.scope, cut_short=tuple(sorted(r.check.name for r in self.runs if r.cut_short))
            ),
        )


def _rank(finding: Finding) -> tuple[int, str, tuple[str, ...], tuple[tuple[int, int], ...]]:
    rows: RowSet = finding.rows
    return -finding.severity.rank, finding.rule_id, finding.columns, rows.ranges[:1]
