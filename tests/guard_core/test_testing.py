from datetime import UTC, datetime

import pytest

from guard_core.errors import UserError
from guard_core.findings import Enforcement
from guard_core.policy.decision import PolicyEngine
from guard_core.testing import FrozenClock, RecordingEngine, captured_audit, engine_of, temporary_home

REGO = {
    "guard/t/t.rego": """package guard.t
import rego.v1
decision := {"allow": input.n == data.guard.config.wanted}
"""
}


def test_a_frozen_clock_moves_only_when_told_and_only_forwards():
    clock = FrozenClock(datetime(2026, 5, 1, tzinfo=UTC))
    assert clock() == clock() == datetime(2026, 5, 1, tzinfo=UTC)
    assert clock.advance(seconds=90) == datetime(2026, 5, 1, 0, 1, 30, tzinfo=UTC)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(seconds=-1)
    with pytest.raises(ValueError, match="aware"):
        FrozenClock(datetime(2026, 5, 1))  # noqa: DTZ001


def test_a_recording_engine_answers_as_the_real_one_and_remembers_each_question():
    engine = engine_of(REGO, {"wanted": 3})
    assert isinstance(engine, PolicyEngine)
    assert engine.evaluate("guard/t/decision", {"n": 3}).value == {"allow": True}
    assert engine.evaluate("guard/t/decision", {"n": 4}).value == {"allow": False}
    assert engine.asked("guard/t/decision") == [{"n": 3}, {"n": 4}]
    assert engine.asked("guard/u/decision") == []
    assert isinstance(engine, RecordingEngine)
    assert engine.name == engine.engine.name
    assert engine.revision == engine.engine.revision


def test_rego_that_does_not_compile_is_refused():
    with pytest.raises(UserError):
        engine_of({"guard/t/t.rego": "package guard.t\nthis is not rego"})


def test_captured_audit_holds_only_what_happened_inside_its_block():
    with temporary_home() as home:
        home.audit.event("a.before", subject="", data={}, enforcement=Enforcement.DETECTIVE)
        with captured_audit(home) as captured:
            home.audit.event("a.inside", subject="", data={}, enforcement=Enforcement.DETECTIVE)
        home.audit.event("a.after", subject="", data={}, enforcement=Enforcement.DETECTIVE)
    assert captured.kinds == ["a.inside"]
