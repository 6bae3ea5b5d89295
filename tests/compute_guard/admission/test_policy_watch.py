"""A running guard notices every edit of its policy folder."""

from __future__ import annotations

import pytest

from compute_guard.admission.policy_watch import PolicyWatch


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "quotas.yaml").write_text("queues: {}\n")
    return tmp_path


def edited_in_place(folder):
    (folder / "data" / "quotas.yaml").write_text("queues: {a: 1}\n")


def replaced(folder):
    (folder / "new").write_text("queues: {b: 2}\n")
    (folder / "new").replace(folder / "data" / "quotas.yaml")


def added(folder):
    (folder / "guard").mkdir()
    (folder / "guard" / "more.rego").touch()


def removed(folder):
    (folder / "data" / "quotas.yaml").unlink()


@pytest.mark.parametrize("change", [edited_in_place, replaced, added, removed])
def test_a_change_is_seen_until_it_is_accepted(folder, change):
    watch = PolicyWatch(folder)
    assert not watch.differs()
    change(folder)
    assert watch.differs() and watch.differs()
    watch.accept()
    assert not watch.differs()


def test_a_file_that_came_and_went_is_no_change(folder):
    watch = PolicyWatch(folder)
    (folder / "data" / ".swap").touch()
    (folder / "data" / ".swap").unlink()
    assert not watch.differs()


def test_a_folder_that_is_gone_differs(tmp_path):
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "a.rego").touch()
    watch = PolicyWatch(folder)
    (folder / "a.rego").unlink()
    folder.rmdir()
    assert watch.differs()


def test_a_busy_service_need_not_look_each_time(folder):
    watch = PolicyWatch(folder)
    watch.every_seconds = 3600
    assert not watch.differs()
    edited_in_place(folder)
    assert not watch.differs()
    watch.every_seconds = 0
    assert watch.differs()
    watch.every_seconds = 3600
    assert watch.differs()  # what was not accepted is not forgotten meanwhile
