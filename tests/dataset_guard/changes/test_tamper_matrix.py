"""The tamper matrix on a small table: all found and located, no false alarm. Larger: benchmarks/tamper.py."""

import shutil

import pytest
import tamper_matrix as matrix

import dataset_guard
from guard_core.errors import UserError
from guard_core.testing import temporary_home

ROWS = 600


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A home in which the table is registered once in each format."""
    root = tmp_path_factory.mktemp("matrix")
    table = matrix.original(ROWS)
    with temporary_home() as home:
        places = {}
        for form in matrix.FORMATS:
            places[form] = matrix.write(table, form, root / form)
            dataset_guard.register(places[form], name=form, tenant="acme", home=home, checks=["schema"])
        yield home, table, places


def verified(home, form, path):
    return dataset_guard.verify(f"{form}@1", path=path, tenant="acme", home=home)


def test_the_matrix_is_as_large_as_it_says():
    names = [change.name for change in matrix.CHANGES]
    assert len(set(names)) == len(names)
    assert len(names) + len(matrix.SPOILED) >= 60
    assert len({name for _, name, _ in matrix.REENCODINGS}) == len(matrix.REENCODINGS) >= 40


@pytest.mark.parametrize("form", matrix.FORMATS)
def test_every_change_of_content_is_found_and_located(world, tmp_path, form):
    home, table, _ = world
    missed, lost = [], []
    for number, change in enumerate(matrix.CHANGES):
        if form not in change.formats:
            continue
        changed, expected = change.apply(table)
        found = verified(home, form, matrix.write(changed, form, tmp_path / str(number)))
        if found.ok:
            missed.append(change.name)
        elif not expected.located(found):
            lost.append((change.name, [c.to_json() for c in found.changes[:3]], found.problems[:2]))
    assert missed == []
    assert lost == []


# pyarrow cannot tell its own handler about a bad CSV row that is no UTF-8, and says so on the side.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("form", matrix.FORMATS)
def test_every_spoiled_file_is_found_and_named(world, tmp_path, form):
    home, _, places = world
    wrong = []
    for number, (name, (spoil, formats)) in enumerate(sorted(matrix.SPOILED.items())):
        if form not in formats:
            continue
        target = tmp_path / str(number) / places[form].name
        target.parent.mkdir()
        (shutil.copytree if places[form].is_dir() else shutil.copy)(places[form], target)
        spoil(target)
        try:
            found = verified(home, form, target)
        except UserError as error:
            wrong.append((name, f"raised {error}"))
            continue
        if found.ok or not matrix.names_a_file(found, places[form]):
            wrong.append((name, found.to_json()))
    assert wrong == []


@pytest.mark.parametrize("form", matrix.FORMATS)
def test_no_rewrite_of_the_same_content_is_an_alarm(world, tmp_path, form):
    home, table, _ = world
    alarms = []
    for number, (of, name, rewrite) in enumerate(matrix.REENCODINGS):
        if of != form:
            continue
        found = verified(home, form, rewrite(table, tmp_path / str(number)))
        if not found.ok:
            alarms.append((name, found.problems[:2]))
    assert alarms == []
