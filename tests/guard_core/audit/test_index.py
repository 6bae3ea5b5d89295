from sqlalchemy import func, select

from guard_core.audit.index import DecisionIndex
from guard_core.findings import Enforcement
from guard_core.storage.tables import DecisionRow


def ask(home, purpose="train"):
    return home.decide(
        "guard/dataset/use/decision",
        {"purpose": purpose},
        principal=home.principal(),
        enforcement=Enforcement.COOPERATIVE,
        subject="acme/x@1",
    ).decision_id


def test_a_decision_is_found_by_its_id_with_its_whole_input(home):
    first, second = ask(home, "train"), ask(home, "export")
    assert home.decision_record(second)["input"]["purpose"] == "export"
    assert home.decision_record(first)["input"]["purpose"] == "train"
    assert home.decision_record("dec-unknown") is None


def test_events_between_decisions_do_not_disturb_the_index(home):
    first = ask(home)
    home.audit.event("x.y", subject='"kind":"decision"', data={}, enforcement=Enforcement.DETECTIVE)
    assert home.decision_record(first)["decision_id"] == first
    later = ask(home)
    home.audit.event("x.z", subject="", data={}, enforcement=Enforcement.DETECTIVE)
    assert home.decision_record(later)["_seq"] == 2


def test_bringing_the_index_up_to_date_twice_adds_nothing(home):
    for _ in range(3):
        ask(home)
    index = DecisionIndex(home.storage, home.audit)
    assert (index.refresh(), index.refresh()) == (3, 0)
    with home.storage.reading() as session:
        row = session.scalars(select(DecisionRow)).first()
        assert session.scalar(select(func.count()).select_from(DecisionRow)) == 3
    assert (row.path, row.tenant, row.subject, row.allow) == (
        "guard/dataset/use/decision",
        "local",
        "acme/x@1",
        False,
    )


def test_a_long_log_is_indexed_in_several_transactions(home, monkeypatch):
    monkeypatch.setattr("guard_core.audit.index.BATCH", 2)
    ids = [ask(home) for _ in range(5)]
    assert DecisionIndex(home.storage, home.audit).refresh() == 5
    assert [home.decision_record(i)["_seq"] for i in ids] == [0, 1, 2, 3, 4]


def test_after_a_restart_of_the_log_the_index_is_made_anew(home):
    old = ask(home)
    assert home.decision_record(old)
    home.audit.restart(reason="test", by="test")
    assert home.decision_record(old) is None
    new = ask(home)
    assert home.decision_record(new)["_seq"] == 1
