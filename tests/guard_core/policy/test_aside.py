"""A second process answers as this one would; slow, dead or out of date, it changes nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guard_core.audit import verify
from guard_core.errors import Undecidable
from guard_core.findings import Enforcement
from guard_core.home import Home
from guard_core.identity import Principal
from guard_core.policy import asking
from guard_core.policy.aside import WARM, Aside
from guard_core.policy.asking import Asking
from guard_core.policy.bundle import make_bundle
from guard_core.policy.decision import Decision
from guard_core.policy.embedded import EmbeddedEngine

POLICY = {
    "guard/test/x.rego": """package guard.test
decision := {"allow": count(deny) == 0, "deny": deny, "warn": []}
deny contains {"rule": "odd", "msg": sprintf("%v is odd", [input.number])} if input.number % 2 == 1
""",
    "guard/partial/x.rego": 'package guard.partial\ndecision := {"allow": true} if input.number > 1000\n',
}
STRICTER = {"guard/test/x.rego": 'package guard.test\ndecision := {"allow": false}\n'}
DECISION = "guard/test/decision"
MANY = 40


def engine_over(modules: dict[str, str]) -> EmbeddedEngine:
    return EmbeddedEngine(make_bundle(modules, {}))


@pytest.fixture
def ruled(home: Home, clock: Any) -> Iterator[Home]:
    """A home with a small policy, a clock that stands still, and a process that has started."""
    home.policy = engine_over(POLICY)
    home.clock = clock
    for _ in range(1000):
        if home.aside.ready(WARM):
            break
        time.sleep(0.02)
    else:
        raise AssertionError("the process has not started within 20 s")
    yield home
    home.aside.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Whoever asks waits for every answer, so that all of them come from the process; which did."""
    taken: list[int] = []
    take = Aside.take

    def wait(self: Aside, number: int) -> Any:
        for _ in range(1000):
            if (found := take(self, number)) is not None:
                taken.append(number)
                return found
            time.sleep(0.02)
        raise AssertionError("no answer within 20 s")

    monkeypatch.setattr(Aside, "take", wait)
    return taken


def questions(home: Home, count: int = MANY, **more: Any) -> list[tuple[dict[str, Any], Principal, str]]:
    who = home.principal()
    return [({"number": number, "note": "é\u2028", **more}, who, f"job-{number}") for number in range(count)]


def ask(home: Home, count: int = MANY, path: str = DECISION, **more: Any) -> Asking:
    return home.ask_many(path, questions(home, count, **more), enforcement=Enforcement.COOPERATIVE)


def said(decisions: list[Decision]) -> list[tuple[Any, ...]]:
    return [(one.value, one.defined, one.error, one.revision, one.engine, one.path) for one in decisions]


def recorded(home: Home) -> list[dict[str, Any]]:
    """The decisions on record, without what differs from one run to the next."""
    own = ("_hash", "_prev", "_seq", "decision_id", "metrics")
    return [
        {name: value for name, value in record.items() if name not in own}
        for record in home.audit.records(kind="decision")
    ]


def process_of(home: Home) -> int:
    link = home.aside._link
    assert link is not None
    return link._process.pid


@pytest.mark.parametrize("path", [DECISION, "guard/partial/decision"])
def test_the_same_questions_get_the_same_decisions_and_the_same_records_there_and_here(
    ruled: Home, patient: list[int], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = {"password": "hunter2", "token": f"tg_{'a' * 16}_{'b' * 43}"}
    aside = ask(ruled, path=path, **secret).decided()
    assert len(patient) == 7  # parts of six
    monkeypatch.setattr(asking, "MANY", MANY + 1)
    here = ask(ruled, path=path, **secret).decided()
    assert said(aside) == said(here)
    records = recorded(ruled)
    assert records[:MANY] == records[MANY:]
    assert "hunter2" not in str(records)
    assert [one.decision_id for one in aside] == [
        record["decision_id"] for record in ruled.audit.records(kind="decision")
    ][:MANY]
    assert not verify(ruled.audit.directory, verifier=ruled.signer.verifier).problems


def test_a_few_questions_are_not_handed_over(ruled: Home, patient: list[int]) -> None:
    assert len(ask(ruled, 8).decided()) == 8
    assert not patient


@pytest.mark.parametrize("ill", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_killed_or_stopped_holds_nothing_up(ruled: Home, ill: signal.Signals) -> None:
    expected = [number % 2 == 0 for number in range(MANY)]
    os.kill(process_of(ruled), ill)
    for _ in range(3):
        assert [one.allow for one in ask(ruled).decided()] == expected
    assert len(recorded(ruled)) == 3 * MANY


def test_an_answer_of_a_revision_that_is_out_of_force_does_not_count(ruled: Home, patient: list[int]) -> None:
    asked = ask(ruled)
    ruled.policy = engine_over(STRICTER)
    decisions = asked.decided()
    assert not any(one.allow for one in decisions)
    assert {one.revision for one in decisions} == {ruled.policy.revision}


def test_answers_to_other_questions_do_not_count(
    ruled: Home, patient: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ask(ruled)
    others = ruled.aside.take(asked._parts[1].number)
    monkeypatch.setattr(Aside, "take", lambda _self, _number: others)
    assert [one.allow for one in asked.decided()] == [number % 2 == 0 for number in range(MANY)]
    assert [record["subject"] for record in recorded(ruled)] == [f"job-{n}" for n in range(MANY)]


def test_a_policy_that_fails_on_one_question_fails_there_as_it_does_here(ruled: Home) -> None:
    rego = {"guard/test/x.rego": 'package guard.test\ndecision := {"allow": count(input.list) == 0}\n'}
    ruled.policy = engine_over(rego)
    decisions = ask(ruled, list=7).decided()
    assert all(one.undecidable and "x.rego:2" in (one.error or "") for one in decisions)


def test_what_cannot_be_recorded_is_no_decision(ruled: Home) -> None:
    with pytest.raises(Undecidable, match="cannot be put on record"):
        ask(ruled, odd={1, "a"}, bad=object()).decided()
    assert recorded(ruled) == []


def test_questions_that_nobody_waits_for_are_neither_recorded_nor_kept(ruled: Home) -> None:
    ask(ruled).abandon()
    assert [one.allow for one in ask(ruled).decided()][:2] == [True, False]
    link = ruled.aside._link
    assert link is not None
    assert not link._waiting
    assert not link._answers
    assert len(recorded(ruled)) == MANY


def test_the_process_ends_with_the_one_that_asks_however_that_ends(
    home_dir: Path, start_python: Callable[[str], Any]
) -> None:
    asker = start_python(
        """
        import time
        from guard_core.policy.aside import WARM, Aside
        aside = Aside()
        while not aside.ready(WARM):
            time.sleep(0.02)
        print(aside._link._process.pid, flush=True)
        time.sleep(60)
        """
    )
    other = int(asker.stdout.readline())
    asker.kill()
    asker.wait()
    for _ in range(1000):
        state = Path(f"/proc/{other}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.02)
    os.kill(other, signal.SIGKILL)
    raise AssertionError("it went on alone for 20 s")
