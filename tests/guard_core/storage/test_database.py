import os
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, StatementError

from guard_core.errors import Undecidable, UserError
from guard_core.storage import Storage
from guard_core.storage.tables import DatasetRow, DatasetVersionRow, IncidentRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def storage(home):
    return home.storage


def dataset(name, tenant="acme"):
    return DatasetRow(tenant=tenant, name=name, created_at=NOW)


def names(storage):
    with storage.reading() as session:
        return sorted(session.scalars(select(DatasetRow.name)))


def test_a_transaction_commits_when_its_block_ends(storage):
    with storage.session() as session:
        session.add(dataset("a"))
    assert names(storage) == ["a"]


def test_a_transaction_is_undone_by_any_exception(storage):
    with pytest.raises(RuntimeError), storage.session() as session:
        session.add(dataset("a"))
        session.flush()
        raise RuntimeError
    assert names(storage) == []


def test_a_broken_constraint_surfaces_as_what_it_is(storage):
    with storage.session() as session:
        session.add(dataset("a"))
    with pytest.raises(IntegrityError), storage.session() as session:
        session.add(dataset("a"))


def test_foreign_keys_are_enforced(storage):
    version = DatasetVersionRow(
        dataset_id=999,
        version=1,
        fingerprint="dg1:0",
        set_root=None,
        schema_root="",
        digest="",
        rows=0,
        columns=0,
        bytes=None,
        verdict="allow",
        label=None,
        split=None,
        source_uri="",
        record_path="",
        record_digest="",
        findings_digest="",
        decision_id="",
        parents=[],
        created_at=NOW,
        created_by="",
    )
    with pytest.raises(IntegrityError), storage.session() as session:
        session.add(version)


def test_what_was_read_stays_readable_after_the_transaction(storage):
    with storage.session() as session:
        session.add(dataset("a"))
    with storage.reading() as session:
        row = session.scalars(select(DatasetRow)).one()
    assert row.name == "a"


def test_times_come_back_aware_and_in_utc(storage):
    with storage.session() as session:
        east = datetime(2026, 1, 1, 8, tzinfo=timezone(timedelta(hours=8)))
        session.add(DatasetRow(tenant="acme", name="a", created_at=east))
    with storage.reading() as session:
        found = session.scalars(select(DatasetRow.created_at)).one()
    assert (found, found.tzinfo) == (datetime(2026, 1, 1, tzinfo=UTC), UTC)


def test_a_naive_time_is_refused(storage):
    with pytest.raises(StatementError, match="naive"), storage.session() as session:
        session.add(DatasetRow(tenant="acme", name="a", created_at=datetime(2026, 1, 1)))  # noqa: DTZ001


def test_sqlite_survives_power_loss_by_its_settings(storage):
    with storage.reading() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA synchronous")) == 2  # FULL
        assert session.scalar(text("PRAGMA busy_timeout")) == 30_000


def test_only_one_incident_of_a_kind_is_open_for_a_job(storage):
    def incident(number, closed=None):
        return IncidentRow(
            id=f"inc-{number}",
            tenant="acme",
            job="j",
            kind="usage",
            state="open",
            severity="warning",
            score=1.0,
            opened_at=NOW,
            updated_at=NOW,
            closed_at=closed,
            evidence={},
        )

    with storage.session() as session:
        session.add_all([incident(1, closed=NOW), incident(2, closed=NOW), incident(3)])
    with pytest.raises(IntegrityError), storage.session() as session:
        session.add(incident(4))


def test_writers_of_several_processes_queue_and_no_update_is_lost(home_dir, storage, start_python):
    with storage.session() as session:
        session.add(DatasetRow(tenant="acme", name="counter-0", created_at=NOW))
    script = f"""
        from pathlib import Path
        from sqlalchemy import select
        from guard_core.storage import Storage
        from guard_core.storage.tables import DatasetRow
        storage = Storage.in_home(Path({str(home_dir)!r}))
        for _ in range(25):
            with storage.session() as session:  # read, then write what was read plus one
                row = session.scalars(select(DatasetRow)).one()
                row.name = f"counter-{{int(row.name.split('-')[1]) + 1}}"
    """
    processes = [start_python(script) for _ in range(4)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert names(storage) == ["counter-100"]


def test_a_reader_is_not_held_up_by_a_writer(storage):
    with storage.session() as writing:
        writing.add(dataset("a"))
        writing.flush()
        assert names(storage) == []
    assert names(storage) == ["a"]


def test_a_forked_child_has_connections_of_its_own(storage):
    with storage.session() as session:
        session.add(dataset("parent"))
    child = os.fork()
    if child == 0:
        try:
            with storage.session() as session:
                session.add(dataset("child"))
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert names(storage) == ["child", "parent"]


def test_a_full_disk_is_undecidable_and_undoes_the_transaction(home_dir, storage, run_python):
    said = run_python(
        f"""
        import resource, signal
        from datetime import UTC, datetime
        from pathlib import Path
        from guard_core.errors import Undecidable
        from guard_core.storage import Storage
        from guard_core.storage.tables import DatasetRow
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        storage = Storage.in_home(Path({str(home_dir)!r}))
        size = storage.sqlite_path.stat().st_size
        with storage.reading():
            pass
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # the kernel refuses to let files grow
        try:
            with storage.session() as session:
                for number in range(5000):
                    session.add(DatasetRow(tenant="acme", name=f"{{number}}", created_at=datetime.now(UTC)))
        except Undecidable as error:
            print(error)
        """
    )
    assert "cannot be used (" in said
    assert "; free disk space and try again" in said
    assert names(storage) == []


def test_a_file_that_is_no_database_is_one_clear_sentence(tmp_path):
    (tmp_path / "trainguard.db").write_text(
        "this is a text, and long enough to be taken for a database; " * 20
    )
    with pytest.raises(Undecidable, match="is damaged; restore it from a backup"):
        Storage.in_home(tmp_path).upgrade()


def test_a_folder_that_does_not_exist_is_one_clear_sentence(tmp_path):
    storage = Storage(f"sqlite:///{tmp_path}/nowhere/x.db")
    with pytest.raises(Undecidable, match="check the owner and permissions"), storage.session() as session:
        session.execute(text("SELECT 1"))


@pytest.mark.parametrize("url", ["mysql://root@host/db", "nonsense"])
def test_another_kind_of_database_is_the_users_mistake(url):
    with pytest.raises(UserError, match="use sqlite:///FILE or postgresql://"):
        Storage(url)


def test_a_password_in_the_url_is_not_shown():
    storage = Storage("postgresql://ann:hunter2@db.example/guard")
    assert storage.safe_url == "postgresql+pg8000://ann:***@db.example/guard"


def test_a_postgresql_server_that_is_not_there_is_undecidable():
    storage = Storage("postgresql://ann:hunter2@127.0.0.1:1/guard")
    with pytest.raises(Undecidable, match="cannot be used") as told, storage.session() as session:
        session.execute(text("SELECT 1"))
    assert "hunter2" not in str(told.value)
