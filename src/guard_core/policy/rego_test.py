"""Run a bundle's Rego tests as ``opa test`` does, with line coverage, without an OPA binary.

A rule named ``test_...`` passes when its value is true; ``todo_test_...`` is skipped. Two of ``opa test``'s
ways are errors here instead: one test defined twice, and tests by case (``test_x[case] if``). Tests see
no admin data, as under ``opa test -b``: they bring their own with ``with data.guard.config as ...``, so
that editing a quota breaks no test. tests/policies/test_opa_test_parity.py compares with the real thing.

One defect of regorus shows in tests only (policies may not use ``with``): when a ``with`` value names a rule
of a package that the same expression uses, the expression is undefined. Assign it to a variable first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from guard_core.errors import UserError
from guard_core.policy.bundle import Bundle
from guard_core.policy.embedded import brief
from guard_core.policy.rego_ast import ParseFault, lines, parse


class Outcome(StrEnum):
    """``opa test``'s words."""

    PASS = "PASS"  # noqa: S105  # not a password
    FAIL = "FAIL"
    ERROR = "ERROR"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """One test: where it stands and how it went. ``error`` is set for ERROR only."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    file: str
    line: int
    package: str
    name: str
    outcome: Outcome
    error: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """``{"file", "line", "package", "name", "outcome", "error", "seconds"}``."""
        return {
            "file": self.file,
            "line": self.line,
            "package": self.package,
            "name": self.name,
            "outcome": self.outcome.value,
            "error": self.error,
            "seconds": round(self.seconds, 6),
        }


@dataclass(frozen=True, slots=True)
class Coverage:
    """Lines of one policy file that were evaluated, and lines that were not, both sorted, from 1."""

    covered: tuple[int, ...]
    missed: tuple[int, ...]

    @property
    def percent(self) -> int:
        """Share of covered lines, rounded down, so that 100 means all."""
        total = len(self.covered) + len(self.missed)
        return 100 if total == 0 else 100 * len(self.covered) // total


@dataclass(frozen=True, slots=True)
class TestReport:
    """All tests of a bundle and the coverage of its policy files (tests themselves excluded)."""

    __test__ = False

    results: tuple[TestResult, ...]
    coverage: Mapping[str, Coverage]

    @property
    def ok(self) -> bool:
        """Whether at least one test ran and none failed."""
        return any(r.outcome is Outcome.PASS for r in self.results) and not self.failed

    @property
    def failed(self) -> tuple[TestResult, ...]:
        """Tests that failed or could not be evaluated."""
        return tuple(r for r in self.results if r.outcome in (Outcome.FAIL, Outcome.ERROR))

    @property
    def percent(self) -> int:
        """Covered share of all policy lines."""
        covered = sum(len(c.covered) for c in self.coverage.values())
        missed = sum(len(c.missed) for c in self.coverage.values())
        return Coverage((1,) * covered, (1,) * missed).percent

    def to_json(self) -> dict[str, Any]:
        """``{"ok", "passed", "failed", "coverage_percent", "tests": [...], "files": {...}}``."""
        return {
            "ok": self.ok,
            "passed": sum(r.outcome is Outcome.PASS for r in self.results),
            "failed": len(self.failed),
            "coverage_percent": self.percent,
            "tests": [r.to_json() for r in self.results],
            "files": {
                file: {"percent": c.percent, "missed": list(c.missed)} for file, c in self.coverage.items()
            },
        }


def run_tests(bundle: Bundle, *, match: str = "") -> TestReport:
    """Run every test whose ``package.name`` contains ``match``. Raises UserError when Rego cannot be read."""
    import regorus

    found = _tests(bundle)
    try:
        engine = regorus.Engine()
        engine.set_enable_coverage(True)
        for name, text in {**bundle.modules, **bundle.tests}.items():
            engine.add_policy(name, text)
        engine.set_input_json("{}")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # PanicException is no Exception
        raise UserError(f"policy does not compile: {brief(exc)}") from exc
    results = [_run(engine, test) for test in found if match in f"{test.package}.{test.name}"]
    return TestReport(tuple(results), _coverage(engine, bundle))


class _Test(NamedTuple):
    file: str
    line: int
    package: str
    name: str
    problem: str


def _tests(bundle: Bundle) -> list[_Test]:
    """Every test once, in order."""
    found: dict[tuple[str, str], _Test] = {}
    for file, text in {**bundle.modules, **bundle.tests}.items():
        try:
            module = parse(file, text)
        except ParseFault as fault:
            raise UserError(str(fault)) from fault
        for rule in module.rules:
            if rule.name.startswith(("test_", "todo_test_")):
                key = (module.package, rule.name)
                problem = "" if rule.kind == "complete" else "write one test for each case"
                if key in found:
                    problem = "the test is defined twice; give each its name"
                line = found[key].line if key in found else rule.place[0]
                found[key] = _Test(file, line, module.package, rule.name, problem)
    return list(found.values())


def _run(engine: Any, test: _Test) -> TestResult:
    def result(outcome: Outcome, error: str = "", seconds: float = 0.0) -> TestResult:
        return TestResult(
            file=test.file,
            line=test.line,
            package=test.package,
            name=test.name,
            outcome=outcome,
            error=error,
            seconds=seconds,
        )

    if test.name.startswith("todo_"):
        return result(Outcome.SKIPPED)
    if test.problem:
        return result(Outcome.ERROR, test.problem)
    started = time.perf_counter()
    try:
        rows = json.loads(engine.eval_query_as_json(f"data.{test.package}.{test.name}")).get("result") or []
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # noqa: BLE001  # PanicException is no Exception
        return result(Outcome.ERROR, brief(exc), time.perf_counter() - started)
    seconds = time.perf_counter() - started
    values = [e["value"] for row in rows for e in row.get("expressions", ()) if "value" in e]
    return result(Outcome.PASS if values == [True] and values[0] is True else Outcome.FAIL, "", seconds)


def _coverage(engine: Any, bundle: Bundle) -> dict[str, Coverage]:
    found: dict[str, Coverage] = {}
    for entry in json.loads(engine.get_coverage_report_as_json())["files"]:
        if entry["path"] in bundle.modules:
            covered, missed = set(entry["covered"]), set(entry["not_covered"])
            found[entry["path"]] = Coverage(tuple(sorted(covered)), tuple(sorted(missed - covered)))
    for file in set(bundle.modules) - set(found):
        # regorus reports packages that were asked for only; the others are missed as a whole.
        rules = parse(file, bundle.modules[file]).rules
        found[file] = Coverage((), tuple(sorted({line for rule in rules for line in lines(rule.node)})))
    return dict(sorted(found.items()))
