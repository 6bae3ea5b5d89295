"""Meters of use by queue, evictions with grace, and the ledger's counter of changes."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Forwards."""
    op.create_table(
        "queue_meters",
        sa.Column("queue", sa.String(128), primary_key=True),
        sa.Column("meter", sa.String(16), primary_key=True),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("rate", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "evictions",
        sa.Column("workload_id", sa.String(128), sa.ForeignKey("workloads.id"), primary_key=True),
        sa.Column("cause", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("beneficiary", sa.String(128), nullable=True),
        sa.Column("requeue", sa.Boolean(), nullable=False),
        sa.Column("decision_id", sa.String(64), nullable=False),
        sa.Column("noticed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stop_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "ledger_changes",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
    )
