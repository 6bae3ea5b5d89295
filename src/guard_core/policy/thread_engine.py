"""A regorus engine that dies in the thread that made it.

regorus may neither be used nor freed elsewhere. Python frees things wherever its collector happens to run,
so an engine left over in a home that is no longer used would complain on stderr of some other thread, and
leak. Here it waits in a list of its own thread, which that thread empties when it makes its next engine, or
ends.
"""

from __future__ import annotations

import threading
from typing import Any

_here = threading.local()


def _left_over() -> list[Any]:
    found: list[Any] | None = getattr(_here, "engines", None)
    if found is None:
        found = _here.engines = []
    return found


class ThreadEngine:
    """The part of ``regorus.Engine`` that policies need. Faults are RuntimeError or a PanicException."""

    __slots__ = ("_engine", "_home")

    def __init__(self) -> None:
        import regorus

        self._home = _left_over()
        self._home.clear()
        self._engine = regorus.Engine()

    def add_policy(self, name: str, text: str) -> None:
        """Parse one module."""
        self._engine.add_policy(name, text)

    def add_data_json(self, text: str) -> None:
        """Merge a JSON document into ``data``."""
        self._engine.add_data_json(text)

    def set_input_json(self, text: str) -> None:
        """Replace ``input``."""
        self._engine.set_input_json(text)

    def eval_rule_as_json(self, path: str) -> str:
        """Value of a rule as JSON text; ``"<undefined>"`` when it has none."""
        found: str = self._engine.eval_rule_as_json(path)
        return found

    def eval_query_as_json(self, query: str) -> str:
        """OPA's result set of a query as JSON text."""
        found: str = self._engine.eval_query_as_json(query)
        return found

    def __del__(self, here: threading.local = _here) -> None:  # bound early: globals may be gone at exit
        engine = getattr(self, "_engine", None)
        if engine is not None and getattr(here, "engines", None) is not self._home:
            self._home.append(engine)
