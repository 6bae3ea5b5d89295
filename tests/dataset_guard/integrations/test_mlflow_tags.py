"""Tags in our name on a server with the gate: true ones pass, others are refused, marks stay."""

import pyarrow as pa
import pytest

import dataset_guard
from dataset_guard.integrations.mlflow_fields import input_tags
from dataset_guard.integrations.mlflow_server import tag_change
from dataset_guard.integrations.mlflow_tags import TagChange, tag_refusal
from guard_core.testing import temporary_home

ROWS = pa.table({"x": [float(i) for i in range(40)], "label": [0, 1] * 20})
KEY = "guard.dataset.training"


@pytest.fixture(scope="module")
def home():
    """One for all: no test here changes it, except that versions are added."""
    with temporary_home() as opened:
        yield opened


@pytest.fixture(scope="module")
def good(home):
    return dataset_guard.register(ROWS, name="good", tenant="acme", home=home, checks=[])


@pytest.fixture(scope="module")
def bad(home, good):
    against = {"against": ["good@1"], "checks": ["exact_overlap"]}
    found = dataset_guard.register(ROWS, name="bad", tenant="acme", label="label", home=home, **against)
    assert found.verdict.value == "quarantine"
    return found


@pytest.fixture(scope="module")
def lin(home):
    return home.credentials.issue(tenant="acme", user="lin")


def refused(home, token, put, removed=(), present=()):
    return tag_refusal(home, token, TagChange(list(dict(put).items()), removed, lambda: dict(present)))


def test_what_our_client_sets_passes_for_one_and_for_several_versions(home, good, lin):
    assert refused(home, lin, input_tags(good, "training", {})) is None
    other = dataset_guard.register(ROWS.slice(0, 20), name="more", tenant="acme", home=home, checks=[])
    both = input_tags(other, "training", input_tags(good, "training", {}))
    assert both[KEY] == "acme/good@1, acme/more@1"
    assert refused(home, lin, both) is None


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
def test_a_tag_that_the_registry_does_not_say_is_refused(home, good, lin, altered):
    assert refused(home, lin, {**input_tags(good, "training", {}), **altered})


def test_a_quarantined_version_is_no_training_input_in_tags_either(home, bad, lin):
    assert "quarantined" in refused(home, lin, input_tags(bad, "training", {}))
    assert refused(home, lin, input_tags(bad, "registration", {})) is None


def test_another_tenants_names_are_not_told(home, good):
    stranger = home.credentials.issue(tenant="beta", user="eve")
    there = refused(home, stranger, input_tags(good, "training", {}))
    nowhere = refused(home, stranger, {KEY: "acme/nothing@1"})
    assert there == "acme/good@1 is not there, or is not shared with you"
    assert nowhere == "acme/nothing@1 is not there, or is not shared with you"


def test_marks_are_added_and_not_taken_away(home, lin):
    mark, present = "guard.tainted_by", {"guard.tainted_by": "acme/old@1"}
    more = {mark: "acme/old@1, acme/bad@1", f"{mark}.reason": "labels were wrong"}
    assert refused(home, lin, more, present=present) is None
    for change in ({mark: "acme/bad@1"}, {mark: ""}):
        assert "only a platform admin" in refused(home, lin, change, present=present)
    assert "only a platform admin" in refused(home, lin, {}, removed=[mark])
    assert "another tenant" in refused(home, lin, {mark: "beta/x@1"})
    home.principal()  # makes the admin's credential at first use
    admin = (home.path("credentials") / "local.token").read_text().strip()
    assert refused(home, admin, {mark: ""}, removed=[mark], present=present) is None


def test_who_says_it_must_be_known_and_other_tags_are_nobodys_business(home, good):
    assert "MLFLOW_TRACKING_TOKEN" in refused(home, None, input_tags(good, "training", {}))
    assert refused(home, None, {"guard.plugin_version": "1", "team": "x", "guard.tenant": "acme"}) is None
    assert refused(home, None, {}, removed=["team"]) is None


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
