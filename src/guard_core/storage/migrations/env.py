"""Alembic's environment: runs migrations on the connection that Storage hands over."""

from alembic import context

from guard_core.storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    compare_type=True,
    render_as_batch=True,
)
# The transaction belongs to Storage.upgrade: a migration that fails leaves the old schema untouched.
context.run_migrations()
