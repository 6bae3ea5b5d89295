"""The default engine: Rego evaluated in this process by regorus (gordon-to-regorus 0.13.0).

regorus is bound to the thread that made it: using *or dropping* one elsewhere raises PanicException. So
every thread has its own, rebuilt when the bundle changes. Faults come as RuntimeError or as
PanicException, which is a BaseException; both are answers with ``error``, never a crash and never a yes.
The interpreter cannot be cancelled and holds the GIL while it evaluates (tens of microseconds to
milliseconds): for policies by people you do not trust, use the server engine.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from guard_core.errors import UserError
from guard_core.policy.bundle import Bundle
from guard_core.policy.decision import Answer
from guard_core.policy.question import Unaskable, input_json, rule_path
from guard_core.policy.thread_engine import ThreadEngine

_UNDEFINED = '"<undefined>"'


def brief(exc: BaseException) -> str:
    """The first useful line of a regorus error, with file:line:column, without its Rust stack."""
    text = str(exc).partition("Stack backtrace")[0]
    place = ""
    message = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("-->"):
            place = stripped[3:].strip()
        elif stripped.startswith("error:"):
            message = stripped[6:].strip()
    if not message:
        message = " ".join(text.split()) or type(exc).__name__
    return f"{place}: {message}" if place else message


def compile_engine(bundle: Bundle) -> ThreadEngine:
    """A regorus engine holding ``bundle``, for the calling thread only. Raises UserError with its place."""
    engine = ThreadEngine(bundle.modules)
    with compiling():
        engine.add_data_json(bundle.data_json)
        engine.eval_query_as_json("1 == 1")  # regorus analyses rules at the first query: faults show here
    return engine


@contextmanager
def compiling() -> Iterator[None]:
    """Turn what regorus says of a policy that does not compile into a UserError with its place."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as exc:  # PanicException is no Exception
        raise UserError(f"policy does not compile: {brief(exc)}") from exc


def _value(engine: ThreadEngine, query: str) -> tuple[bool, Any]:
    """(defined, value) of a rule, or of any other reference into ``data``.

    Asking for a rule is a quarter faster than a query, but it knows rules only, and says "<undefined>" for
    undefined: then the query tells.
    """
    try:
        text = engine.eval_rule_as_json(query)
    except RuntimeError as exc:
        if "not a valid rule path" not in str(exc):
            raise
        text = _UNDEFINED
    if text != _UNDEFINED:
        return True, json.loads(text)
    rows = json.loads(engine.eval_query_as_json(query)).get("result") or []
    values = [e["value"] for row in rows for e in row.get("expressions") or [] if "value" in e]
    return (True, values[0]) if len(values) == 1 else (False, None)


class EmbeddedEngine:
    """Answers from one bundle at a time; :meth:`activate` swaps it for all threads at once."""

    def __init__(self, bundle: Bundle) -> None:
        self.name = f"embedded/regorus-{version('gordon-to-regorus')}"
        self._local = threading.local()
        self._bundle = bundle
        self.activate(bundle)

    @property
    def revision(self) -> str:
        """Revision of the bundle in force."""
        return self._bundle.revision

    @property
    def bundle(self) -> Bundle:
        """The bundle in force."""
        return self._bundle

    def sole_bundle(self) -> Bundle | None:
        """The bundle that alone decides every question now; None where more than it counts."""
        return self._bundle

    def activate(self, bundle: Bundle) -> None:
        """Put ``bundle`` in force after compiling and asking it once; on any failure the old one stays.

        Raises UserError naming file and line.
        """
        self._local.engine = compile_engine(bundle)
        self._local.bundle = bundle
        self._bundle = bundle

    def evaluate(self, path: str, input: Mapping[str, Any]) -> Answer:  # noqa: A002  # the protocol's name
        """Value of the rule at ``path``. Any fault, a panic included, is an Answer with ``error``."""
        return self._answer(self._bundle, path, input)

    def _answer(self, bundle: Bundle, path: str, input: Mapping[str, Any]) -> Answer:  # noqa: A002
        started = time.perf_counter_ns()
        engine: Any = None
        try:
            query = "data." + ".".join(rule_path(path))
            text = input_json(input)
            engine = self._engine(bundle)
            engine.set_input_json(text)
            defined, value = _value(engine, query)
        except (KeyboardInterrupt, SystemExit):
            raise
        except Unaskable as exc:
            return Answer(error=f"policy {path} cannot be asked: {exc}", revision=bundle.revision)
        except BaseException as exc:  # noqa: BLE001  # PanicException is no Exception
            if engine is not None:
                self._forget(engine)  # a panic may leave the interpreter half way: start afresh
            return Answer(
                error=f"policy {path} failed: {brief(exc)}",
                eval_ns=time.perf_counter_ns() - started,
                revision=bundle.revision,
            )
        elapsed = time.perf_counter_ns() - started
        return Answer(value=value, defined=defined, eval_ns=elapsed, revision=bundle.revision)

    def _forget(self, engine: Any) -> None:
        engine.start_afresh()

    def _engine(self, bundle: Bundle) -> Any:
        local = self._local
        if getattr(local, "engine", None) is None or local.bundle is not bundle:
            engine = ThreadEngine(bundle.modules)  # it compiled when it was activated
            engine.add_data_json(bundle.data_json)
            local.engine, local.bundle = engine, bundle
        return local.engine

    def health(self) -> Sequence[str]:
        """Empty: a bundle that could not answer was never activated."""
        return ()

    def __reduce__(self) -> tuple[Any, ...]:
        bundle = self._bundle
        return (_rebuild, (dict(bundle.modules), dict(bundle.tests), dict(bundle.config), bundle.source))


def _rebuild(
    modules: dict[str, str], tests: dict[str, str], config: dict[str, Any], source: str
) -> EmbeddedEngine:
    from guard_core.policy.bundle import make_bundle

    return EmbeddedEngine(make_bundle(modules, config, tests=tests, source=source))
