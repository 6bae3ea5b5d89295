"""An embedded engine that also says whether an evaluation came by given lines of the policy."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping
from typing import Any

from guard_core.policy.bundle import Bundle
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.thread_engine import ThreadEngine


class _Tracing(ThreadEngine):
    """Counts the lines that the last question executed."""

    __slots__ = ("last",)

    def __init__(self, modules: Mapping[str, str]) -> None:
        super().__init__(modules)
        self.last: Any = None

    def _engine(self, package: str, names: Collection[str]) -> Any:
        engine = super()._engine(package, names)
        engine.eval_query_as_json("1 == 1")  # the first query analyses all rules: not counted
        engine.set_enable_coverage(True)
        return engine

    def _holding(self, package: str) -> Any:
        self.last = super()._holding(package)
        self.last.clear_coverage_data()
        return self.last

    def start_afresh(self) -> None:
        super().start_afresh()
        self.last = None


class TracedEngine(EmbeddedEngine):
    """Answers like any embedded engine, a sixth slower. For the one thread that made it."""

    def __init__(self, bundle: Bundle) -> None:
        self.name = "embedded/traced"
        self._bundle = bundle
        self._local = threading.local()
        self._tracing = _Tracing(bundle.modules)
        self._tracing.add_data_json(bundle.data_json)

    def _engine(self, bundle: Bundle) -> Any:  # noqa: ARG002 - it has but this one
        return self._tracing

    def came_by(self, places: Collection[tuple[str, int]]) -> bool:
        """Whether the last evaluation may have executed any of these (file, line).

        Only a line that the engine reports as *not* executed counts as passed by, and a file of which it
        reports nothing: none of its lines was.
        """
        if self._tracing.last is None:
            return True
        report = json.loads(self._tracing.last.get_coverage_report_as_json())
        idle = {file["path"]: set(file["not_covered"]) for file in report["files"]}
        return any(line not in idle[name] for name, line in places if name in idle)
