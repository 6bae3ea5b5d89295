"""Which tenant a Ray job belongs to, and so everything that carries a job's id. Survives a kill -9.

Ray's ids hold the job: the last four bytes of an actor's, placement group's or task's id, and bytes 20 to
24 of an object's (``src/ray/common/id.h``). A job whose id is not in here is Ray's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_JOB_BYTES = 4
_TASK_BYTES = 24


@dataclass(frozen=True, slots=True)
class Job:
    """A driver that was let in. ``id`` is Ray's job id in hex, ``workload`` the submission it belongs to,
    ``credential`` the id of the credential it brought."""

    id: str
    tenant: str
    user: str
    workload: str
    namespace: str
    credential: str = ""


class Jobs:
    """The jobs of one cluster, appended to a file before anybody may act on them."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._jobs: dict[str, Job] = {}
        self._in_order: list[Job] = []
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    job = Job(**json.loads(line))
                except (ValueError, TypeError):
                    continue  # a line that a crash cut short: that AddJob was never answered
                self._know(job)

    def _know(self, job: Job) -> None:
        self._jobs[job.id] = job
        self._in_order.append(job)

    def add(self, job: Job) -> None:
        """Record ``job`` durably."""
        line = json.dumps(asdict(job)) + "\n"
        with self._file.open("a", encoding="utf-8") as out:
            self._file.chmod(0o600)
            # A cut-off last line must not swallow this one.
            out.write(line if self._ends_clean() else "\n" + line)
            out.flush()
            os.fsync(out.fileno())
        self._know(job)

    def _ends_clean(self) -> bool:
        with self._file.open("rb") as existing:
            existing.seek(0, os.SEEK_END)
            if existing.tell() == 0:
                return True
            existing.seek(-1, os.SEEK_END)
            return existing.read(1) == b"\n"

    def get(self, job_id: str) -> Job | None:
        """The job with this id (hex), None for one of Ray's own."""
        return self._jobs.get(job_id)

    def owner(self, raw: bytes) -> str | None:
        """The tenant of the job, actor, placement group or task with this id."""
        job = self._jobs.get(raw[-_JOB_BYTES:].hex())
        return job.tenant if job is not None else None

    def object_owner(self, raw: bytes) -> str | None:
        """The tenant of the object with this id."""
        job = self._jobs.get(raw[_TASK_BYTES - _JOB_BYTES : _TASK_BYTES].hex())
        return job.tenant if job is not None else None

    def all(self) -> Iterable[Job]:
        """Every job."""
        return tuple(self._jobs.values())

    def since(self, known: int) -> tuple[int, Sequence[Job]]:
        """How many jobs were ever recorded, and those after the first ``known``.

        The order outlives a restart: it is the file's.
        """
        return len(self._in_order), self._in_order[known:]
