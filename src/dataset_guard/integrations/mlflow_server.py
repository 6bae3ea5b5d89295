"""The server-side gate in MLflow: ``mlflow server --app-name trainguard``.

Refuses, with 403, to log a dataset that policy does not allow, and serves the dataset reports at ``/guard``
on the same port. ``--app-name`` takes one app only, so this one wraps another: name it in
``TRAINGUARD_MLFLOW_INNER_APP`` (e.g. ``basic-auth``).

``TRAINGUARD_HOME`` names the registry; ``TRAINGUARD_MLFLOW_REGISTERED_ONLY=1`` also refuses datasets that
are not registered. Label: `enforced` for entries in this MLflow server, however they are sent to it. It
cannot know what a run really read; verified reads and job admission are for that. Of MLflow's evaluation
datasets it gates what they say of registered versions, and, unless ``TRAINGUARD_MLFLOW_EVALUATION_ROWS=0``,
that their records are rows of those (:mod:`dataset_guard.integrations.mlflow_evaluation`). Not gated: tags of
other people than TrainGuard, and data uploaded as artifacts.

Structure follows mlflow.server.auth.create_app (MLflow 3.17), whose interface is marked experimental.
"""

from __future__ import annotations

import json
import logging
import os
from functools import cache, partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from dataset_guard.integrations.mlflow_evaluation import EvaluationCall, call_of, evaluation_refusal
from dataset_guard.integrations.mlflow_gate import TOKEN_HEADER, LoggedDataset, refusal, token_of
from dataset_guard.integrations.mlflow_tags import TagChange, tag_refusal
from guard_core.errors import UserError

if TYPE_CHECKING:
    from guard_core.home import Home

INNER_APP = "TRAINGUARD_MLFLOW_INNER_APP"
REGISTERED_ONLY = "TRAINGUARD_MLFLOW_REGISTERED_ONLY"
EVALUATION_ROWS = "TRAINGUARD_MLFLOW_EVALUATION_ROWS"
GATED = {
    "/mlflow/runs/log-inputs": "LogInputs",
    "/mlflow/runs/log-batch": "LogBatch",
    "/mlflow/runs/log-metric": "LogMetric",
}
"""Endpoints that put a dataset on a run, and the protobuf messages of their bodies. A metric may name the
dataset that it was measured on."""
PROMPT_JOBS = {"/mlflow/prompt-optimization/jobs": "CreatePromptOptimizationJob"}
"""A job for prompts puts an evaluation dataset on the run that it makes."""
TAGGED = {
    "/mlflow/runs/create": "CreateRun",
    "/mlflow/runs/set-tag": "SetTag",
    "/mlflow/runs/log-batch": "LogBatch",
    "/mlflow/runs/delete-tag": "DeleteTag",
}
"""Endpoints that set or remove tags of runs, likewise."""

_log = logging.getLogger(__name__)


def create_app(app: Any = None) -> Any:
    """MLflow's app with the gate before it: an ASGI app under uvicorn, else Flask (without ``/guard``)."""
    from mlflow.environment_variables import _MLFLOW_SGI_NAME
    from mlflow.server import app as mlflow_app

    flask_app = app if app is not None else mlflow_app
    # Before the inner app's own hooks: a refused request should not depend on what they do.
    flask_app.before_request_funcs.setdefault(None, []).insert(0, gate)
    home()  # a server that cannot open its home must not start
    outer = _inner(flask_app)
    if _MLFLOW_SGI_NAME.get() != "uvicorn":
        return outer
    if outer is flask_app:
        from mlflow.server.fastapi_app import create_fastapi_app

        outer = create_fastapi_app(flask_app)
    from starlette.routing import Mount

    from dataset_guard.integrations.mlflow_console import console

    # At the front: the last route is MLflow's catch-all.
    outer.router.routes.insert(0, Mount("/guard", console(home)))
    return outer


def gate() -> Any:
    """Flask's before_request hook: a 403 answer for a refused dataset or tag, None to go on."""
    from flask import request

    if request.method not in ("POST", "PATCH"):
        return None
    path = request.path.rstrip("/")
    kind, tagged, job = (
        next((kind for end, kind in ends.items() if path.endswith(end)), None)
        for ends in (GATED, TAGGED, PROMPT_JOBS)
    )
    if kind is None and tagged is None and job is None and "/mlflow/datasets/" not in path:
        return None
    body = request.get_json(force=True, silent=True)
    token = token_of(request.headers.get(TOKEN_HEADER, ""), request.headers.get("Authorization", ""))
    only = os.environ.get(REGISTERED_ONLY) == "1"
    why = None
    if kind is not None and (datasets := logged_datasets(body, kind)):
        why = refusal(home(), token, datasets, registered_only=only)
    if why is None and tagged is not None:
        why = tag_refusal(home(), token, tag_change(body, tagged))
    about = prompt_job(body, job) if job else call_of(request.method, path, body, _tags_of_evaluation)
    if about is not None:
        rows = os.environ.get(EVALUATION_ROWS) != "0"
        why = why or evaluation_refusal(home(), token, about, registered_only=only, rows_only=rows)
    return None if why is None else _refusal_answer(why)


def _refusal_answer(why: str) -> Any:
    from flask import Response

    _log.info("refused: %s", why)
    # Never 5xx: MLflow's client repeats those for minutes.
    body = json.dumps({"error_code": "PERMISSION_DENIED", "message": f"TrainGuard: {why}"})
    return Response(body, status=403, mimetype="application/json")


def tag_change(body: Any, kind: str) -> TagChange:
    """What a request whose message is ``kind`` does to a run's tags, read exactly as MLflow reads it."""
    message = _parsed(body, kind)
    if message is None:
        return TagChange([])
    run = getattr(message, "run_id", "") or getattr(message, "run_uuid", "")
    if kind == "DeleteTag":
        return TagChange([], [message.key])
    tags = [message] if kind == "SetTag" else message.tags
    return TagChange([(tag.key, tag.value) for tag in tags], present=partial(_tags_of, run))


def _tags_of(run_id: str) -> dict[str, str]:
    """The tags that a run of this server has; none for a run that is not there."""
    from mlflow.exceptions import MlflowException
    from mlflow.server.handlers import _get_tracking_store

    try:
        return dict(_get_tracking_store().get_run(run_id).data.tags) if run_id else {}
    except MlflowException:
        return {}


def _tags_of_evaluation(dataset_id: str) -> dict[str, str]:
    """The tags that an evaluation dataset of this server has; none for one that is not there."""
    from mlflow.exceptions import MlflowException
    from mlflow.server.handlers import _get_tracking_store

    try:
        return dict(_get_tracking_store().get_dataset(dataset_id).tags or {})
    except MlflowException:
        return {}


def prompt_job(body: Any, kind: str) -> EvaluationCall | None:
    """The use of an evaluation dataset by a prompt optimisation job; None for a job without one."""
    message = _parsed(body, kind)
    used = "" if message is None else message.config.dataset_id
    return (
        EvaluationCall(f"evaluation dataset {used}", {}, partial(_tags_of_evaluation, used)) if used else None
    )


def _parsed(body: Any, kind: str) -> Any:
    """The body as MLflow's message ``kind``; None when MLflow cannot parse it, and answers 400.

    MLflow parses with protobuf, which knows two spellings of each field: reading the raw JSON could be got
    round with the other one.
    """
    from google.protobuf.json_format import ParseError
    from mlflow.protos import prompt_optimization_pb2, service_pb2
    from mlflow.utils.proto_json_utils import parse_dict

    message = (getattr(service_pb2, kind, None) or getattr(prompt_optimization_pb2, kind))()
    try:
        parse_dict(body if isinstance(body, dict) else {}, message)
    except ParseError:
        return None
    return message


def logged_datasets(body: Any, kind: str = "LogInputs") -> list[LoggedDataset]:
    """The datasets in the body of a request whose message is ``kind``, read exactly as MLflow reads it."""
    message = _parsed(body, kind)
    if message is None:
        return []
    if kind != "LogInputs":
        metrics = message.metrics if kind == "LogBatch" else [message]
        named = dict.fromkeys((m.dataset_name, m.dataset_digest) for m in metrics if m.dataset_digest)
        return [LoggedDataset(name, digest, "evaluation") for name, digest in named]
    return [
        LoggedDataset(
            d.dataset.name,
            d.dataset.digest,
            next((t.value for t in d.tags if t.key == "mlflow.data.context"), ""),
            d.dataset.profile,
        )
        for d in message.datasets
    ]


@cache
def home() -> Home:
    """This process's opened TRAINGUARD_HOME."""
    from guard_core.home import Home

    return Home.open()


def _inner(flask_app: Any) -> Any:
    name = os.environ.get(INNER_APP)
    if not name:
        return flask_app
    if name == "trainguard":
        raise UserError(f"{INNER_APP}=trainguard would wrap itself; name another app, or leave it out")
    found = [e for e in entry_points(group="mlflow.app") if e.name == name]
    if not found:
        raise UserError(
            f"there is no MLflow app {name!r} for {INNER_APP}; install the package that brings it"
        )
    factory = found[0].load()
    return factory(flask_app) if callable(factory) and not hasattr(factory, "wsgi_app") else factory
