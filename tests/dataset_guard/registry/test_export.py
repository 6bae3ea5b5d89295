"""Descriptions for other tools, read with those tools' own libraries (mlcroissant, openlineage-python), and
what these do not look at: that JSON pointers resolve, that digests are the files', that no value is in."""

import hashlib
import json
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

import dataset_guard
from dataset_guard.integrations.croissant import CONTEXT
from dataset_guard.registry.export import describe
from guard_core.cli import main
from guard_core.errors import Denied, Tampered, UserError
from guard_core.home import Home

TABLE = pa.table(
    {
        "n": pa.array(range(100), pa.int64()),
        "small": pa.array([1] * 100, pa.uint8()),
        "x": [i / 7 for i in range(100)],
        "text": [f"secret value {i}" for i in range(100)],
        "when": pa.array(range(100), pa.timestamp("ms", "UTC")),
        "vec": [[float(i)] for i in range(100)],
        "label": [i % 2 == 0 for i in range(100)],
    }
)


@pytest.fixture
def folder(home, tmp_path):
    """acme/set@1, registered from two Parquet files."""
    path = tmp_path / "data"
    path.mkdir()
    pq.write_table(TABLE.slice(0, 40), path / "a.parquet")
    pq.write_table(TABLE.slice(40), path / "b c.parquet")
    dataset_guard.register(path, name="set", tenant="acme", label="label", home=home, checks=["schema"])
    return path


def croissant(home):
    return describe("set@1", "croissant", tenant="acme", home=home)


def nodes(value):
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from nodes(part)
    elif isinstance(value, list):
        for part in value:
            yield from nodes(part)


def test_a_croissant_document_has_what_the_specification_requires(home, folder):
    document = croissant(home)
    assert document["@context"] == CONTEXT
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert document["@type"] == "sc:Dataset"
    for required in ("name", "description", "url", "datePublished", "version", "distribution", "recordSet"):
        assert document[required]
    for file in document["distribution"]:
        assert {"@type", "@id", "name", "encodingFormat"} <= set(file)
        if file["@type"] == "cr:FileObject":
            assert {"contentUrl", "contentSize", "sha256"} <= set(file)
    [rows] = document["recordSet"]
    assert [field["name"] for field in rows["field"]] == sorted(TABLE.column_names)


def test_mlcroissant_finds_no_error_and_loads_the_rows_through_it(home, folder):
    import mlcroissant

    place = folder / "croissant.json"  # beside the data, as Croissant has it
    place.write_text(json.dumps(croissant(home)))
    read = mlcroissant.Dataset(jsonld=place)
    assert read.metadata.ctx.issues.errors == set()
    assert read.metadata.ctx.conforms_to.name == "V_1_1"
    [rows] = read.metadata.record_sets
    found = list(read.records(rows.id))
    assert [int(r["rows/n"]) for r in found] == TABLE["n"].to_pylist()
    assert [r["rows/text"].decode() for r in found] == TABLE["text"].to_pylist()
    assert [bool(r["rows/label"]) for r in found] == TABLE["label"].to_pylist()


def loaded(home, folder):
    """The rows that mlcroissant reads of acme/y@1, from its description beside the data in ``folder``."""
    import mlcroissant

    (folder / "croissant.json").write_text(json.dumps(describe("acme/y@1", "croissant", home=home)))
    return list(mlcroissant.Dataset(jsonld=folder / "croissant.json").records("rows"))


def test_mlcroissant_loads_partitions_and_their_column(home, tmp_path):
    for year, values in (("2025", [1, 2]), ("2026", [3])):
        (tmp_path / "y" / f"year={year}").mkdir(parents=True)
        pq.write_table(pa.table({"v": values}), tmp_path / "y" / f"year={year}" / "0.parquet")
    dataset_guard.register(tmp_path / "y", name="y", tenant="acme", home=home, checks=["schema"])
    found = loaded(home, tmp_path / "y")
    assert [(int(r["rows/v"]), int(r["rows/year"])) for r in found] == [(1, 2025), (2, 2025), (3, 2026)]


def test_mlcroissant_loads_images_and_their_labels(home, tmp_path):
    from PIL import Image

    for label, size in (("cat", (1, 2)), ("dog", (3, 4))):
        (tmp_path / "y" / label).mkdir(parents=True)
        Image.new("RGB", size).save(tmp_path / "y" / label / "1.png")
    dataset_guard.register(tmp_path / "y", name="y", tenant="acme", home=home, checks=["schema"])
    found = loaded(home, tmp_path / "y")
    assert [(r["rows/image"].size, r["rows/label"]) for r in found] == [((1, 2), b"cat"), ((3, 4), b"dog")]


def test_every_reference_in_it_names_a_node_and_no_node_twice(home, folder):
    body = {k: v for k, v in croissant(home).items() if k != "@context"}
    made = [node["@id"] for node in nodes(body) if "@type" in node and "@id" in node]
    used = [node["@id"] for node in nodes(body) if set(node) == {"@id"}]
    assert len(made) == len(set(made))
    assert used
    assert set(used) <= set(made)


def test_its_types_are_those_of_the_columns(home, folder):
    [rows] = croissant(home)["recordSet"]
    types = {field["name"]: field["dataType"] for field in rows["field"]}
    assert types == {
        "n": "cr:Int64",
        "small": "cr:UInt8",
        "x": "cr:Float64",
        "text": "sc:Text",
        "when": "sc:DateTime",
        "vec": "cr:Float64",
        "label": "sc:Boolean",
    }


def test_its_digests_are_those_of_the_files_and_dg1_is_the_fingerprint(home, folder):
    document = croissant(home)
    found = {f["name"]: f["sha256"] for f in document["distribution"] if f["@type"] == "cr:FileObject"}
    assert found == {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}
    assert document["dg1"] == dataset_guard.fingerprint(folder).fingerprint


def test_a_changed_file_is_not_described(home, folder):
    pq.write_table(TABLE.slice(40), folder / "b c.parquet", compression="none")
    with pytest.raises(Tampered, match=r"b c\.parquet of acme/set@1 has other bytes"):
        croissant(home)
    (folder / "b c.parquet").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        croissant(home)


def test_data_from_memory_is_described_from_its_kept_copy(home):
    dataset_guard.register(TABLE, name="set", tenant="acme", home=home, checks=["schema"])
    document = croissant(home)
    [file] = document["distribution"]
    assert file["name"] == "part-0.parquet"
    assert document["recordSet"][0]["field"][0]["source"]["fileObject"] == {"@id": file["@id"]}


def test_an_openlineage_event_has_what_the_specification_requires(home, folder):
    dataset_guard.register(TABLE, name="set", tenant="acme", home=home, trusted="set@1", checks=["schema"])
    event = describe("set@2", "openlineage", tenant="acme", home=home)
    assert {"eventType", "eventTime", "producer", "schemaURL", "run", "job", "inputs", "outputs"} <= set(
        event
    )
    uuid.UUID(event["run"]["runId"])
    facets = [n for n in nodes(event) if "_schemaURL" in n]
    assert facets
    assert all(n["_producer"].startswith("https://") for n in facets)
    assert [(i["namespace"], i["name"]) for i in event["inputs"]][1:] == [("trainguard://acme", "set")]
    [output] = event["outputs"]
    assert output["facets"]["version"]["datasetVersion"] == "2"
    assert output["facets"]["trainguard"]["dg1"] == dataset_guard.fingerprint(TABLE).fingerprint
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 100


def test_the_openlineage_client_takes_the_event_and_would_send_the_same(home, folder):
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
    from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet
    from openlineage.client.generated.output_statistics_output_dataset import (
        OutputStatisticsOutputDatasetFacet,
    )
    from openlineage.client.generated.schema_dataset import SchemaDatasetFacet, SchemaDatasetFacetFields
    from openlineage.client.serde import Serde

    said = describe("set@1", "openlineage", tenant="acme", home=home)
    [output] = said["outputs"]

    def typed(facet, kind, **fields):
        """The client's own object: it refuses fields that the facet does not have."""
        made = {k: v for k, v in facet.items() if not k.startswith("_")} | fields
        version_of = facet["_schemaURL"].replace(facet["_schemaURL"].split("/")[5], "*")
        assert version_of == kind._get_schema().replace(kind._get_schema().split("/")[5], "*")
        return kind(**made, producer=facet["_producer"])

    facets, statistics = output["facets"], output["outputFacets"]["outputStatistics"]
    columns = [SchemaDatasetFacetFields(**f) for f in facets["schema"]["fields"]]
    event = RunEvent(
        eventTime=said["eventTime"],
        producer=said["producer"],
        run=Run(runId=said["run"]["runId"]),
        job=Job(**said["job"]),
        eventType=RunState(said["eventType"]),
        inputs=[InputDataset(namespace=i["namespace"], name=i["name"]) for i in said["inputs"]],
        outputs=[
            OutputDataset(
                namespace=output["namespace"],
                name=output["name"],
                facets={
                    "schema": typed(facets["schema"], SchemaDatasetFacet, fields=columns),
                    "version": typed(facets["version"], DatasetVersionDatasetFacet),
                },
                outputFacets={"outputStatistics": typed(statistics, OutputStatisticsOutputDatasetFacet)},
            )
        ],
    )
    sent = json.loads(Serde.to_json(event))
    for key in ("eventTime", "eventType", "producer", "schemaURL"):
        assert sent[key] == said[key]
    assert sent["run"]["runId"] == said["run"]["runId"]
    assert sent["outputs"][0]["facets"]["version"]["datasetVersion"] == "1"
    assert [f["name"] for f in sent["outputs"][0]["facets"]["schema"]["fields"]] == [
        f["name"] for f in facets["schema"]["fields"]
    ]
    assert sent["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 100


def test_the_same_registration_is_always_the_same_event(home, folder):
    assert (
        len({json.dumps(describe("set@1", "openlineage", tenant="acme", home=home)) for _ in range(2)}) == 1
    )


@pytest.mark.parametrize("form", ["croissant", "openlineage"])
def test_no_value_of_the_data_is_in_a_description(home, folder, form):
    assert "secret value" not in json.dumps(describe("set@1", form, tenant="acme", home=home))


def test_another_tenant_gets_no_description(home, folder):
    token = home.credentials.issue(tenant="beta", user="bo")
    settings = home.settings.model_copy(update={"token": SecretStr(token)})
    with Home.open(settings) as theirs, pytest.raises(Denied, match="belongs to another tenant"):
        describe("acme/set@1", "croissant", home=theirs)
    assert list(home.audit.records(kind="dataset.described")) == []


def test_from_the_command_line(home, folder, capsys):
    assert main(["dataset", "export", "acme/set@1", "--format", "croissant"]) == 0
    assert json.loads(capsys.readouterr().out)["dg1"].startswith("dg1:")
    [event] = home.audit.records(kind="dataset.described")
    assert (event["subject"], event["data"]["format"]) == ("acme/set@1", "croissant")
