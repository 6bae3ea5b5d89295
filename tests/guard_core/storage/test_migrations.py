import sqlite3
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from guard_core.errors import UserError
from guard_core.storage import Storage
from guard_core.storage.database import SCHEMA_VERSION, alembic_config, migrate
from guard_core.storage.tables import Base


@pytest.fixture
def storage(tmp_path):
    storage = Storage.in_home(tmp_path)
    storage.upgrade()
    yield storage
    storage.close()


@pytest.fixture
def migrated(tmp_path):
    """A database that the migrations made, one after the other."""
    (tmp_path / "migrated").mkdir()
    storage = Storage.in_home(tmp_path / "migrated")
    with storage.engine.begin() as connection:
        migrate(connection)
    yield storage
    storage.close()


def shape(storage):
    """Tables, columns, keys and indexes, in an order that does not depend on how they were made."""
    found = {}
    with closing(sqlite3.connect(storage.sqlite_path)) as connection:

        def rows(statement):
            return connection.execute(statement).fetchall()

        for (table,) in rows("SELECT name FROM sqlite_master WHERE type = 'table'"):
            indexes = sorted(
                (name, unique, origin, [column for *_, column in rows(f"PRAGMA index_info('{name}')")])
                for _, name, unique, origin, _ in rows(f"PRAGMA index_list('{table}')")
                if origin != "u"  # numbered by SQLite as they are made; what they hold follows
            )
            unique = sorted(
                [column for *_, column in rows(f"PRAGMA index_info('{name}')")]
                for _, name, _, origin, _ in rows(f"PRAGMA index_list('{table}')")
                if origin == "u"
            )
            columns = sorted(rest for _, *rest in rows(f"PRAGMA table_info('{table}')"))
            keys = sorted(rest for _, _, *rest in rows(f"PRAGMA foreign_key_list('{table}')"))
            found[table] = (columns, keys, indexes, unique)
    return found


def test_a_new_database_is_what_the_migrations_would_have_made_of_nothing(storage, migrated):
    assert shape(storage) == shape(migrated)
    assert storage.schema_version() == migrated.schema_version() == SCHEMA_VERSION


def test_a_database_of_the_first_release_is_brought_forward(tmp_path, storage):
    (tmp_path / "old").mkdir()
    old = Storage.in_home(tmp_path / "old")
    with old.engine.begin() as connection:
        migrate(connection, "0001")
    assert old.schema_version() == "0001"
    assert old.upgrade() is True
    assert shape(old) == shape(storage)
    old.close()


def test_a_new_home_is_made_without_loading_alembic(tmp_path, run_python):
    script = f"""
        import sys
        from pathlib import Path
        from guard_core.storage import Storage
        assert Storage.in_home(Path({str(tmp_path)!r})).upgrade() is True
        print("alembic" in sys.modules)
    """
    assert run_python(script).strip() == "False"


def test_models_equal_migrations(migrated):
    with migrated.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_version_the_code_needs_is_the_newest_migration():
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [SCHEMA_VERSION]


def test_a_second_upgrade_does_nothing(storage):
    assert storage.schema_version() == SCHEMA_VERSION
    assert storage.upgrade() is False


def test_a_current_database_is_recognised_without_loading_alembic_or_sqlalchemy(
    tmp_path, storage, run_python
):
    script = f"""
        import sys
        from pathlib import Path
        from guard_core.storage import Storage
        assert Storage.in_home(Path({str(tmp_path)!r})).upgrade() is False
        print(sorted({{"alembic", "sqlalchemy"}} & set(sys.modules)))
    """
    assert run_python(script).strip() == "[]"


def test_a_database_of_a_newer_trainguard_is_left_alone(tmp_path, storage):
    storage.close()
    with closing(sqlite3.connect(storage.sqlite_path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(
        UserError, match=r"schema 9999, newer than this TrainGuard knows .*; upgrade trainguard"
    ):
        Storage.in_home(tmp_path).upgrade()


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path):
    with closing(sqlite3.connect(tmp_path / "trainguard.db")) as connection:
        connection.execute("CREATE TABLE workloads (in_the_way INTEGER)")
        connection.commit()
    with pytest.raises(Exception, match="workloads already exists"):
        Storage.in_home(tmp_path).upgrade()
    with closing(sqlite3.connect(tmp_path / "trainguard.db")) as connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
    assert tables == ["workloads"]


def test_many_processes_opening_a_new_home_at_once_migrate_it_one_time(tmp_path, start_python):
    script = f"""
        from pathlib import Path
        from guard_core.storage import Storage
        print(Storage.in_home(Path({str(tmp_path)!r})).upgrade())
    """
    told = [process.communicate()[0].strip() for process in [start_python(script) for _ in range(4)]]
    assert sorted(told) == ["False", "False", "False", "True"]
