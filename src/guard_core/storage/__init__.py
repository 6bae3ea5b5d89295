"""State that several processes change: SQLAlchemy models, their migrations, and :class:`Storage`.

SQLite (write-ahead log) in the home directory by default; a PostgreSQL URL for several machines.
Importing this package is cheap: SQLAlchemy is loaded at the first session.
"""

from guard_core.storage.database import Storage

__all__ = ["Storage"]
