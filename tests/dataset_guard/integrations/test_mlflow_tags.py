"""Tags in our name on a server with the gate: true ones pass, others are refused, marks stay."""

import pytest

import dataset_guard
from dataset_guard.integrations.mlflow_fields import input_tags
from dataset_guard.integrations.mlflow_server import tag_change
from dataset_guard.integrations.mlflow_tags import TagChange, tag_refusal

KEY = "guard.dataset.training"


@pytest.fixture(scope="module")
def bad(gate_home, good, gate_rows):
    against = {"against": ["good@1"], "checks": ["exact_overlap"]}
    found = dataset_guard.register(
        gate_rows, name="bad", tenant="acme", label="label", home=gate_home, **against
    )
    assert found.verdict.value == "quarantine"
    return found


def refused(gate_home, token, put, removed=(), present=()):
    return tag_refusal(gate_home, token, TagChange(list(dict(put).items()), removed, lambda: dict(present)))


def test_what_our_client_sets_passes_for_one_and_for_several_versions(gate_home, good, lin, gate_rows):
    assert refused(gate_home, lin, input_tags(good, "training", {})) is None
    other = dataset_guard.register(
        gate_rows.slice(0, 20), name="more", tenant="acme", home=gate_home, checks=[]
    )
    both = input_tags(other, "training", input_tags(good, "training", {}))
    assert both[KEY] == "acme/good@1, acme/more@1"
    assert refused(gate_home, lin, both) is None


@pytest.mark.parametrize(
    "altered",
    [
        {f"{KEY}.verdict": "warn"},
        {f"{KEY}.fingerprint": "dg1:" + "0" * 64},
        {f"{KEY}.decision_id": "dec-other"},
        {f"{KEY}.approved": "yes"},
        {KEY: "acme/good@2"},
        {KEY: "acme/good"},
        {KEY: "beta/good@1"},
        {"Guard.Dataset.training.verdict": "allow"},
        {" guard.dataset.training.verdict": "allow"},
        {"guard.dataset.test.verdict": "allow"},
    ],
)
def test_a_tag_that_the_registry_does_not_say_is_refused(gate_home, good, lin, altered):
    assert refused(gate_home, lin, {**input_tags(good, "training", {}), **altered})


def test_a_quarantined_version_is_no_training_input_in_tags_either(gate_home, bad, lin):
    assert "quarantined" in refused(gate_home, lin, input_tags(bad, "training", {}))
    assert refused(gate_home, lin, input_tags(bad, "registration", {})) is None


def test_another_tenants_names_are_not_told(gate_home, good):
    stranger = gate_home.credentials.issue(tenant="beta", user="eve")
    there = refused(gate_home, stranger, input_tags(good, "training", {}))
    nowhere = refused(gate_home, stranger, {KEY: "acme/nothing@1"})
    assert there == "acme/good@1 is not there, or is not shared with you"
    assert nowhere == "acme/nothing@1 is not there, or is not shared with you"


def test_marks_are_added_and_not_taken_away(gate_home, lin):
    mark, present = "guard.tainted_by", {"guard.tainted_by": "acme/old@1"}
    more = {mark: "acme/old@1, acme/bad@1", f"{mark}.reason": "labels were wrong"}
    assert refused(gate_home, lin, more, present=present) is None
    for change in ({mark: "acme/bad@1"}, {mark: ""}):
        assert "only a platform admin" in refused(gate_home, lin, change, present=present)
    assert "only a platform admin" in refused(gate_home, lin, {}, removed=[mark])
    assert "another tenant" in refused(gate_home, lin, {mark: "beta/x@1"})
    gate_home.principal()  # makes the admin's credential at first use
    admin = (gate_home.path("credentials") / "local.token").read_text().strip()
    assert refused(gate_home, admin, {mark: ""}, removed=[mark], present=present) is None


def test_who_says_it_must_be_known_and_other_tags_are_nobodys_business(gate_home, good):
    assert "MLFLOW_TRACKING_TOKEN" in refused(gate_home, None, input_tags(good, "training", {}))
    assert (
        refused(gate_home, None, {"guard.plugin_version": "1", "team": "x", "guard.tenant": "acme"}) is None
    )
    assert refused(gate_home, None, {}, removed=["team"]) is None


@pytest.mark.parametrize(
    ("kind", "body", "put", "removed"),
    [
        ("SetTag", {"runId": "r", "key": "k", "value": "v"}, [("k", "v")], []),
        ("CreateRun", {"tags": [{"key": "k", "value": "v"}]}, [("k", "v")], []),
        ("LogBatch", {"run_id": "r", "tags": [{"key": "k", "value": "v"}]}, [("k", "v")], []),
        ("DeleteTag", {"run_id": "r", "key": "k"}, [], ["k"]),
        ("SetTag", {"key": 3}, [], []),
    ],
)
def test_a_body_is_read_as_mlflow_reads_it(kind, body, put, removed):
    change = tag_change(body, kind)
    assert (list(change.put), list(change.removed)) == (put, removed)
