"""Facts for policy come from the signed record, and what is not there says so."""

import pyarrow as pa
import pytest

import dataset_guard
from dataset_guard.registry import record as records
from dataset_guard.registry.store import Registry
from guard_core.testing import temporary_home

DATA = pa.table({"x": [1.0, 2.0, 3.0], "label": [0, 1, 0]})


@pytest.fixture
def home():
    with temporary_home() as home:
        dataset_guard.register(DATA, name="digits", tenant="acme", label="label", home=home, checks=[])
        yield home


def facts(home, *refs, tenant="acme"):
    return home.dataset_facts(list(refs), principal=home.principal(tenant=tenant))


def test_a_registered_version_is_signed_and_intact(home):
    for text in ("digits", "digits@1", "acme/digits@1"):
        [fact] = facts(home, text)
        assert fact["ref"] == "acme/digits@1"
        assert (fact["exists"], fact["signed"], fact["record_ok"], fact["tampered"]) == (
            True,
            True,
            True,
            False,
        )
        assert fact["verdict"] == "allow"
        assert fact["findings"] == {"critical": 0, "warning": 0, "info": 0}


def test_a_reference_is_seen_from_the_principals_own_tenant(home):
    mine, theirs = facts(home, "digits@1", "acme/digits@1", tenant="beta")
    assert (mine["exists"], mine["tenant"]) == (False, "beta")
    assert (theirs["exists"], theirs["tenant"]) == (True, "acme")


@pytest.mark.parametrize("text", ["nothing", "digits@9", "digits@alias", "not a ref!", ""])
def test_what_does_not_exist_is_a_fact_too(home, text):
    [fact] = facts(home, text)
    assert (fact["exists"], fact["verdict"], fact["signed"]) == (False, "unknown", False)


def test_a_forged_record_has_no_verdict(home):
    folder = Registry(home).get("digits@1", tenant="acme").folder
    (folder / records.RECORD).write_text((folder / records.RECORD).read_text().replace("allow", "warn"))
    [fact] = facts(home, "digits@1")
    assert (fact["tampered"], fact["record_ok"], fact["verdict"]) == (True, False, "unknown")


def test_facts_keep_the_order_of_the_question(home):
    assert [f["ref"] for f in facts(home, "b", "digits", "a")] == ["acme/b", "acme/digits@1", "acme/a"]
