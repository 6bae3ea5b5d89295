"""MLflow's evaluation datasets: which registered version are their records from, and may it be used?

Their records live in MLflow, with a digest that MLflow computes, so nothing ties them to a version but what
their tags say: ``guard.dataset.evaluation`` and its verdict, fingerprint and decision
(:func:`dataset_guard.integrations.mlflow_data.evaluation_tags`). On a server with the gate those tags are
what the registry says, of a version that policy allows, or refused. Where registered data is required, an
evaluation dataset must have them from its beginning, and takes records, or goes into a prompt optimisation
job, only while policy allows the version. That the records are the version's rows nobody checks
(`cooperative`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dataset_guard.integrations.mlflow_tags import SAID, TagChange, tag_refusal

if TYPE_CHECKING:
    from guard_core.home import Home

PATHS = {
    ("POST", "createDataset"): re.compile(r"/mlflow/datasets/create$"),
    ("PATCH", "setDatasetTags"): re.compile(r"/mlflow/datasets/([^/]+)/tags$"),
    ("POST", "upsertDatasetRecords"): re.compile(r"/mlflow/datasets/([^/]+)/records$"),
}
"""(HTTP method, MLflow's name of the call) and its path; the group is the evaluation dataset's id."""

_REMEDY = "create it with the tags of dataset_guard.integrations.mlflow_data.evaluation_tags('NAME@VERSION')"


@dataclass(frozen=True, slots=True)
class EvaluationCall:
    """A request about an evaluation dataset.

    ``put`` are the tags that it sets; ``present`` gives those that the dataset has. ``uses`` says that it
    makes the dataset, puts records into it, or takes them from it.
    """

    what: str
    put: Mapping[str, str]
    present: Callable[[], Mapping[str, str]] = dict
    uses: bool = True


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
        return EvaluationCall(what, {}, present)
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
    home: Home, token: str | None, call: EvaluationCall, *, registered_only: bool
) -> str | None:
    """Why the call is refused, as one sentence; None when it is not."""
    why = tag_refusal(home, token, TagChange(list(call.put.items()), present=call.present))
    if why is not None or not call.uses or not registered_only:
        return why
    tags = call.put or call.present()
    if f"{SAID}evaluation" not in tags:
        return (
            f"{call.what} names no registered version, and this server takes registered data only; {_REMEDY}"
        )
    return tag_refusal(home, token, TagChange(list(tags.items())))
