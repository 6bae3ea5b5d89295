"""Registered versions as Ray Datasets, whose read tasks check what they read.

::

    from dataset_guard import ray_data

    dataset = ray_data.read("digits@3")     # in a driver or a submitted job
    dataset.map_batches(train_on)

Policy is asked once, in the driver, before any task exists. Each read task covers whole blocks of 65,536 rows
and compares every block with the signed leaves before it hands the rows on; the first block that differs
ends the execution with an error that names it. When an execution ends, however it ends, one audit event
``dataset.read`` says how many rows each task handed out.

Label: `cooperative` (see :mod:`dataset_guard.reads.verified_read`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataset_guard.hashing.fingerprint import BLOCK_ROWS, Fingerprint, FingerprintPart, combine
from dataset_guard.hashing.rowset import Hashes, set_root_of, slices_of, sorted_run
from dataset_guard.reading import Source, open_source
from dataset_guard.reads.access import Access, Ticket, open_access
from dataset_guard.reads.apart import ReferenceApart
from dataset_guard.reads.block_check import BlockCheck
from dataset_guard.reads.checked import Handed, checked
from dataset_guard.scanning.identity import SEEKABLE, BlockRange, hash_range, split
from guard_core.errors import MissingExtra, UserError

if TYPE_CHECKING:
    from guard_core.home import Home

_GROUPS_PER_TASK = 4
_BLOCKS_PER_TASK = 16

CONTEXT_KEY = "trainguard.reads"


def read(
    ref: str,
    *,
    columns: Sequence[str] | None = None,
    purpose: str = "train",
    tenant: str | None = None,
    home: Home | None = None,
    **options: Any,
) -> Any:
    """A ``ray.data.Dataset`` of the version ``ref``; ``options`` go to ``ray.data.read_datasource``.

    Inside a submitted job the credential in TRAINGUARD_TOKEN is used: sets the job did not declare are
    refused. Raises Denied, Undecidable, UserError and Tampered as :func:`dataset_guard.read` does; Tampered
    data surfaces where the dataset is consumed.
    """
    try:
        import ray.data
    except ImportError:
        raise MissingExtra.of("ray", "ray") from None
    from dataset_guard.reads.ray_datasource import ReadRecorder, VerifiedDatasource

    with open_access(ref, purpose=purpose, tenant=tenant, home=home) as access:
        plan = plan_of(access, columns)
    context = ray.data.DataContext.get_current()
    if ReadRecorder not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(ReadRecorder)
    # Every dataset copies the context it was made in, also into the actors of a streaming split, so that
    # whichever process drives the execution knows what to record. Reads that did not run record nothing.
    context.set_config(CONTEXT_KEY, (*context.get_config(CONTEXT_KEY, ()), plan.spool))
    if options.get("override_num_blocks") is None:
        # Said here, because Ray would otherwise cut what few tasks read into some 200 small blocks.
        cpus = int(ray.cluster_resources().get("CPU", 1))
        wanted = max(2 * cpus, plan.check.blocks // _BLOCKS_PER_TASK)
        options["override_num_blocks"] = len(plan.ranges(wanted, cpus=cpus))
    return ray.data.read_datasource(VerifiedDatasource(plan), **options)


def fingerprint(data: Any, *, set_root: bool = True, parallelism: int | None = None) -> Fingerprint:
    """The fingerprint of ``data``, computed by Ray tasks; the roots are :func:`dataset_guard.fingerprint`'s.

    ``data`` is a path or URL that every node can read, or a ``ray.data.Dataset``. Tasks hash ranges of whole
    blocks; ``parallelism`` (twice the cluster's CPUs) says how many. The driver gets leaves and, a range of
    hash values at a time, row hashes; never rows. Raises UserError.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtra.of("ray", "ray") from None

    source = open_source(data)
    wanted = parallelism or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    ranges = split(source, wanted)
    slices = max(1, -(-(source.num_rows or 0) // _SLICE_ROWS)) if set_root else 0
    shared = ray.put(source)
    hashed = ray.remote(_hashed_range).options(num_returns=1 + slices)
    made = [hashed.remote(shared, blocks, slices) for blocks in ranges]
    rows = [[refs] if slices == 0 else refs for refs in made]
    try:
        parts: list[FingerprintPart] = ray.get([refs[0] for refs in rows])
        root = None
        if set_root:
            merge = ray.remote(_merged_slice)
            pieces = (ray.get(merge.remote(*[refs[1 + i] for refs in rows])) for i in range(slices))
            root = set_root_of(source.schema.names, sum(part.rows for part in parts), pieces)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    return combine(parts, set_root=root)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connected to the Ray cluster at ``address``, disconnected again at the end. Raises UserError."""
    try:
        import ray
    except ImportError:
        raise MissingExtra.of("ray", "ray") from None

    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError) as error:
        raise UserError(
            f"there is no Ray cluster at {address!r} ({str(error).splitlines()[0][:120]}); check the "
            "address, and RAY_AUTH_MODE and RAY_AUTH_TOKEN where the cluster asks for a token"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


_SLICE_ROWS = 1 << 20


def _hashed_range(source: Source, blocks: BlockRange, slices: int) -> Any:
    """A Ray task: the leaves of ``blocks`` and their sorted public row hashes, cut by value."""
    from dataset_guard.hashing.rowhash import RowHasher

    if slices == 0:
        return hash_range(source, blocks)
    found: list[Hashes] = []
    part = hash_range(source, blocks, RowHasher(source.schema), lambda hashes: found.append(hashes.public))
    return part, *slices_of(sorted_run(found), slices)


def _merged_slice(*runs: Hashes) -> Hashes:
    return sorted_run(runs)


@dataclass(frozen=True, slots=True)
class Spool:
    """Whose read it is, and what becomes of the counts that its tasks leave. Picklable."""

    ticket: Ticket
    columns: tuple[str, ...] | None
    rows: int

    def collect(self, *, problem: str | None) -> str | None:
        """Write the audit event for the tasks that ran since the last call; None when none did."""
        tasks = self.ticket.collect()
        if not tasks:
            return None
        rows = sum(task["rows"] for task in tasks)
        return self.ticket.record(
            rows=rows,
            bytes=sum(task["bytes"] for task in tasks),
            blocks=sum(task["blocks"] for task in tasks),
            complete=problem is None and rows == self.rows and all(task["complete"] for task in tasks),
            columns=self.columns,
            problem=next((task["problem"] for task in tasks if task["problem"]), problem),
            tasks=tasks,
        )


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Everything a read needs, decided: picklable, without policy or credentials."""

    source: Source
    check: BlockCheck
    columns: tuple[str, ...] | None
    schema: Any
    spool: Spool

    def ranges(self, parallelism: int, *, cpus: int | None = None) -> list[tuple[int, int]]:
        """Block ranges (first, end), one per task: as even as whole blocks allow.

        With ``cpus`` there may be fewer than ``parallelism``: a task that begins within a row group decodes
        all of it, so there is one task for four row groups, or as many as keep the cluster's CPUs busy.
        """
        blocks = self.check.blocks
        wanted = parallelism if self.source.kind in SEEKABLE else len(self.source.files)
        if cpus is not None and self.source.seek_rows > 1:
            groups = -(-self.check.rows // self.source.seek_rows)
            wanted = min(wanted, max(min(cpus, groups), groups // _GROUPS_PER_TASK))
        tasks = max(1, min(wanted, blocks))
        edges = [blocks * i // tasks for i in range(tasks + 1)]
        return list(pairwise(edges))

    def task(self, number: int, first: int, end: int) -> BlockRead:
        """The read task for blocks ``first`` to ``end - 1``, with only its own leaves."""
        last = end == self.check.blocks
        return BlockRead(
            self.source,
            self.check.of_blocks(first, end),
            self.columns,
            self.spool.ticket,
            number,
            # The last task reads on to the end of the data: rows that were added must be found, too.
            None if last else (end - first) * BLOCK_ROWS,
        )


@dataclass(frozen=True, slots=True)
class BlockRead:
    """One read task: a callable that yields Arrow tables, each checked before it is handed on."""

    source: Source
    check: BlockCheck
    columns: tuple[str, ...] | None
    ticket: Ticket
    number: int
    rows: int | None

    def __call__(self) -> Iterator[pa.Table]:
        """Tables of one block each. Raises Tampered at the first that is not as signed."""
        handed = Handed()
        try:
            for batch in checked(self.source, self.check, self.columns, handed, rows=self.rows):
                yield pa.Table.from_batches([batch])
        finally:
            self.ticket.leave(self.number, {"first_block": self.check.first_block, **handed.to_json()})


def plan_of(access: Access, columns: Sequence[str] | None) -> ReadPlan:
    """The plan of a read that policy has allowed. Raises UserError for an unknown column."""
    if isinstance(access.reference, ReferenceApart) and access.reference.kept:
        raise UserError(
            f"the data of {access.ref} is kept in the home, where the tasks of this job cannot read it; use "
            "dataset_guard.read, or register it from a file or URL that every node can read"
        )
    names = access.known_columns(columns)
    source, check = access.open(), access.check()
    schema = source.schema
    return ReadPlan(
        source=source,
        check=check.of_columns(names),
        columns=names,
        schema=schema if names is None else pa.schema([schema.field(n) for n in names]),
        spool=Spool(access.ticket, names, check.rows),
    )
