"""A scan on a Ray cluster: each task passes over a range of whole blocks, and the passes are merged.

The findings, the fingerprint and the profile are those of :func:`dataset_guard.scanning.scan.scan_source`:
checks are monoids over rows (:mod:`dataset_guard.checks.base`). The driver gets states, leaves and row
hashes, never rows. It finishes the checks, so what a check does at the end runs there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dataset_guard.hashing.fingerprint import BLOCK_ROWS, FingerprintPart
from dataset_guard.hashing.rowset import Hashes, SetRoot, sorted_run
from dataset_guard.reading.source import decoding_alone
from dataset_guard.scanning.identity import BlockRange, split
from dataset_guard.scanning.passing import Pass
from dataset_guard.scanning.plan import Plan, planned
from dataset_guard.scanning.result import Progress, ScanResult, Timer
from dataset_guard.scanning.scan import BATCH_ROWS
from guard_core.errors import GuardError, MissingExtra

if TYPE_CHECKING:
    from dataset_guard.checks.base import Check, CheckContext
    from dataset_guard.checks.discover import Broken
    from dataset_guard.reading import Source


def scan_on_ray(
    source: Source,
    context: CheckContext,
    *,
    row_key: bytes | None,
    checks: Sequence[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    available: tuple[tuple[Check, ...], tuple[Broken, ...]] | None = None,
    budget: float | None = None,
    parallelism: int | None = None,
) -> ScanResult:
    """As :func:`dataset_guard.scanning.scan.scan_source`, by tasks of the connected cluster.

    ``source`` must be readable on every node. ``parallelism`` (the cluster's CPUs) is how many ranges the
    rows are cut into; text files are one range each scan, because they cannot be read from the middle. A
    ``budget`` is shared out evenly. Raises UserError.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtra.of("ray", "ray") from None

    timer = Timer()
    with timer.stage("start"):
        plan, lost = planned(
            source, context, row_key=row_key, checks=checks, available=available, budget=budget
        )
        wanted = parallelism or max(1, int(ray.cluster_resources().get("CPU", 1)))
        ranges = split(source, wanted)
        whole = Pass(plan, timer, rows=source.num_rows)
    share = replace(plan, budget=None if budget is None else budget / len(ranges))
    shared_source, shared_plan = ray.put(source), ray.put(share)
    task = ray.remote(passed_over)
    waiting = [task.remote(shared_source, shared_plan, blocks) for blocks in ranges]
    tell = progress or (lambda _: None)
    roots, parts, done = SetRoot(source.schema.names), [], 0
    try:
        while waiting:
            seen, part, public = ray.get(waiting.pop(0))
            whole.merge(seen)
            roots.add(public)
            parts.append(part)
            done += part.rows
            tell(Progress("read", done, source.num_rows))
            del seen, public
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, GuardError):
            raise error.cause from None
        raise
    findings = whole.findings(lambda name: tell(Progress(name, done, source.num_rows)))
    return whole.result(parts, roots, findings, lost)


@decoding_alone()
def passed_over(source: Source, plan: Plan, blocks: BlockRange) -> tuple[Pass, FingerprintPart, Hashes]:
    """The task: a pass over ``blocks``, its leaves, and its public row hashes in ascending order."""
    public: list[Any] = []
    seen = Pass(plan, Timer(), first_block=blocks.first, rows=blocks.rows)
    batches = source.batches(batch_rows=BATCH_ROWS, first_row=blocks.first * BLOCK_ROWS, rows=blocks.rows)
    part = seen.read(iter(batches), public.append, lambda _: None)
    return seen, part, sorted_run(public)
