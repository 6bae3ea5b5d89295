"""When a version was deleted (reversible) and destroyed (not)."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Forwards."""
    op.add_column("dataset_versions", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("dataset_versions", sa.Column("destroyed_at", sa.DateTime(timezone=True), nullable=True))
