"""A registration as an OpenLineage run event (https://openlineage.io/spec/2-0-2/OpenLineage.json).

The run is the registration: its inputs are the data as it lay and the versions it was compared with or
derived from, its output is the version. Facets hold names, types, counts and digests only. Nothing is sent.
"""

from __future__ import annotations

import uuid
from typing import Any

from dataset_guard.registry.reference import Reference
from dataset_guard.registry.refs import parse_ref
from guard_core.version import __version__

PRODUCER = f"https://trainguard.dev/trainguard/{__version__}"
SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS = "https://openlineage.io/spec/facets/"
_OWN = "https://trainguard.dev/openlineage/1-0-0/TrainGuardDatasetFacet.json#/$defs/TrainGuardDatasetFacet"
_NAMESPACE = uuid.UUID("6e2f4f0e-6d0c-5d0e-9a55-7a1f0e1c2b3d")
"""Only makes run ids: the same registration always has the same one."""


def openlineage(reference: Reference) -> dict[str, Any]:
    """The COMPLETE event of the registration of ``reference``; the same every time it is asked for."""
    record = reference.record
    content = record["content"]
    tenant, name = record["tenant"], record["name"]
    return {
        "eventType": "COMPLETE",
        "eventTime": record["created_at"],
        "producer": PRODUCER,
        "schemaURL": SCHEMA,
        "run": {"runId": str(uuid.uuid5(_NAMESPACE, record["decision"]["id"]))},
        "job": {"namespace": _namespace(tenant), "name": f"dataset.register.{name}"},
        "inputs": [
            {"namespace": "file", "name": record["source"]["uri"]},
            *(_input(ref, tenant) for ref in dict.fromkeys((*record["parents"], *record["against"]))),
        ],
        "outputs": [
            {
                "namespace": _namespace(tenant),
                "name": name,
                "facets": {
                    "schema": _facet(
                        "1-1-1/SchemaDatasetFacet.json#/$defs/SchemaDatasetFacet",
                        fields=[{"name": c["name"], "type": c["type"]} for c in content["columns"]],
                    ),
                    "version": _facet(
                        "1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet",
                        datasetVersion=str(record["version"]),
                    ),
                    "trainguard": {
                        "_producer": PRODUCER,
                        "_schemaURL": _OWN,
                        "ref": record["ref"],
                        "dg1": content["fingerprint"],
                        "verdict": record["verdict"],
                        "findings": dict(record["findings"]),
                        "label": record["label"],
                        "split": record["split"],
                        "recordDigest": reference.version.record_digest,
                        "decisionId": record["decision"]["id"],
                        "enforcement": record["decision"]["enforcement"],
                    },
                },
                "outputFacets": {
                    "outputStatistics": _facet(
                        "1-0-2/OutputStatisticsOutputDatasetFacet.json#/$defs/OutputStatisticsOutputDatasetFacet",
                        rowCount=content["rows"],
                        size=sum(entry.bytes for entry in reference.manifest),
                        fileCount=len(reference.manifest),
                    )
                },
            }
        ],
    }


def _namespace(tenant: str) -> str:
    return f"trainguard://{tenant}"


def _input(text: str, tenant: str) -> dict[str, Any]:
    ref = parse_ref(text, tenant=tenant)
    version = _facet(
        "1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet",
        datasetVersion=str(ref.version),
    )
    return {"namespace": _namespace(ref.tenant), "name": ref.name, "facets": {"version": version}}


def _facet(schema: str, **content: Any) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": _FACETS + schema, **content}
