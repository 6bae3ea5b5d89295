"""The store: a change is whole or not there, and nothing old, touched or removed gets by."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from guard_core.attestation import Signer
from guard_core.errors import Tampered, Undecidable
from guard_core.policy.bundle import Bundle, make_bundle
from guard_core.policy.lifecycle.bundle_archive import write_archive
from guard_core.policy.lifecycle.bundle_signature import BundleKey
from guard_core.policy.lifecycle.state import Held, Person, Stage, State
from guard_core.policy.lifecycle.store import STATE_FILE, PolicyStore


def numbered(n: int) -> Bundle:
    rego = f'package guard.t\n\ndecision := {{"allow": true, "n": {n}}}\n'
    return make_bundle({"guard/t/t.rego": rego}, {"tenants": {}})


def store_in(folder: Path) -> PolicyStore:
    signer = Signer.open(folder / "keys")
    return PolicyStore(folder / "policy", keys=folder / "keys" / "policy", signer=lambda: signer)


@pytest.fixture
def store(tmp_path: Path, keys: Path) -> PolicyStore:
    shutil.copytree(keys, tmp_path / "keys" / "policy")  # one RSA key for all tests: it takes a moment
    return store_in(tmp_path)


def put(store: PolicyStore, n: int) -> State:
    with store.changing(lambda: numbered(0)) as draft:
        held = draft.sign(numbered(n))
        return draft.put_in_force(replace(draft.state, active=held))


def known(store: PolicyStore) -> State:
    state = store.state()
    assert state is not None
    return state


def test_a_home_without_a_store_has_no_state_and_no_stamp(store: PolicyStore) -> None:
    assert store.state() is None
    assert store.stamp() is None


def test_the_first_change_keeps_what_was_there_as_bundle_one(store: PolicyStore) -> None:
    state = put(store, 1)
    assert (state.active.sequence, state.generation) == (2, 1)
    assert [h.sequence for h in state.former] == [1]
    assert store.open(state.former[0]).revision == numbered(0).revision
    assert store.open(state.active).revision == numbered(1).revision


def test_every_replacement_has_another_stamp_even_within_one_tick(store: PolicyStore) -> None:
    stamps = set()
    for n in range(1, 40):
        put(store, n % 2)
        stamps.add(store.stamp())
    assert len(stamps) == 39


def test_a_state_edited_by_hand_is_refused(store: PolicyStore) -> None:
    put(store, 1)
    file = store.directory / STATE_FILE
    envelope = json.loads(file.read_text())
    envelope["payload"] = envelope["payload"][:-8] + "AAAAAAA="
    file.write_text(json.dumps(envelope))
    with pytest.raises(Tampered, match=r"state\.json was changed"):
        store.state()


def test_an_older_state_put_back_is_refused(store: PolicyStore) -> None:
    put(store, 1)
    old = (store.directory / STATE_FILE).read_bytes()
    put(store, 2)
    (store.directory / STATE_FILE).write_bytes(old)
    with pytest.raises(Tampered, match="is state 1, but state 2 was in force: an older one was put back"):
        store.state()


def test_a_removed_store_is_refused_not_taken_for_a_new_home(store: PolicyStore) -> None:
    put(store, 1)
    (store.directory / STATE_FILE).unlink()
    with pytest.raises(Tampered, match="was removed, but state 1 was in force"):
        store.state()


def test_a_bundle_swapped_for_another_signed_one_is_refused(store: PolicyStore) -> None:
    first, second = put(store, 1).active, put(store, 2).active
    path = store.path(second)
    path.chmod(0o644)
    path.write_bytes(store.path(first).read_bytes())
    with pytest.raises(Tampered, match="is not the bundle that was put in force"):
        store.open(second)


def test_a_bundle_half_copied_is_refused(store: PolicyStore) -> None:
    held = put(store, 1).active
    store.path(held).chmod(0o644)
    os.truncate(store.path(held), store.path(held).stat().st_size // 2)
    with pytest.raises(Tampered, match="cut short"):
        store.open(held)


@pytest.mark.parametrize("sequence", [1, 2, 3])
def test_an_older_bundle_is_not_taken_though_its_signature_is_good(
    store: PolicyStore, key: BundleKey, tmp_path: Path, sequence: int
) -> None:
    put(store, 1)
    put(store, 2)
    write_archive(tmp_path / "old.tar.gz", numbered(9), sequence=sequence, key=key)
    with (
        pytest.raises(Tampered, match=f"is number {sequence}, but number 3 was accepted before"),
        store.changing(lambda: numbered(0)) as draft,
    ):
        draft.admit(tmp_path / "old.tar.gz")
    assert known(store).generation == 2


def test_a_newer_bundle_from_elsewhere_is_taken(store: PolicyStore, key: BundleKey, tmp_path: Path) -> None:
    put(store, 1)
    write_archive(tmp_path / "new.tar.gz", numbered(9), sequence=10, key=key)
    with store.changing(lambda: numbered(0)) as draft:
        held, bundle = draft.admit(tmp_path / "new.tar.gz")
        draft.put_in_force(replace(draft.state, active=held))
    assert bundle.revision == numbered(9).revision == known(store).active.revision
    assert put(store, 3).active.sequence == 11


def test_a_change_that_fails_changes_nothing(store: PolicyStore) -> None:
    before = put(store, 1)
    with pytest.raises(ZeroDivisionError), store.changing(lambda: numbered(0)) as draft:
        draft.sign(numbered(2))
        raise ZeroDivisionError
    assert known(store) == before


def test_a_store_that_cannot_be_written_is_undecidable(store: PolicyStore, tmp_path: Path) -> None:
    (tmp_path / "policy").write_text("a file where the folder should be")
    with pytest.raises(Undecidable, match="cannot be written"):
        put(store, 1)


def test_a_state_reads_back_as_it_was(store: PolicyStore) -> None:
    person = Person("acme", "ann", "0123")
    held = Held("ab" * 32, 4, "sha256:x")
    stage = Stage("chg-1", held, "enforce", person, 17, ("acme", "beta"), 25)
    state = State(3, 4, held, (held,), stage)
    assert State.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_a_share_of_subjects_is_stable_and_about_as_large_as_asked() -> None:
    stage = Stage("chg-1", Held("", 1, ""), "enforce", Person("a", "b", "c"), 0, ("acme",), 25)
    chosen = [n for n in range(4000) if stage.covers("acme", f"job-{n}")]
    assert chosen == [n for n in range(4000) if stage.covers("acme", f"job-{n}")]
    assert 850 < len(chosen) < 1150
    assert not any(stage.covers("beta", f"job-{n}") for n in range(200))
    other = replace(stage, change="chg-2")
    assert {n for n in chosen if other.covers("acme", f"job-{n}")} != set(chosen)
    wider = replace(stage, percent=60)
    assert all(wider.covers("acme", f"job-{n}") for n in chosen), "a wider share holds the narrower one"


CHANGER = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[2])))
import test_store
store = test_store.store_in(Path(sys.argv[1]))
print("ready", flush=True)
n = 0
while True:
    n += 1
    test_store.put(store, n)
"""


def test_kill_9_at_any_moment_leaves_a_store_that_opens(store: PolicyStore, tmp_path: Path) -> None:
    put(store, 1)
    draw = random.Random(7)
    generations = [known(store).generation]
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", CHANGER, tmp_path, Path(__file__).parent], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(draw.uniform(0.02, 0.25))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        state = known(store)
        assert store.open(state.active).sequence == state.active.sequence
        generations.append(state.generation)
    assert generations == sorted(generations)
    assert generations[-1] > generations[0]
    assert put(store, 5).generation == generations[-1] + 1
