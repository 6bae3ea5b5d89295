"""Every table of TrainGuard, as typed SQLAlchemy models.

One module, one metadata, one migration chain: a table that a model describes and the migrations do
not make (or the other way round) fails ``tests/guard_core/storage/test_migrations.py``.

Conventions. Times are aware UTC datetimes (:class:`UtcDateTime`). Amounts are integers in the units of
their resource (``gpu_milli``, ``cpu_milli``, bytes). JSON columns hold lists and objects that are never
searched. No column holds a raw cell value of a dataset, a token, or a key.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime on every database. Raises ValueError for a naive one.

    SQLite stores no time zone; without this, what was written aware would be read back naive.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Convert to UTC on the way in."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("times in storage are aware; got a naive datetime")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Attach UTC on the way out."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite gives automatic row numbers to INTEGER primary keys only, never to BIGINT.
RowId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Root of all models. Constraint names are fixed, so that migrations can name them on every database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


# --- kernel ---------------------------------------------------------------------------------------


class CredentialRow(Base):
    """A credential: who it stands for, and the SHA-256 of its token. The token itself is never stored."""

    __tablename__ = "credentials"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    tenant: Mapped[str] = mapped_column(String(64), index=True)
    user: Mapped[str] = mapped_column(String(128))
    roles: Mapped[list[str]] = mapped_column(JSON)
    workload: Mapped[str | None] = mapped_column(String(128), index=True)
    datasets: Mapped[list[str]] = mapped_column(JSON)
    token_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class DecisionRow(Base):
    """Where a decision record lies in the audit log. Derived: rebuilt from it, never the truth itself."""

    __tablename__ = "decisions"

    decision_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, unique=True)
    segment: Mapped[str] = mapped_column(String(64))
    offset: Mapped[int] = mapped_column(BigInteger)
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    path: Mapped[str] = mapped_column(String(255), index=True)
    tenant: Mapped[str] = mapped_column(String(64), index=True)
    user: Mapped[str] = mapped_column(String(128))
    subject: Mapped[str] = mapped_column(Text)
    allow: Mapped[bool] = mapped_column(Boolean)
    undecidable: Mapped[bool] = mapped_column(Boolean)
    revision: Mapped[str] = mapped_column(String(128))
    enforcement: Mapped[str] = mapped_column(String(16))


# --- datasets (dataset_guard.registry.store) ------------------------------------------------------------


class DatasetRow(Base):
    """A named dataset of a tenant; its content lives in versions."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("tenant", "name"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64), index=True)
    name: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class DatasetVersionRow(Base):
    """One registered version of a dataset. ``record_path`` is relative to the home directory."""

    __tablename__ = "dataset_versions"
    __table_args__ = (UniqueConstraint("dataset_id", "version"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    version: Mapped[int] = mapped_column(Integer)
    fingerprint: Mapped[str] = mapped_column(String(80), index=True)
    set_root: Mapped[str | None] = mapped_column(String(80), index=True)
    schema_root: Mapped[str] = mapped_column(String(80))
    digest: Mapped[str] = mapped_column(String(36), index=True)
    rows: Mapped[int] = mapped_column(BigInteger)
    columns: Mapped[int] = mapped_column(Integer)
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    verdict: Mapped[str] = mapped_column(String(16))
    label: Mapped[str | None] = mapped_column(String(255))
    split: Mapped[str | None] = mapped_column(String(32))
    source_uri: Mapped[str] = mapped_column(Text)
    record_path: Mapped[str] = mapped_column(Text)
    record_digest: Mapped[str] = mapped_column(String(80))
    findings_digest: Mapped[str] = mapped_column(String(80))
    decision_id: Mapped[str] = mapped_column(String(64))
    parents: Mapped[list[Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String(128))
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    destroyed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class DatasetAliasRow(Base):
    """A movable name (``production``) for one version of a dataset."""

    __tablename__ = "dataset_aliases"

    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(Integer)


class WaiverRow(Base):
    """A signed-off exception: this rule's findings on this version are accepted until ``expires_at``."""

    __tablename__ = "waivers"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    dataset_version_id: Mapped[int] = mapped_column(ForeignKey("dataset_versions.id"), index=True)
    rule_id: Mapped[str] = mapped_column(String(16))
    author: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


# --- workloads (compute_guard.ledger.store) -------------------------------------------------------------


class WorkloadRow(Base):
    """One submission. ``state``: pending, admitted, running, finished, evicted, preempted or denied."""

    __tablename__ = "workloads"

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64), index=True)
    user: Mapped[str] = mapped_column(String(128))
    queue: Mapped[str] = mapped_column(String(128), index=True)
    state: Mapped[str] = mapped_column(String(16), index=True)
    requests: Mapped[dict[str, int]] = mapped_column(JSON)
    datasets: Mapped[list[Any]] = mapped_column(JSON)
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    reason: Mapped[str] = mapped_column(Text)
    decision_id: Mapped[str] = mapped_column(String(64))
    ray_job_id: Mapped[str | None] = mapped_column(String(64), index=True)
    priority: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    admitted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease_token: Mapped[str | None] = mapped_column(String(64))


class ReservationRow(Base):
    """What an admitted workload holds of one resource. Its rows go when the workload ends."""

    __tablename__ = "reservations"

    workload_id: Mapped[str] = mapped_column(ForeignKey("workloads.id"), primary_key=True)
    resource: Mapped[str] = mapped_column(String(64), primary_key=True)
    amount: Mapped[int] = mapped_column(BigInteger)


class QueueHoldRow(Base):
    """A queue that admits nothing until the row goes (Kueue's ``stopPolicy: Hold``)."""

    __tablename__ = "queue_holds"

    queue: Mapped[str] = mapped_column(String(128), primary_key=True)
    reason: Mapped[str] = mapped_column(Text)
    held_by: Mapped[str] = mapped_column(String(128))
    held_at: Mapped[datetime] = mapped_column(UtcDateTime)


class MeterRow(Base):
    """Decayed use of one queue: ``value`` at ``at_ms``, growing by ``rate`` a millisecond since then."""

    __tablename__ = "queue_meters"

    queue: Mapped[str] = mapped_column(String(128), primary_key=True)
    meter: Mapped[str] = mapped_column(String(16), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)
    rate: Mapped[int] = mapped_column(BigInteger)
    at_ms: Mapped[int] = mapped_column(BigInteger)


class EvictionRow(Base):
    """A running workload that was told to go: why, for whom, when it is stopped, and what comes then."""

    __tablename__ = "evictions"

    workload_id: Mapped[str] = mapped_column(ForeignKey("workloads.id"), primary_key=True)
    cause: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str] = mapped_column(Text)
    beneficiary: Mapped[str | None] = mapped_column(String(128))
    requeue: Mapped[bool] = mapped_column(Boolean)
    decision_id: Mapped[str] = mapped_column(String(64))
    noticed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    stop_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ChangesRow(Base):
    """How often the ledger was changed: who remembers the number knows whether what it read still holds."""

    __tablename__ = "ledger_changes"

    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)


class LeaseRow(Base):
    """Who does a job that only one process may do at a time, and until when (the admission loop)."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


# --- incidents (compute_guard.incidents.rows, compute_guard.response.actions) -------------------------------


class IncidentRow(Base):
    """One incident per (tenant, job, kind) at a time; a second open one cannot be stored."""

    __tablename__ = "incidents"
    __table_args__ = (
        Index(
            "uq_incidents_open",
            "tenant",
            "job",
            "kind",
            unique=True,
            sqlite_where=text("closed_at IS NULL"),
            postgresql_where=text("closed_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64), index=True)
    job: Mapped[str] = mapped_column(String(128))
    kind: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    severity: Mapped[str] = mapped_column(String(16))
    score: Mapped[float] = mapped_column(Float)
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    evidence: Mapped[dict[str, Any]] = mapped_column(JSON)


class ActionRow(Base):
    """One step of the response ladder, asked for, decided, done, and (when it can be) undone."""

    __tablename__ = "actions"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    incident_id: Mapped[str] = mapped_column(ForeignKey("incidents.id"), index=True)
    level: Mapped[int] = mapped_column(Integer)
    action: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    decision_id: Mapped[str] = mapped_column(String(64))
    requested_at: Mapped[datetime] = mapped_column(UtcDateTime)
    executed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    undone_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    result: Mapped[dict[str, Any]] = mapped_column(JSON)
