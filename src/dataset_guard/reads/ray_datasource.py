"""The parts of :mod:`dataset_guard.ray_data` that subclass Ray's classes, and so import Ray."""

from __future__ import annotations

from typing import Any

from ray.data import Datasource
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from dataset_guard.hashing.fingerprint import BLOCK_ROWS
from dataset_guard.ray_data import CONTEXT_KEY, ReadPlan


class VerifiedDatasource(Datasource):  # type: ignore[misc]
    """A registered version as a Ray datasource: one task per range of whole blocks."""

    def __init__(self, plan: ReadPlan) -> None:
        super().__init__()
        self._plan = plan

    def get_name(self) -> str:
        """Shown in Ray's progress and dashboard."""
        return f"Verified({self._plan.check.ref})"

    def estimate_inmemory_data_size(self) -> int | None:
        """Bytes of the data as stored: an estimate from below for compressed files."""
        return self._plan.source.num_bytes

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: Any = None,  # noqa: ARG002
    ) -> list[ReadTask]:
        """The read tasks; as many as asked for where blocks and format allow."""
        plan = self._plan
        size = plan.source.num_bytes or 0
        tasks = []
        for number, (first, end) in enumerate(plan.ranges(parallelism)):
            rows = min(end * BLOCK_ROWS, plan.check.rows) - first * BLOCK_ROWS
            metadata = BlockMetadata(
                num_rows=rows,
                size_bytes=size * rows // max(plan.check.rows, 1),
                exec_stats=None,
                input_files=tuple(str(f) for f in plan.source.files),
            )
            task = plan.task(number, first, end)
            tasks.append(ReadTask(task, metadata, schema=plan.schema, per_task_row_limit=per_task_row_limit))
        return tasks


class ReadRecorder(ExecutionCallback):  # type: ignore[misc]
    """Writes the audit event of every verified read that an execution ran.

    An interface of Ray that is marked internal (ray/data/context.py, ``custom_execution_callback_classes``);
    the pinned minor version has it.
    """

    def after_execution_succeeds(self, executor: Any) -> None:
        """Called once, also when the consumer stopped early."""
        self._collect(executor, None)

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Called once; ``error`` goes on to the consumer."""
        # Its type only: a message from user code may hold a cell of the data.
        self._collect(executor, type(error).__name__)

    def _collect(self, executor: Any, problem: str | None) -> None:
        for spool in executor._data_context.get_config(CONTEXT_KEY, ()):
            spool.collect(problem=problem)
