"""A workload: one job as quota and policy see it, and the states it passes through.

The states are Kueue's. A workload is immutable; its state is advanced only by
:mod:`compute_guard.ledger.store`, along `TRANSITIONS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from compute_guard.quota.limits import CPU, GPU, JOBS, MEMORY, WORKERS, Amounts
from guard_core.errors import UserError

MAX_PRIORITY = 1_000_000
DATASETS = "datasets"
"""The key of ``metadata``, and the field of ``runtime_env``, by which a job declares the data it reads."""
_SUBMISSION_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")


class WorkloadState(StrEnum):
    """Where a workload is, in Kueue's words."""

    PENDING = "pending"  # known, waiting for room or for a hold to lift
    ADMITTED = "admitted"  # its quota is reserved; being handed to Ray
    RUNNING = "running"  # Ray runs it
    FINISHED = "finished"  # Ray says it ended, well or badly; its reservation is gone
    EVICTED = "evicted"  # taken out by a person, by response, or because Ray refused it
    PREEMPTED = "preempted"  # taken out to make room for another
    DENIED = "denied"  # policy said no

    @property
    def terminal(self) -> bool:
        """True when no transition leaves this state."""
        return not TRANSITIONS[self]

    @property
    def holds_quota(self) -> bool:
        """True exactly while the workload has reservations."""
        return self in (WorkloadState.ADMITTED, WorkloadState.RUNNING)


TRANSITIONS: Mapping[WorkloadState, frozenset[WorkloadState]] = MappingProxyType(
    {
        WorkloadState.PENDING: frozenset(
            {WorkloadState.ADMITTED, WorkloadState.EVICTED, WorkloadState.DENIED}
        ),
        WorkloadState.ADMITTED: frozenset(
            {WorkloadState.RUNNING, WorkloadState.FINISHED, WorkloadState.EVICTED, WorkloadState.PREEMPTED}
        ),
        WorkloadState.RUNNING: frozenset(
            {WorkloadState.FINISHED, WorkloadState.EVICTED, WorkloadState.PREEMPTED}
        ),
        WorkloadState.FINISHED: frozenset(),
        WorkloadState.EVICTED: frozenset(),
        WorkloadState.PREEMPTED: frozenset(),
        WorkloadState.DENIED: frozenset(),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a job asks for. ``id`` is Ray's submission id; ``created_ns`` orders the queue.

    ``submitted_by`` is the submitter's principal as policy saw it, for the decision at release; ``spec`` is
    the submission body, and neither takes part in hashing.
    """

    id: str
    tenant: str
    user: str
    queue: str
    requests: Amounts
    entrypoint: str
    created_ns: int
    priority: int = 0
    declared: tuple[str, ...] = ()
    runtime_env_fields: tuple[str, ...] = ()
    flavors: tuple[str, ...] = ()
    """The flavors it accepts; empty: any that its queue has."""
    expected_seconds: int = 0
    """How long its submitter says it runs; 0: not said. For estimates only."""
    submitted_by: Mapping[str, Any] = field(default_factory=dict, hash=False)
    spec: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def to_input(self, datasets: list[dict[str, Any]]) -> dict[str, Any]:
        """``input.workload`` of guard/compute/admission; ``datasets`` are the facts of `declared`."""
        return {
            "submission_id": self.id,
            "queue": self.queue,
            "entrypoint": self.entrypoint,
            "requests": {JOBS: 0, CPU: 0, GPU: 0, MEMORY: 0, **dict(self.requests.items())},
            "runtime_env_fields": list(self.runtime_env_fields),
            "declared": list(self.declared),
            "datasets": datasets,
            "priority": self.priority,
        }


def workload_from_submission(
    body: Mapping[str, Any],
    *,
    submission_id: str,
    tenant: str,
    user: str,
    queue: str,
    created_ns: int,
    submitted_by: Mapping[str, Any] | None = None,
) -> Workload:
    """Read the body of Ray's ``POST /api/jobs/``. Tenant and user come from the credential, never from it.

    ``metadata`` may declare ``datasets`` (comma separated; ``runtime_env`` may, as a list too), ``priority``,
    ``flavor`` (one or more, comma separated), ``expected_seconds``, and the whole job's footprint as
    ``cpus``, ``gpus``, ``memory`` (bytes) and ``workers`` where its tasks use more than its entrypoint: the
    larger of footprint and ``entrypoint_*`` is reserved. Raises UserError naming the field that is wrong.
    """
    entrypoint = body.get("entrypoint")
    if not isinstance(entrypoint, str) or not entrypoint.strip():
        raise UserError("entrypoint must be the command to run, a non-empty string")
    if not _SUBMISSION_ID.match(submission_id):
        raise UserError("submission_id must be 1 to 128 letters, digits, dots, dashes or underscores")
    metadata = _string_map(body.get("metadata"), "metadata")
    environment = body.get("runtime_env") or {}
    if not isinstance(environment, Mapping):
        raise UserError("runtime_env must be an object")
    own = entrypoint_amounts(body)
    requests = own | {
        JOBS: 1,
        CPU: max(own[CPU], _milli(metadata.get("cpus"), "metadata.cpus")),
        GPU: max(own[GPU], _milli(metadata.get("gpus"), "metadata.gpus")),
        MEMORY: max(own[MEMORY], _scaled(metadata.get("memory"), "metadata.memory", 1)),
        WORKERS: _scaled(metadata.get("workers"), "metadata.workers", 1),
    }
    return Workload(
        id=submission_id,
        tenant=tenant,
        user=user,
        queue=queue,
        requests=Amounts(requests),
        entrypoint=entrypoint,
        created_ns=created_ns,
        priority=parse_priority(metadata.get("priority", "0")),
        declared=_declared(metadata, environment),
        flavors=_listed(metadata.get("flavor", "")),
        expected_seconds=_scaled(metadata.get("expected_seconds"), "metadata.expected_seconds", 1),
        runtime_env_fields=tuple(sorted(_environment_fields(environment))),
        submitted_by=submitted_by or {},
        spec=dict(body),
    )


def entrypoint_amounts(body: Mapping[str, Any]) -> dict[str, int]:
    """What the entrypoint itself holds as long as the job runs. Raises UserError naming the field."""
    amounts = {
        CPU: _milli(body.get("entrypoint_num_cpus"), "entrypoint_num_cpus"),
        GPU: _milli(body.get("entrypoint_num_gpus"), "entrypoint_num_gpus"),
        MEMORY: _scaled(body.get("entrypoint_memory"), "entrypoint_memory", 1),
    }
    custom = body.get("entrypoint_resources") or {}
    if not isinstance(custom, Mapping):
        raise UserError("entrypoint_resources must be an object of resource name to amount")
    for name, amount in custom.items():
        # Two names that differ only in case or punctuation share one quota: the sum is asked for.
        key = "custom_" + re.sub(r"[^a-z0-9_]", "_", str(name).lower())
        amounts[key] = amounts.get(key, 0) + _milli(amount, f"entrypoint_resources.{name}")
    return amounts


def _declared(metadata: Mapping[str, str], environment: Mapping[str, Any]) -> tuple[str, ...]:
    """Datasets of ``metadata`` and of ``runtime_env``, each named once."""
    named = environment.get(DATASETS) or []
    if isinstance(named, str):
        named = [named]
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise UserError(f"runtime_env.{DATASETS} must be a name or a list of names, such as reviews@1")
    return _listed(",".join([metadata.get(DATASETS, ""), *named]))


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _environment_fields(environment: Mapping[str, Any]) -> Iterator[str]:
    """Names only: each field a person set, and ``env_vars.NAME`` for each variable.

    Ray's client adds ``_ray_commit`` beside pip and conda, which are what is judged.
    """
    names = (str(name) for name, value in environment.items() if value)
    yield from (name for name in names if name != DATASETS and not name.startswith("_ray"))
    for name in _string_map(environment.get("env_vars"), "runtime_env.env_vars"):
        yield f"env_vars.{name}"


def parse_priority(text: str) -> int:
    """An integer from 0 to MAX_PRIORITY; larger goes first within its queue."""
    if not re.fullmatch(r"\d{1,7}", text) or int(text) > MAX_PRIORITY:
        raise UserError(f"priority must be an integer from 0 to {MAX_PRIORITY}, got {text!r}")
    return int(text)


def _string_map(value: object, name: str) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(
        isinstance(k, str) and isinstance(v, str) for k, v in value.items()
    ):
        raise UserError(f"{name} must be an object of strings")
    return value


def _milli(value: object, name: str) -> int:
    return _scaled(value, name, 1000)


def _scaled(value: object, name: str, scale: int) -> int:
    """``value`` times ``scale``, rounded up, so that a job never reserves less than it asked for."""
    if value is None or value == "":
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UserError(f"{name} must be a number, got {value!r}")
    try:
        number = Decimal(str(value))
        if not number.is_finite() or number < 0 or number > 10**15:
            raise UserError(f"{name} must be a number from 0 to 10^15, got {value!r}")
        return int((number * scale).to_integral_value(rounding=ROUND_CEILING))
    except InvalidOperation as error:
        raise UserError(f"{name} must be a number, got {value!r}") from error
