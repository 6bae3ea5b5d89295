"""Samples: example questions beside a policy with the answer they must get. Documentation that is executed.

``guard/<area>/<decision>/samples/*.yaml`` holds ``title``, ``input`` and ``expect``. That says ``allow`` and,
where they matter, ``verdict`` and the rule names in ``deny``, ``hold`` and ``warn`` (one for every reason).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guard_core.policy.bundle import Bundle
from guard_core.policy.data_yaml import read_document
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.question import MAX_INPUT_INTEGER

_SETS = ("deny", "hold", "warn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One example: the rule it asks and what it must get."""

    file: Path
    path: str
    title: str
    question: Mapping[str, Any]
    expect: Mapping[str, Any]

    @property
    def name(self) -> str:
        """``dataset/use/deny_foreign``."""
        return f"{self.path.removeprefix('guard/').removesuffix('/decision')}/{self.file.stem}"


@dataclass(frozen=True, slots=True)
class SampleResult:
    """A sample and, when it did not get what it expects, what it got; empty when it did."""

    sample: Sample
    problem: str

    def to_json(self) -> dict[str, Any]:
        """``{"name", "title", "problem"}``."""
        return {"name": self.sample.name, "title": self.sample.title, "problem": self.problem}


def read_samples(directory: Path) -> tuple[Sample, ...]:
    """All samples of a policy directory. Raises UserError naming file, line and field."""
    found: list[Sample] = []
    for file in sorted(directory.glob("guard/**/samples/*.yaml")):
        document = read_document(file, max_integer=MAX_INPUT_INTEGER)
        value = document.value
        for key, kind in (("title", str), ("input", dict), ("expect", dict)):
            if not isinstance(value, dict) or not isinstance(value.get(key), kind):
                raise document.error((key,), f"a sample needs {key}: {kind.__name__}")
        if not isinstance(value["expect"].get("allow"), bool):
            raise document.error(("expect", "allow"), "a sample says whether it is allowed: true or false")
        path = file.parent.parent.relative_to(directory).as_posix() + "/decision"
        found.append(
            Sample(
                file=file, path=path, title=value["title"], question=value["input"], expect=value["expect"]
            )
        )
    return tuple(found)


def run_samples(bundle: Bundle, directory: Path) -> tuple[SampleResult, ...]:
    """Ask every sample of ``directory`` under ``bundle``."""
    engine = EmbeddedEngine(bundle)
    return tuple(SampleResult(sample, _problem(engine, sample)) for sample in read_samples(directory))


def _problem(engine: EmbeddedEngine, sample: Sample) -> str:
    answer = engine.evaluate(sample.path, sample.question)
    if answer.error is not None:
        return answer.error
    if not answer.defined or not isinstance(answer.value, dict):
        return f"{sample.path} gave no decision"
    value = answer.value
    # What a sample leaves unsaid about refusals must be empty: a new reason may not go unnoticed.
    keys = {*sample.expect, *({"deny", "hold"} & set(value))}
    got = {key: _said(value, key) for key in keys}
    want = {
        key: sorted(sample.expect.get(key, ())) if key in _SETS else sample.expect.get(key) for key in keys
    }
    return "; ".join(
        f"{key} is {got[key]}, expected {want[key]}" for key in sorted(keys) if got[key] != want[key]
    )


def _said(value: Mapping[str, Any], key: str) -> Any:
    return sorted(reason["rule"] for reason in value.get(key, ())) if key in _SETS else value.get(key)
