"""The words and sizes MLflow wants: profile, schema, tags. Pure, without MLflow.

Limits are MLflow 3.17's (mlflow/utils/validation.py): digest 36, schema 1 MB, run tag value 8000
characters. Profile values longer than about 45 characters push the UI's buttons off the drawer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from dataset_guard.registration.report import Report
from guard_core.findings import Verdict

SHOWN_CHARACTERS = 45
REVISION_CHARACTERS = 24  # its longer key leaves less room on the line
SCHEMA_CHARACTERS = 1_000_000

_TYPES = (
    (re.compile(r"^bool"), "boolean"),
    (re.compile(r"^(u?int8|u?int16|int32)$"), "integer"),
    (re.compile(r"^(int64|uint32)$"), "long"),
    (re.compile(r"^(float16|float32|halffloat|float)$"), "float"),
    (re.compile(r"^(float64|double)$"), "double"),
    (re.compile(r"^(large_)?(string|utf8)(_view)?$"), "string"),
    (re.compile(r"^((large_)?binary(_view)?|fixed_size_binary\[\d+\])$"), "binary"),
    (re.compile(r"^(timestamp|date)"), "datetime"),
)
_LIST = re.compile(r"^(?:large_|fixed_size_)?list(?:\[\d+\])?<(?:[^<>\s:]+: )?(.*)>(?:\[\d+\])?$")


def profile(report: Report) -> dict[str, Any]:
    """What MLflow's dataset drawer shows, as ``key: value`` lines with underscores as spaces."""
    shown = {
        "guard_verdict": report.verdict.value,
        "guard_version": report.ref,
        "guard_findings": report.summary,
        "guard_fingerprint": report.digest,
        "guard_decision_id": report.decision_id,
        "guard_policy_revision": cut(report.policy_revision, REVISION_CHARACTERS),
    }
    return {"num_rows": report.rows, **{k: cut(v) for k, v in shown.items()}}


def colspec(report: Report) -> list[dict[str, Any]]:
    """``mlflow_colspec`` entries of a version's columns."""
    columns = report.profile.get("columns") or {}
    statistics = columns if isinstance(columns, dict) else {c["name"]: c for c in columns}
    return columns_of((name, kind, statistics.get(name, {}).get("nulls")) for name, kind in report.schema)


def columns_of(columns: Iterable[tuple[str, str, int | None]]) -> list[dict[str, Any]]:
    """``mlflow_colspec`` entries of (name, logical type, nulls), as many as MLflow's 1 MB can hold."""
    entries: list[dict[str, Any]] = []
    size = 0
    for name, kind, nulls in columns:
        entry = {**mlflow_type(kind), "name": name, "required": nulls == 0}
        size += len(str(entry)) + 8
        if size > SCHEMA_CHARACTERS:
            break
        entries.append(entry)
    return entries


def mlflow_type(kind: str) -> dict[str, Any]:
    """MLflow's type for a logical (or Arrow) type's text: a scalar, an array of one, or ``any``."""
    inner = _LIST.match(kind)
    if inner:
        return {"type": "array", "items": mlflow_type(inner.group(1))}
    return {"type": next((name for pattern, name in _TYPES if pattern.match(kind)), "any")}


def registration_tags(report: Report) -> dict[str, str]:
    """Run tags of a registration: searchable, unlike anything in a dataset's profile."""
    return {
        "guard.tenant": report.tenant,
        "guard.kind": "registration",
        **input_tags(report, "registration", {}),
        "mlflow.note.content": note(report),
    }


def input_tags(report: Report, context: str, present: dict[str, str]) -> dict[str, str]:
    """Run tags that say which versions a run took in as ``context``.

    ``present`` are the run's tags so far: several inputs of one context are listed with commas, and the
    verdict tag holds the worst of theirs. Tags carry what MLflow's dataset row cannot: it has one row per
    name and digest in an experiment, and keeps the first profile it saw.
    """
    key = f"guard.dataset.{context}"
    refs = [r for r in present.get(key, "").split(", ") if r]
    if report.ref not in refs:
        refs.append(report.ref)
    verdicts = [report.verdict]
    if present.get(f"{key}.verdict"):
        verdicts.append(Verdict(present[f"{key}.verdict"]))
    order = list(Verdict)
    return {
        key: ", ".join(refs),
        f"{key}.verdict": max(verdicts, key=order.index).value,
        f"{key}.fingerprint": _joined(present.get(f"{key}.fingerprint", ""), report.fingerprint),
        f"{key}.decision_id": report.decision_id,
    }


def note(report: Report) -> str:
    """The run page's description, in Markdown; names are code spans, so they cannot become markup."""
    ref, fingerprint = report.ref.replace("`", "'"), report.fingerprint
    return (
        f"**TrainGuard: {report.verdict.value}** for `{ref}`, findings: {report.summary}. "
        "Which rows, why and what to do: Artifacts, `guard/report.html`.\n\n"
        f"- rows: {report.rows:,}, columns: {report.columns:,}\n- fingerprint: `{fingerprint}`\n"
        f"- decision: `{report.decision_id}`\n"
    )


def _joined(present: str, value: str) -> str:
    parts = [p for p in present.split(", ") if p]
    return ", ".join(parts if value in parts else [*parts, value])


def cut(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    """``text`` as the drawer has room for it."""
    return text if len(text) <= characters else text[: characters - 1] + "\N{HORIZONTAL ELLIPSIS}"
