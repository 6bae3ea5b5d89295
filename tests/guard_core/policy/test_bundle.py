"""A policy directory becomes one immutable bundle, or is refused with file, line and field."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from guard_core.errors import UserError
from guard_core.policy.bundle import Bundle, load_bundle, shipped_policies, write_bundle


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A copy of the shipped policies an admin may edit."""
    return Path(shutil.copytree(shipped_policies(), tmp_path / "policies"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def refusal(policies: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_bundle(policies)
    return str(caught.value)


def test_the_shipped_policies_load_with_their_tenants() -> None:
    bundle = load_bundle(shipped_policies())
    assert {"acme", "beta", "local", "canary"} <= set(bundle.config["tenants"])
    assert "guard/dataset/use/use.rego" in bundle.modules
    assert json.loads(bundle.data_json)["guard"]["config"]["tenants"] == bundle.config["tenants"]


def test_the_revision_names_the_content_and_not_the_place(policies: Path) -> None:
    assert load_bundle(policies).revision == load_bundle(shipped_policies()).revision


def test_comments_and_tests_do_not_change_the_revision(policies: Path) -> None:
    before = load_bundle(policies).revision
    (policies / "data" / "tenants.yaml").write_text(
        "# a comment\n" + (policies / "data" / "tenants.yaml").read_text()
    )
    (policies / "guard" / "extra_test.rego").write_text("package guard.extra_test\n")
    assert load_bundle(policies).revision == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("data/quotas.yaml", "nominal: 2000", "nominal: 2001"),
        ("guard/dataset/use/use.rego", "purpose", "porpoise"),
    ],
)
def test_any_change_of_policy_or_data_changes_the_revision(
    policies: Path, file: str, old: str, new: str
) -> None:
    before = load_bundle(policies).revision
    edit(policies / file, old, new)
    assert load_bundle(policies).revision != before


@pytest.mark.parametrize(
    ("file", "old", "new", "said", "marked"),
    [
        (
            "quotas",
            "nominal: 2000",
            "nominal: -1",
            "queues.acme.resources.cpu_milli.nominal: -1 is less than",
            "nominal: -1",
        ),
        ("quotas", "nominal: 2000", "nominal: 1.5", "1.5 is a fraction", "1.5"),
        (
            "quotas",
            "nominal: 2000",
            "nominal: 9007199254740993",
            "beyond 9007199254740991",
            "9007199254740993",
        ),
        ("quotas", "nominal: 2000", "nominal: 2026-11-23", "is not of type 'integer'", "2026-11-23"),
        ("quotas", "weight: 2", "wieght: 2", "queues.acme.wieght", "wieght"),
        (
            "quotas",
            "weight: 2",
            "weight: 2\n    weight: 3",
            "queues.acme.weight: the key appears twice",
            "weight: 3",
        ),
        ("quotas", "weight: 2", "weight: &w 2\n    again: *w", "anchors and aliases", "again"),
        ("tenants", "tier: basic", "tier: gold", "acme.tier: 'gold' is not one of", "gold"),
        ("tenants", "state: active", "state: no", "acme.state: 'no' is not one of", "state: no"),
        (
            "playbooks",
            "kill_switch: false",
            "kill_switch: off",
            "kill_switch: 'off' is not of type 'boolean'",
            "off",
        ),
        (
            "playbooks",
            "2036-01-01",
            "2036-13-01",
            "playbooks.drill.expires: '2036-13-01T00:00:00Z' is not a",
            "2036-13",
        ),
        (
            "playbooks",
            "{level: 3, name: throttle",
            "{level: 9, name: throttle",
            "ladder[3].level",
            "level: 9",
        ),
        ("waivers", "waivers: []", "waivers: [}", "not valid YAML", "[}"),
    ],
)
def test_a_broken_data_file_is_refused_with_file_line_and_field(
    policies: Path, file: str, old: str, new: str, said: str, marked: str
) -> None:
    path = policies / "data" / f"{file}.yaml"
    edit(path, old, new)
    lines = path.read_text().splitlines()
    message = refusal(policies)
    assert said in message
    line = int(message.removeprefix(f"{path}:").partition(":")[0])
    assert line == next(i for i, text in enumerate(lines, 1) if marked in text)


def test_a_json_data_file_is_read_too_and_its_fractions_refused(policies: Path) -> None:
    (policies / "data" / "waivers.yaml").unlink()
    (policies / "data" / "waivers.json").write_text('{"waivers": []}')
    assert load_bundle(policies).config["waivers"] == {"waivers": []}
    (policies / "data" / "waivers.json").write_text('{"waivers": 0.5}')
    assert "0.5 is a fraction" in refusal(policies)


def test_the_same_data_in_two_formats_is_refused(policies: Path) -> None:
    (policies / "data" / "waivers.json").write_text('{"waivers": []}')
    assert "given twice" in refusal(policies)


def test_a_misspelt_data_file_is_refused_rather_than_ignored(policies: Path) -> None:
    (policies / "data" / "quotas.yaml").rename(policies / "data" / "quota.yaml")
    assert "known data files" in refusal(policies)


def test_a_missing_data_file_is_refused(policies: Path) -> None:
    (policies / "data" / "quotas.yaml").unlink()
    assert "quotas.yaml: missing" in refusal(policies)


def test_removing_a_schema_does_not_remove_the_check(policies: Path) -> None:
    (policies / "data" / "schemas" / "tenants.schema.json").unlink()
    edit(policies / "data" / "tenants.yaml", "tier: basic", "tier: gold")
    assert "acme.tier" in refusal(policies)


def test_the_shipped_schemas_are_json_schemas() -> None:
    for path in (shipped_policies() / "data" / "schemas").iterdir():
        Draft202012Validator.check_schema(json.loads(path.read_text()))


@pytest.mark.parametrize("text", ['{"type": "objekt"}', "{"], ids=["no schema", "no JSON"])
def test_a_schema_of_ones_own_that_is_none_is_refused(policies: Path, text: str) -> None:
    file = policies / "data" / "schemas" / "tenants.schema.json"
    file.write_text(text)
    assert refusal(policies).startswith(f"{file}: not a valid JSON schema")


def test_data_that_was_taken_before_is_refused_by_a_stricter_schema(policies: Path) -> None:
    load_bundle(policies)
    edit(policies / "data" / "schemas" / "tenants.schema.json", '"basic"', '"bronze"')
    assert "tier" in refusal(policies)


def test_a_directory_without_policies_is_refused(tmp_path: Path) -> None:
    assert "holds no .rego file" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "is not a directory" in refusal(tmp_path / "file")


def test_a_bundle_cannot_be_changed() -> None:
    bundle = load_bundle(shipped_policies())
    with pytest.raises(TypeError):
        bundle.modules["x"] = ""  # type: ignore[index]
    with pytest.raises(AttributeError):
        bundle.revision = ""  # type: ignore[misc]


def test_a_written_bundle_is_what_opa_reads(policies: Path, tmp_path: Path) -> None:
    bundle: Bundle = load_bundle(policies)
    written = write_bundle(bundle, tmp_path / "out")
    assert json.loads((written / ".manifest").read_text())["revision"] == bundle.revision
    assert not list(written.rglob("*_test.rego"))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".out")]
