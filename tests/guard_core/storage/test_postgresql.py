"""The same storage on a real PostgreSQL server, started for these tests where one is installed."""

from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from guard_core.config import load_settings
from guard_core.errors import Denied, Undecidable
from guard_core.home import Home
from guard_core.storage.database import migrate
from guard_core.storage.tables import Base, DatasetAliasRow, DatasetRow


@pytest.fixture
def pg_home(postgresql, tmp_path):
    with Home.open(load_settings(home=tmp_path / "home", storage_url=postgresql)) as home:
        yield home
        Base.metadata.drop_all(home.storage.engine)
        with home.storage.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE alembic_version")


def test_models_equal_migrations_there_too(pg_home):
    Base.metadata.drop_all(pg_home.storage.engine)
    with pg_home.storage.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM alembic_version")
        migrate(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_opening_again_finds_the_schema_current(pg_home):
    assert pg_home.storage.upgrade() is False


def test_credentials_and_times_and_json_work_there(pg_home, clock):
    token = pg_home.credentials.issue(tenant="acme", user="ann", roles=["x"], ttl_seconds=60)
    assert pg_home.credentials.verify(token).roles == ("x",)
    (listed,) = pg_home.credentials.list()
    assert listed.expires_at.tzinfo is UTC
    pg_home.credentials.revoke(listed.id)
    with pytest.raises(Denied, match="revoked"):
        pg_home.credentials.verify(token)


def test_a_broken_constraint_surfaces_there_too(pg_home):
    for expected in (None, IntegrityError):
        try:
            with pg_home.storage.session() as session:
                session.add(DatasetRow(tenant="acme", name="a", created_at=datetime.now(UTC)))
        except IntegrityError as error:
            assert expected is type(error)
        else:
            assert expected is None


def test_writers_of_several_processes_queue_and_no_update_is_lost(pg_home, postgresql, start_python):
    with pg_home.storage.session() as session:
        session.add(DatasetRow(tenant="acme", name="counter-0", created_at=datetime.now(UTC)))
    script = f"""
        from sqlalchemy import select, text
        from guard_core.storage import Storage
        from guard_core.storage.tables import DatasetRow
        storage = Storage({postgresql!r})
        for _ in range(10):
            with storage.session() as session:
                row = session.scalars(select(DatasetRow)).one()
                row.name = f"counter-{{int(row.name.split('-')[1]) + 1}}"
    """
    processes = [start_python(script) for _ in range(3)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    with pg_home.storage.reading() as session:
        assert session.scalars(select(DatasetRow.name)).all() == ["counter-30"]


def test_a_foreign_key_is_enforced_and_surfaces_there_too(pg_home):
    with pytest.raises(IntegrityError), pg_home.storage.session() as session:
        session.add(DatasetAliasRow(dataset_id=999, alias="production", version=1))


def test_a_server_that_ends_the_connection_is_undecidable(pg_home):
    with pytest.raises(Undecidable, match="cannot be used"), pg_home.storage.session() as session:
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


def test_a_decision_is_recorded_and_found_there(pg_home):
    from guard_core.findings import Enforcement

    principal = pg_home.principal()
    decision = pg_home.decide(
        "guard/dataset/use/decision", {}, principal=principal, enforcement=Enforcement.COOPERATIVE
    )
    assert pg_home.decision_record(decision.decision_id)["decision_id"] == decision.decision_id
