"""Where a version comes from: signed parents and transforms, as a graph."""

import json

import pyarrow as pa
import pytest

import dataset_guard
from dataset_guard.registry.store import Registry
from guard_core.cli import main
from guard_core.errors import Denied, UserError


def clean(rows):
    return rows


def made(home, name, rows=5, **options):
    table = pa.table({"x": range(rows)})
    return dataset_guard.register(table, name=name, tenant="acme", home=home, checks=["schema"], **options)


@pytest.fixture
def family(home, tmp_path):
    """raw@1 and extra@1 -> merged@1 -> small@1, and other@1 beside them."""
    code = tmp_path / "merge.py"
    code.write_text("print('merge')\n")
    for name in ("raw", "extra", "other"):
        made(home, name, rows=len(name))
    made(home, "merged", parents=["raw@1", "extra@1"], transform=code, transform_parameters={"how": "outer"})
    made(home, "small", rows=2, parents=["merged@1"], transform=clean)
    return code


def test_the_graph_has_all_ancestors_and_descendants_and_nobody_else(home, family):
    for ref in ("raw", "merged", "small"):
        found = dataset_guard.lineage(f"acme/{ref}@1", home=home)
        names = [node.ref for node in found.nodes]
        expected = {"acme/raw@1", "acme/merged@1", "acme/small@1"} | (
            {"acme/extra@1"} if ref != "raw" else set()
        )
        assert set(names) == expected
        assert names.index("acme/raw@1") < names.index("acme/merged@1") < names.index("acme/small@1")


def test_a_transform_is_known_by_the_digests_of_code_parameters_and_parents(home, family):
    from blake3 import blake3

    found = dataset_guard.lineage("acme/small@1", home=home)
    merged, small = found.node("acme/merged@1").transform, found.node("acme/small@1").transform
    assert merged["code"] == "merge.py"
    assert merged["code_digest"] == blake3(family.read_bytes()).hexdigest()
    assert merged["parameters"] == {"how": "outer"}
    raw = Registry(home).get("acme/raw@1", tenant="acme")
    assert merged["parents"][0] == {
        "ref": raw.ref,
        "fingerprint": raw.fingerprint,
        "record_digest": raw.record_digest,
    }
    assert small["code"].endswith(".clean")
    edges = found.to_json()["edges"]
    assert {(e["parent"], e["child"]) for e in edges} == {
        ("acme/raw@1", "acme/merged@1"),
        ("acme/extra@1", "acme/merged@1"),
        ("acme/merged@1", "acme/small@1"),
    }
    assert all(len(e["transform"]) == 64 for e in edges)


def test_deleted_versions_stay_in_the_graph_and_a_parent_in_use_is_not_destroyed(home, family):
    from dataset_guard.registry import destroy

    _, used_by = destroy.delete(home, "acme/raw@1")
    assert used_by.versions == ("acme/merged@1",)
    assert dataset_guard.lineage("acme/small@1", home=home).node("acme/raw@1").state == "deleted"


def test_the_command_registers_with_a_parent_and_shows_the_graph(home, family, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("x\n1\n")
    command = ["dataset", "register", str(tmp_path / "t.csv"), "--name", "final", "--tenant", "acme"]
    options = ["--parent", "small@1", "--transform", str(family), "--param", "seed=7", "--checks", "schema"]
    assert main([*command, *options]) == 0
    capsys.readouterr()
    assert main(["dataset", "lineage", "acme/final@1"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("* acme/final@1  ")
    assert "from acme/small@1  by merge.py (" in last
    assert main(["dataset", "lineage", "acme/final@1", "--format", "json"]) == 0
    node = json.loads(capsys.readouterr().out)["nodes"][-1]
    assert node["transform"]["parameters"] == {"seed": "7"}


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"parents": ["nope@1"]}, UserError, "there is no dataset 'nope@1'"),
        ({"parents": ["beta/x@1"]}, Denied, "belongs to another tenant"),
        ({"transform": clean}, UserError, "name them as parents"),
        ({"parents": ["raw@1"], "transform": "missing.py"}, UserError, "missing.py cannot be read"),
        ({"parents": ["raw@1"], "transform_parameters": {"x": 2**70}}, UserError, "no canonical JSON"),
    ],
)
def test_what_cannot_be_a_derivation_is_refused_and_nothing_is_stored(home, options, error, said):
    made(home, "raw")
    with pytest.raises(error, match=said):
        made(home, "child", **options)
    assert Registry(home).names(tenant="acme") == ["raw"]
