"""Which MLflow runs used a dataset version, and marking them when it turns out to be bad.

The search goes by digest, not by name: the same bytes logged under another name are found too. It sees what
was logged to MLflow, so it is `detective`: a run that logged nothing is found in the audit log's
``dataset.read`` events instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataset_guard.integrations.mlflow_data import mlflow_module
from guard_core.clock import rfc3339
from guard_core.findings import Enforcement, Verdict

if TYPE_CHECKING:
    from dataset_guard.registration.report import Report
    from guard_core.home import Home

MARK = "guard.tainted_by"
"""Run tag that names the bad versions a run took in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunUse:
    """One run that took in a digest. ``contexts`` are MLflow's words (training, validation, ...)."""

    run_id: str
    run_name: str
    experiment_id: str
    status: str
    user: str
    start_ms: int
    dataset: str
    contexts: tuple[str, ...]
    marks: tuple[str, ...] = ()


def runs_using(digest: str, *, tracking_uri: str | None = None) -> list[RunUse]:
    """The runs of every experiment whose inputs hold ``digest``, oldest first, registrations left out.

    ``digest`` is ``dg1:`` and 32 hex digits (``Report.digest``). Deleted runs are left out too.
    """
    client = mlflow_module().MlflowClient(tracking_uri=tracking_uri)
    uses = [use for run in _search(client, digest) if (use := _use(run, digest)) is not None]
    return sorted(uses, key=lambda u: (u.start_ms, u.run_id))


def mark_runs(
    report: Report, *, reason: str = "", tracking_uri: str | None = None, home: Home
) -> list[RunUse]:
    """Tag every run that used ``report``'s version, and record in the audit log that it was done.

    For a version whose verdict is quarantine or deny, or with an explicit ``reason`` (a verdict that came
    later). Marking twice changes nothing. Returns the runs. Raises ValueError without a cause.
    """
    if not reason and report.verdict not in (Verdict.QUARANTINE, Verdict.DENY):
        raise ValueError(
            f"{report.ref} has verdict {report.verdict.value}: say the reason for marking its runs"
        )
    why = reason or f"{report.verdict.value}: {report.summary}"
    principal = home.principal()
    uses = runs_using(report.digest, tracking_uri=tracking_uri)
    # On record first: whoever sees a mark can find out who set it and why.
    home.audit.event(
        "dataset.runs_marked",
        subject=report.ref,
        data={
            "runs": [u.run_id for u in uses],
            "reason": why,
            "digest": report.digest,
            "by": f"{principal.tenant}/{principal.user}",
        },
        enforcement=Enforcement.DETECTIVE,
        decision_id=report.decision_id,
    )
    client = mlflow_module().MlflowClient(tracking_uri=tracking_uri)
    moment = rfc3339(home.clock())
    for use in uses:
        if report.ref in use.marks:
            continue
        client.set_tag(use.run_id, MARK, ", ".join([*use.marks, report.ref]))
        client.set_tag(use.run_id, f"{MARK}.reason", why[:8000])
        client.set_tag(use.run_id, f"{MARK}.at", moment)
    return uses


def _search(client: Any, digest: str) -> Iterator[Any]:
    from mlflow.entities import ViewType

    experiments = [e.experiment_id for e in _pages(client.search_experiments, view_type=ViewType.ALL)]
    query = f"dataset.digest = '{_quoted(digest)}'"
    # A server limits how many experiments one search may name.
    for at in range(0, len(experiments), 500):
        yield from _pages(client.search_runs, experiments[at : at + 500], query)


def _pages(search: Any, *arguments: Any, **named: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(*arguments, page_token=token, **named)
        yield from page
        token = page.token
        if not token:
            return


def _quoted(digest: str) -> str:
    if "'" in digest:
        raise ValueError(f"{digest!r} is not a digest")
    return digest


def _use(run: Any, digest: str) -> RunUse | None:
    inputs = [i for i in run.inputs.dataset_inputs if i.dataset.digest == digest]
    contexts = sorted({t.value for i in inputs for t in i.tags if t.key == "mlflow.data.context"})
    if contexts == ["registration"]:
        return None
    return RunUse(
        run_id=run.info.run_id,
        run_name=run.info.run_name or "",
        experiment_id=run.info.experiment_id,
        status=run.info.status,
        user=run.data.tags.get("mlflow.user", ""),
        start_ms=run.info.start_time or 0,
        dataset=inputs[0].dataset.name if inputs else "",
        contexts=tuple(c for c in contexts if c != "registration"),
        marks=tuple(m for m in _split(run.data.tags.get(MARK, ""))),
    )


def _split(text: str) -> Sequence[str]:
    return [part for part in text.split(", ") if part]
