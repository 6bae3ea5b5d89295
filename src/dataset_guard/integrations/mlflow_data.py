"""Datasets in MLflow: what a run took in, with which verdict, and the report beside it.

* :func:`log_input` puts a registered version on a run (digest ``dg1:`` + 32 hex, verdict, version);
* :func:`evaluation_tags` ties an MLflow evaluation dataset to the version that its records come from, and
  :func:`evaluation_records` makes the records;
* :func:`log_registration` also stores the report, the findings and the signed attestation as artifacts;
* :func:`record_registration` makes a finished MLflow run for a registration (``dataset register --mlflow``);
* ``mlflow.data.from_trainguard("acme/digits@3")`` and ``trainguard://acme/digits@3`` work by entry points.

Everything here runs in the user's process, so it is `cooperative`: code can leave it out. The server-side
gate is :mod:`dataset_guard.integrations.mlflow_server`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, time
from typing import TYPE_CHECKING, Any

from dataset_guard.integrations.mlflow_fields import input_tags, registration_tags
from dataset_guard.registration.report import Report
from dataset_guard.registry.record import ENVELOPE
from guard_core.errors import MissingExtra, UserError

if TYPE_CHECKING:
    from dataset_guard.integrations.mlflow_source import TrainGuardDataset, TrainGuardSource
    from dataset_guard.registry.store import Version
    from guard_core.home import Home

EXPERIMENT = "trainguard-registrations"
REPORT = "guard/report.html"
FINDINGS = "guard/findings.json"
ATTESTATION = "guard/attestation.intoto.jsonl"

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_PURPOSES = {"training": "train", "train": "train"}

__all__ = [
    "TrainGuardDataset",
    "TrainGuardSource",
    "dataset",
    "evaluation_records",
    "evaluation_tags",
    "log_input",
    "log_registration",
    "record_registration",
]


def __getattr__(name: str) -> Any:
    """MLflow's own base classes are needed for these two, so they are made when asked for."""
    if name not in ("TrainGuardSource", "TrainGuardDataset"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    mlflow_module()
    from dataset_guard.integrations import mlflow_source

    return getattr(mlflow_source, name)


def mlflow_module() -> Any:
    """The ``mlflow`` module, completely imported. Raises MissingExtra when it is not installed."""
    try:
        import mlflow
    except ImportError:
        raise MissingExtra.of("mlflow", "mlflow") from None
    return mlflow


def dataset(report: Report, *, name: str | None = None, digest: str | None = None) -> TrainGuardDataset:
    """The ``mlflow.data.Dataset`` of a registered version."""
    mlflow_module()
    from dataset_guard.integrations.mlflow_source import TrainGuardDataset

    return TrainGuardDataset(report, name=name, digest=digest)


def log_input(
    ref: str,
    context: str = "training",
    *,
    run_id: str | None = None,
    tenant: str | None = None,
    home: Home | None = None,
) -> Report:
    """Put the registered version ``ref`` on the active run (or ``run_id``) as an input; returns its report.

    Asks policy first, like a read: raises Denied for a version that may not be used, UserError when there
    is no such version or no run. ``context`` is MLflow's word (training, validation, evaluation, ...).
    """
    from dataset_guard.reads.access import open_access

    purpose = _PURPOSES.get(context, "evaluate")
    with open_access(ref, purpose=purpose, tenant=tenant, home=home) as access:
        report = access.report
    _log(report, context, _run_id(run_id), {})
    return report


def evaluation_tags(ref: str, *, tenant: str | None = None, home: Home | None = None) -> dict[str, str]:
    """Tags for an MLflow evaluation dataset whose records come from the registered version ``ref``.

    Asks policy first, like a read, and raises as :func:`log_input`. Give them to
    ``mlflow.genai.datasets.create_dataset(tags=...)``.
    """
    from dataset_guard.reads.access import open_access

    with open_access(ref, purpose="evaluate", tenant=tenant, home=home) as access:
        return input_tags(access.report, "evaluation", {})


def evaluation_records(
    ref: str, *, expectations: Sequence[str] = (), tenant: str | None = None, home: Home | None = None
) -> list[dict[str, Any]]:
    """The rows of ``ref``, verified, as records for ``merge_records`` of an MLflow evaluation dataset.

    ``expectations`` names the columns that are expected answers [the label, if the version has one]; the
    others are inputs. A server with the gate takes such records only. Days and times become ISO text.
    Raises as :func:`dataset_guard.read`, and UserError for a column that is not there.
    """
    from dataset_guard.reads.verified_read import read

    reader = read(ref, purpose="evaluate", tenant=tenant, home=home)
    table = reader.to_table()
    expected = list(expectations) or [name for name in (reader.report.label,) if name is not None]
    missing = [name for name in expected if name not in table.column_names]
    if missing:
        raise UserError(
            f"{ref} has no column {missing[0]!r}; its columns are {', '.join(table.column_names)}"
        )
    rows = ({k: _plain(v) for k, v in row.items()} for row in table.to_pylist())
    return [
        {
            "inputs": {k: v for k, v in row.items() if k not in expected},
            "expectations": {k: row[k] for k in expected},
        }
        for row in rows
    ]


def _plain(value: Any) -> Any:
    """A cell as JSON has it."""
    return value.isoformat() if isinstance(value, date | time) else value


def log_registration(report: Report, *, run_id: str | None = None) -> str:
    """Put a registration on the active run (or ``run_id``): input, tags and artifacts; returns the run id."""
    run = _run_id(run_id)
    _log(report, "registration", run, registration_tags(report))
    client = mlflow_module().MlflowClient()
    _log_artifacts(client, run, report, _envelope(report, None))
    return run


def record_registration(
    report: Report,
    version: Version | None = None,
    tracking_uri: str | None = None,
    *,
    attestation: Mapping[str, Any] | None = None,
    experiment: str | None = None,
) -> str:
    """Make a finished MLflow run that records a registration; returns its run id.

    ``tracking_uri`` defaults to MLflow's own (``MLFLOW_TRACKING_URI``), ``experiment`` to
    ``MLFLOW_EXPERIMENT_NAME``, else ``trainguard-registrations``. The signed record goes along:
    ``attestation`` (a DSSE envelope), else the one in the folder of ``version`` or ``report``. Raises
    UserError when MLflow cannot be reached or refuses; the registration itself stands, because MLflow holds
    a copy and not the record.
    """
    mlflow = mlflow_module()
    from mlflow.exceptions import MlflowException
    from mlflow.tracking.context.registry import resolve_tags

    uri = tracking_uri or mlflow.get_tracking_uri()
    try:
        with _few_retries():
            client = mlflow.MlflowClient(tracking_uri=uri)
            place = _experiment(client, experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
            tags = resolve_tags(registration_tags(report))
            run = client.create_run(place, tags=tags, run_name=f"register {report.ref}").info.run_id
            client.log_inputs(run, [_dataset_input(report, "registration")])
            client.log_batch(run, metrics=_metrics(report))
            _log_artifacts(client, run, report, attestation or _envelope(report, version))
            client.set_terminated(run)
    except (MlflowException, OSError) as error:
        raise UserError(
            f"{report.ref} is registered, but MLflow at {uri} did not take the entry ({_first_line(error)}); "
            "check the address and register again to repeat it"
        ) from error
    return str(run)


def _log(report: Report, context: str, run_id: str, extra: Mapping[str, str]) -> None:
    client = mlflow_module().MlflowClient()
    from mlflow.entities import RunTag

    present = dict(client.get_run(run_id).data.tags)
    client.log_inputs(run_id, [_dataset_input(report, context)])
    tags = {"guard.tenant": report.tenant, **extra, **input_tags(report, context, present)}
    if "mlflow.note.content" in present:
        tags.pop("mlflow.note.content", None)  # the user's own words on their run stay
    client.log_batch(run_id, tags=[RunTag(key, value[:8000]) for key, value in tags.items()])


def _log_artifacts(client: Any, run_id: str, report: Report, envelope: Mapping[str, Any] | None) -> None:
    client.log_text(run_id, report.to_html(), REPORT)
    client.log_text(run_id, json.dumps(report.document(), indent=1, sort_keys=True), FINDINGS)
    if envelope is not None:
        client.log_text(run_id, json.dumps(envelope, sort_keys=True) + "\n", ATTESTATION)


def _envelope(report: Report, version: Version | None) -> dict[str, Any] | None:
    folder = version.folder if version is not None else report.report_path and report.report_path.parent
    if folder is None or not (folder / ENVELOPE).is_file():
        return None
    envelope: dict[str, Any] = json.loads((folder / ENVELOPE).read_bytes())
    return envelope


def _dataset_input(report: Report, context: str) -> Any:
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    entity = dataset(report)._to_mlflow_entity()
    return DatasetInput(dataset=entity, tags=[InputTag(key=MLFLOW_DATASET_CONTEXT, value=context)])


def _metrics(report: Report) -> list[Any]:
    from mlflow.entities import Metric

    # Time 0 would be 1970 in MLflow's charts; the registration has no other step than its own.
    values: dict[str, float] = {
        f"guard.findings.{s}": report.count(s) for s in ("critical", "warning", "info")
    }
    values["guard.cpu_seconds"] = round(sum(report.seconds.values(), 0.0), 4)
    return [Metric(key=k, value=float(v), timestamp=_now_ms(), step=0) for k, v in values.items()]


def _now_ms() -> int:
    from guard_core.clock import system_clock, to_ns

    return to_ns(system_clock()) // 1_000_000


def _experiment(client: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        # Two registrations at once may both find it missing; the loser takes the winner's.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def _run_id(run_id: str | None) -> str:
    if run_id is not None:
        return run_id
    active = mlflow_module().active_run()
    if active is None:
        raise UserError(
            "there is no active MLflow run to log to; use `with mlflow.start_run():` or give run_id"
        )
    return str(active.info.run_id)


@contextmanager
def _few_retries() -> Iterator[None]:
    """MLflow's client would try a dead server for minutes; two tries are enough for a copy."""
    before = os.environ.get(_RETRIES)
    os.environ.setdefault(_RETRIES, "2")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_RETRIES]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
