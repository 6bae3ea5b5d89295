"""MLflow's evaluation datasets: which registered version are their records from, and may it be used?

Their records live in MLflow, with a digest that MLflow computes, so nothing ties them to a version but what
their tags say: ``guard.dataset.evaluation`` and its verdict, fingerprint and decision
(:func:`dataset_guard.integrations.mlflow_data.evaluation_tags`). On a server with the gate those tags are
what the registry says, of a version that policy allows, or refused. Where registered data is required, an
evaluation dataset must have them from its beginning, and takes records, or goes into a prompt optimisation
job, only while policy allows the version. Records of a dataset that names a version must be its rows
(:mod:`dataset_guard.integrations.mlflow_rows`), because whoever reads the tag believes that; a server with
``TRAINGUARD_MLFLOW_EVALUATION_ROWS=0`` takes the caller's word for it (`cooperative`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dataset_guard.integrations.mlflow_tags import SAID, TagChange, tag_refusal
from guard_core.errors import GuardError

if TYPE_CHECKING:
    from guard_core.home import Home

PATHS = {
    ("POST", "createDataset"): re.compile(r"/mlflow/datasets/create$"),
    ("PATCH", "setDatasetTags"): re.compile(r"/mlflow/datasets/([^/]+)/tags$"),
    ("POST", "upsertDatasetRecords"): re.compile(r"/mlflow/datasets/([^/]+)/records$"),
}
"""(HTTP method, MLflow's name of the call) and its path; the group is the evaluation dataset's id."""

_NAMED = f"{SAID}evaluation"
_REMEDY = "create it with the tags of dataset_guard.integrations.mlflow_data.evaluation_tags('NAME@VERSION')"


@dataclass(frozen=True, slots=True)
class EvaluationCall:
    """A request about an evaluation dataset.

    ``put`` are the tags that it sets; ``present`` gives those that the dataset has. ``uses`` says that it
    makes the dataset, puts ``records`` (JSON) into it, or takes them from it.
    """

    what: str
    put: Mapping[str, str]
    present: Callable[[], Mapping[str, str]] = dict
    uses: bool = True
    records: Any = None


def call_of(
    method: str, path: str, body: Any, tags_of: Callable[[str], Mapping[str, str]]
) -> EvaluationCall | None:
    """The call in a request; None for any other. ``tags_of`` gives the tags of an evaluation dataset."""
    for (verb, name), pattern in PATHS.items():
        found = pattern.search(path) if verb == method else None
        if found is None:
            continue
        if name == "createDataset":
            said = body.get("name") if isinstance(body, dict) else None
            return EvaluationCall(f"the new evaluation dataset {str(said)!r}", _tags(body))
        present = partial(tags_of, found[1])
        what = f"evaluation dataset {found[1]}"
        if name == "setDatasetTags":
            return EvaluationCall(what, _tags(body), present, uses=False)
        return EvaluationCall(
            what, {}, present, records=body.get("records") if isinstance(body, dict) else None
        )
    return None


def _tags(body: Any) -> dict[str, str]:
    """The tags in a body, which are JSON within the JSON; what MLflow cannot read it refuses itself."""
    text = body.get("tags") if isinstance(body, dict) else None
    try:
        tags = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in tags.items()} if isinstance(tags, dict) else {}


def evaluation_refusal(
    home: Home, token: str | None, call: EvaluationCall, *, registered_only: bool, rows_only: bool = True
) -> str | None:
    """Why the call is refused, as one sentence; None when it is not.

    ``registered_only``: a version must be named. ``rows_only``: records must be rows of the one named.
    """
    why = tag_refusal(home, token, TagChange(list(call.put.items()), present=call.present))
    names_later = rows_only and not call.uses and _NAMED in call.put
    if why is None and names_later and call.present().get(_NAMED) != call.put[_NAMED]:
        # It may hold records already, which nobody compared with that version.
        return f"{call.what} names its version when it is created, or not at all; create another"
    compared = rows_only and call.records is not None
    if why is not None or not call.uses or not (registered_only or compared):
        return why
    tags = call.put or call.present()
    if _NAMED not in tags:
        if not registered_only:
            return None
        return (
            f"{call.what} names no registered version, and this server takes registered data only; {_REMEDY}"
        )
    why = tag_refusal(home, token, TagChange(list(tags.items())))
    return _not_rows(home, tags[_NAMED], call.records) if why is None and compared else why


def _not_rows(home: Home, named: str, records: Any) -> str | None:
    """Why ``records`` are not rows of the versions ``named`` in the tag, which the caller may use."""
    from dataset_guard.integrations.mlflow_rows import rows_refusal
    from dataset_guard.registry.refs import parse_ref
    from dataset_guard.registry.store import Registry

    try:
        registry = Registry(home)
        owned = [(text, parse_ref(text, tenant="").tenant) for text in named.split(", ")]
        return rows_refusal(home, [registry.reference(text, tenant=owner) for text, owner in owned], records)
    except GuardError as error:
        return str(error)
