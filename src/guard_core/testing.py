"""Helpers for the tests of people who build on TrainGuard. Public, and used by our own tests.

Nothing here pretends: homes are real homes in a temporary folder, :class:`RecordingEngine` asks the real
embedded engine, audit records are read back from a real log. Only time stands still, because a test must.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard_core.clock import Clock, system_clock
from guard_core.config import Settings
from guard_core.policy.decision import Answer, PolicyEngine

if TYPE_CHECKING:
    from guard_core.home import Home


class FrozenClock:
    """A clock for ``Home.open(clock=...)`` that moves only when told to. Aware, UTC."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        if start.tzinfo is None:
            raise ValueError("a clock needs an aware datetime")
        self.now = start

    def __call__(self) -> datetime:
        """The time it stands at."""
        return self.now

    def advance(self, *, seconds: float) -> datetime:
        """Move forwards and return the new time. Raises ValueError for a negative step."""
        if seconds < 0:
            raise ValueError("time does not go backwards")
        self.now += timedelta(seconds=seconds)
        return self.now


@dataclass
class RecordingEngine:
    """A policy engine that remembers each question and passes it to a real one."""

    engine: PolicyEngine
    questions: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The real engine's name."""
        return self.engine.name

    @property
    def revision(self) -> str:
        """The real engine's revision."""
        return self.engine.revision

    def evaluate(self, path: str, input: Mapping[str, Any]) -> Answer:  # noqa: A002 - the protocol's name
        """Remember, then ask."""
        self.questions.append((path, dict(input)))
        return self.engine.evaluate(path, input)

    def health(self) -> Sequence[str]:
        """The real engine's problems."""
        return self.engine.health()

    def asked(self, path: str) -> list[dict[str, Any]]:
        """The inputs of all questions to ``path``, in order."""
        return [question for asked, question in self.questions if asked == path]


def engine_of(modules: Mapping[str, str], config: Mapping[str, Any] | None = None) -> RecordingEngine:
    """The real embedded engine over ``modules`` (path -> Rego) and ``config`` (``data.guard.config``).

    Raises UserError for Rego that does not compile.
    """
    from guard_core.policy.bundle import make_bundle
    from guard_core.policy.embedded import EmbeddedEngine

    return RecordingEngine(EmbeddedEngine(make_bundle(modules, config or {})))


@contextmanager
def temporary_home(
    *, clock: Clock = system_clock, policy: PolicyEngine | None = None, settings: Settings | None = None
) -> Iterator[Home]:
    """A real home in a temporary folder, gone afterwards; ``policy`` replaces the configured engine."""
    from guard_core.home import Home

    with tempfile.TemporaryDirectory(prefix="trainguard-") as folder:
        place = Path(folder) / "home"
        chosen = Settings(home=place) if settings is None else settings.model_copy(update={"home": place})
        if chosen.storage_url is None:
            place.mkdir(mode=0o700)
            (place / "trainguard.db").write_bytes(migrated_database())
        with Home.open(chosen, clock=clock) as home:
            if policy is not None:
                home.policy = policy
            yield home


@cache
def migrated_database() -> bytes:
    """An empty database, migrated for real once in this process: a copy saves a third of a second."""
    from guard_core.storage import Storage

    with tempfile.TemporaryDirectory(prefix="trainguard-") as folder:
        storage = Storage.in_home(Path(folder))
        storage.upgrade()
        storage.close()
        return storage.sqlite_path.read_bytes()


@dataclass
class Captured:
    """The audit records made inside :func:`captured_audit`, filled when its block ends."""

    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        """The records' kinds, in order."""
        return [record["kind"] for record in self.records]


@contextmanager
def captured_audit(home: Home) -> Iterator[Captured]:
    """Collect the audit records that the block makes, read back from the log itself."""
    before = sum(1 for _ in home.audit.records())
    captured = Captured()
    try:
        yield captured
    finally:
        captured.records += list(home.audit.records())[before:]
