"""A database that is ready to use: opened, migrated, with transactions that mean it.

SQLite rules: write-ahead log, ``synchronous=FULL`` (a committed transaction survives power loss),
foreign keys on, and ``BEGIN IMMEDIATE`` for every writing transaction, so that two writers queue on
``busy_timeout`` instead of failing half way with "database is locked"
(https://docs.sqlalchemy.org/en/21/dialects/sqlite.html, "Transaction control"). PostgreSQL gets the same
meaning from an advisory lock that every writing transaction takes first: what was read is still so at
commit, and nobody has to retry. Reading transactions see one snapshot and wait for nobody on either.

Storage trouble is :class:`~guard_core.errors.Undecidable` (callers fail closed). IntegrityError surfaces.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from guard_core.errors import MissingExtra, Undecidable, UserError
from guard_core.files import locked

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session

SCHEMA_VERSION = "0003"
"""The Alembic revision this code needs (tests hold it equal to the newest migration)."""

BUSY_TIMEOUT_MS = 30_000
WRITERS_LOCK = int.from_bytes(b"trngrd", "big")
"""Key of the advisory lock that writers on PostgreSQL queue for."""

# SQLSTATE classes that are trouble of the server, not of the statement
# (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_SERVER_TROUBLE = ("08", "25006", "40", "53", "55", "57", "58", "XX")


class Storage:
    """One database. Thread-safe; safe after ``fork``; cheap to construct (nothing is opened yet)."""

    def __init__(self, url: str, *, lock_path: Path | None = None) -> None:
        self.url = _normal_url(url)
        self._lock_path = lock_path
        self._engine: Engine | None = None
        self._reader: tuple[Engine, Engine] | None = None
        """The engine, and the same for transactions that only read."""
        self._pid = os.getpid()
        self._guard = Lock()

    @classmethod
    def in_home(cls, home: Path, url: str | None = None) -> Storage:
        """The storage of a home directory: ``url``, else ``<home>/trainguard.db``."""
        lock = home / ".upgrade.lock"
        return cls(url or f"sqlite:///{home / 'trainguard.db'}", lock_path=lock)

    @property
    def is_sqlite(self) -> bool:
        """Whether this is a SQLite file."""
        return self.url.startswith("sqlite")

    @property
    def sqlite_path(self) -> Path:
        """The database file. Only meaningful when :attr:`is_sqlite`."""
        return Path(self.url.split(":///", 1)[1])

    @property
    def safe_url(self) -> str:
        """The URL for people: without a password."""
        if self.is_sqlite:
            return str(self.sqlite_path)
        from sqlalchemy import make_url

        return make_url(self.url).render_as_string(hide_password=True)

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine, made at first use (this imports SQLAlchemy)."""
        with self._guard:
            if self._engine is not None and self._pid != os.getpid():
                # A forked child must not speak on its parent's connections.
                self._engine.dispose(close=False)
                self._engine = None
            if self._engine is None:
                self._engine = self._connect()
                self._pid = os.getpid()
            return self._engine

    def _connect(self) -> Engine:
        from sqlalchemy import create_engine, event

        if not self.is_sqlite:
            try:
                import pg8000  # type: ignore[import-untyped]  # noqa: F401
            except ImportError:
                raise MissingExtra.of("pg8000", "postgres") from None
            engine = create_engine(self.url, isolation_level="READ COMMITTED", pool_pre_ping=True)

            @event.listens_for(engine, "begin")
            def _queue(connection: Connection) -> None:
                if not connection.get_execution_options().get("trainguard_reading", False):
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {BUSY_TIMEOUT_MS}")
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})")

            return engine
        engine = create_engine(self.url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})

        @event.listens_for(engine, "connect")
        def _pragmas(dbapi_connection: Any, _record: Any) -> None:
            dbapi_connection.isolation_level = None  # we say BEGIN ourselves, below
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                dbapi_connection.execute(f"PRAGMA {pragma}").close()

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            reading = connection.get_execution_options().get("trainguard_reading", False)
            connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

        return engine

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A writing transaction: commits on a normal exit, rolls back on any exception.

        Raises Undecidable when the storage cannot be reached or written; IntegrityError surfaces.
        """
        from sqlalchemy.orm import Session

        with self._trouble(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads: one consistent snapshot, never waits for a writer (SQLite)."""
        from sqlalchemy.orm import Session

        with self._trouble(), Session(self._reading_engine(), expire_on_commit=False) as session:
            yield session  # closing rolls back; an explicit rollback would expire what was read

    def _reading_engine(self) -> Engine:
        engine, made = self.engine, self._reader
        if made is None or made[0] is not engine:
            reader = engine.execution_options(trainguard_reading=True)
            if not self.is_sqlite:
                reader = reader.execution_options(isolation_level="REPEATABLE READ")
            made = self._reader = (engine, reader)
        return made[1]

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        from sqlalchemy import exc

        try:
            yield
        except exc.IntegrityError:
            raise
        except exc.DBAPIError as error:
            state = _sqlstate(error)
            if state.startswith("23"):  # pg8000 knows only the unique constraint (23505) as such
                raise exc.IntegrityError(error.statement, error.params, error.orig or error) from error
            if state.startswith(_SERVER_TROUBLE):
                raise self.undecidable(error.orig or error) from error
            if isinstance(error, exc.ProgrammingError | exc.DataError | exc.NotSupportedError):
                raise  # a bug of ours, not trouble of the storage
            raise self.undecidable(error.orig or error) from error

    def undecidable(self, reason: BaseException) -> Undecidable:
        """The one sentence for storage trouble, with its remedy."""
        said = reason.args[0] if reason.args else ""
        text = str(said.get("M", said) if isinstance(said, dict) else reason).strip()
        text = text.splitlines()[0] if text else type(reason).__name__
        low = text.lower()
        if "full" in low or "disk i/o" in low:
            remedy = "free disk space and try again"
        elif "locked" in low or "lock timeout" in low:
            remedy = (
                f"another process held it for more than {BUSY_TIMEOUT_MS // 1000} s; end it and try again"
            )
        elif "not a database" in low or "malformed" in low:
            remedy = "the file is damaged; restore it from a backup"
        elif "readonly" in low or "unable to open" in low or "permission" in low:
            remedy = "check the owner and permissions of the file and its directory"
        else:
            remedy = "run: trainguard doctor"
        return Undecidable(f"the storage {self.safe_url} cannot be used ({text}); {remedy}")

    def schema_version(self) -> str | None:
        """The revision the database is at, None when it is empty. Uses no SQLAlchemy for SQLite."""
        if self.is_sqlite:
            return self._sqlite_schema_version()
        from sqlalchemy import inspect, text

        with self._trouble(), self.engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()

    def _sqlite_schema_version(self) -> str | None:
        path = self.sqlite_path
        if not path.exists():
            return None
        try:
            with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1000)) as connection:
                found = connection.execute(
                    "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"
                ).fetchone()
                if not found:
                    return None
                row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
                return str(row[0]) if row else None
        except sqlite3.Error as error:
            raise self.undecidable(error) from error

    def upgrade(self) -> bool:
        """Bring the schema to this code's version; True when something was done.

        Guarded by a file lock, so that many first uses at once migrate one time. Raises UserError when
        a newer TrainGuard made the database.
        """
        if self.schema_version() == SCHEMA_VERSION:
            return False
        if self._lock_path is None:
            return self._upgrade_locked()
        with locked(self._lock_path):
            return self._upgrade_locked()

    def _upgrade_locked(self) -> bool:
        current = self.schema_version()
        if current == SCHEMA_VERSION:
            return False  # another process was first
        if current is not None and current > SCHEMA_VERSION:
            raise UserError(
                f"the storage {self.safe_url} has schema {current}, newer than this TrainGuard knows "
                f"({SCHEMA_VERSION}); upgrade trainguard"
            )
        with self._trouble(), self.engine.begin() as connection:
            if current is None:
                _create(connection)
            else:
                migrate(connection)
        if self.is_sqlite:
            self.sqlite_path.chmod(0o600)
        return True

    def close(self) -> None:
        """Give all connections back. The storage may be used again."""
        with self._guard:
            if self._engine is not None and self._pid == os.getpid():
                self._engine.dispose()
            self._engine = None


def _create(connection: Connection) -> None:
    """All tables, as migrations from nothing make them (a test compares), without loading Alembic."""
    from sqlalchemy import Column, MetaData, String, Table

    from guard_core.storage.tables import Base

    Base.metadata.create_all(connection, checkfirst=False)
    revision = Column("version_num", String(32), primary_key=True)  # alembic.runtime.migration
    at = Table("alembic_version", MetaData(naming_convention={"pk": "%(table_name)s_pkc"}), revision)
    at.create(connection)
    connection.execute(at.insert().values(version_num=SCHEMA_VERSION))


def migrate(connection: Connection, to: str = "head") -> None:
    """Run the migrations that the database has not seen, up to revision ``to``."""
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _sqlstate(error: Any) -> str:
    """The server's five-character code, as pg8000 carries it; empty for other databases."""
    said = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return str(said.get("C", "")) if isinstance(said, dict) else ""


def alembic_config() -> Any:
    """Alembic's configuration for the packaged migrations (no alembic.ini)."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "guard_core.storage:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _normal_url(url: str) -> str:
    for prefix in ("postgresql://", "postgres://"):
        if url.startswith(prefix):
            return "postgresql+pg8000://" + url.removeprefix(prefix)
    if url.startswith(("sqlite:///", "postgresql+pg8000://")):
        return url
    scheme = url.split(":", 1)[0]
    raise UserError(
        f"storage_url names the database {scheme!r}; use sqlite:///FILE or postgresql://USER@HOST/DATABASE"
    )
