"""regorus engines of one bundle that die in the thread that made them.

regorus may neither be used nor freed elsewhere. Python frees things wherever its collector happens to run,
so an engine left over in a home that is no longer used would complain on stderr of some other thread, and
leak. Here it waits in a list of its own thread, which that thread empties when it makes its next engine, or
ends. One that outlives its thread can be freed by nobody: it stays, without a complaint.

A rule is asked in an engine that holds only the files it can reach (`reach`), made at the first question
to its package. All engines of a bundle share its data, which regorus does not copy.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Collection, Mapping
from typing import Any

from guard_core.policy.reach import reachable

_here = threading.local()
_WHOLE = ""


class _LeftOver:
    """Engines that wait for their thread to free them, which thread that is, and whether it has ended."""

    __slots__ = ("ended", "engines", "thread")

    def __init__(self) -> None:
        self.engines: list[Any] = []
        self.thread = threading.get_native_id()  # unlike the ident, none that a later thread gets again
        self.ended = False


class _Owner:
    """Lives among a thread's own variables, and so ends with it, in it."""

    def __init__(self) -> None:
        self.left_over = _LeftOver()

    def __del__(self) -> None:
        self.left_over.ended = True
        self.left_over.engines.clear()


def _left_over() -> _LeftOver:
    owner: _Owner | None = getattr(_here, "owner", None)
    if owner is None:
        owner = _here.owner = _Owner()
    return owner.left_over


def _keep(what: object, count: Any = ctypes.pythonapi.Py_IncRef, pointer: Any = ctypes.py_object) -> None:
    """Never free it, not even at the end of the process."""
    count(pointer(what))


class ThreadEngine:
    """The part of ``regorus.Engine`` that policies need. Faults are RuntimeError or a PanicException.

    ``modules`` are Rego texts by file name. Data is added before the first question.
    """

    __slots__ = ("_data", "_engines", "_home", "_input", "_modules")

    def __init__(self, modules: Mapping[str, str]) -> None:
        import regorus

        self._home = _left_over()
        self._home.engines.clear()
        self._modules = modules
        self._data = regorus.Engine()
        self._engines: dict[str, Any] = {}
        self._input = "{}"

    def add_data_json(self, text: str) -> None:
        """Merge a JSON document into ``data``."""
        self._data.add_data_json(text)

    def set_input_json(self, text: str) -> None:
        """Replace ``input``."""
        self._input = text

    def eval_rule_as_json(self, path: str) -> str:
        """Value of a rule (``data.guard.t.decision``) as JSON text; ``"<undefined>"`` when it has none."""
        engine = self._holding(path.removeprefix("data.").rpartition(".")[0])
        engine.set_input_json(self._input)
        found: str = engine.eval_rule_as_json(path)
        return found

    def eval_query_as_json(self, query: str) -> str:
        """OPA's result set of a query as JSON text, asked of all modules together."""
        engine = self._whole()
        engine.set_input_json(self._input)
        found: str = engine.eval_query_as_json(query)
        return found

    def start_afresh(self) -> None:
        """Give up every engine that has evaluated anything; the data, which none of them changed, stays."""
        self._engines.clear()

    def _holding(self, package: str) -> Any:
        engine = self._engines.get(package)
        if engine is None:
            names = reachable(self._modules, package)
            engine = self._engine(package, names) if names else self._whole()
        return engine

    def _whole(self) -> Any:
        return self._engines.get(_WHOLE) or self._engine(_WHOLE, self._modules.keys())

    def _engine(self, package: str, names: Collection[str]) -> Any:
        engine = self._data.clone()
        for name, text in self._modules.items():
            if name in names:
                engine.add_policy(name, text)
        self._engines[package] = engine
        return engine

    def __del__(self, here: Any = threading.get_native_id, keep: Any = _keep) -> None:
        # What it needs is bound early: globals may be gone at exit.
        engines = getattr(self, "_engines", None)
        if engines is None or self._home.thread == here():
            return
        if self._home.ended:
            keep((self._data, engines))
        else:
            self._home.engines.append((self._data, engines))
