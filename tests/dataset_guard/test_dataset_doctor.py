"""The doctor really hashes, and really reads each record."""

import pyarrow as pa

import dataset_guard
from dataset_guard.doctor import probes
from dataset_guard.registry.store import Registry
from guard_core.testing import temporary_home

DATA = pa.table({"x": [1.0, 2.0]})


def found(home):
    return {(p.name, p.status): p.message for p in probes(home.settings)}


def test_a_new_home_is_well():
    with temporary_home() as home:
        assert {status for _, status in found(home)} == {"ok", "info"}
        assert ("row hashes", "ok") in found(home)


def test_a_damaged_record_is_broken_and_named():
    with temporary_home() as home:
        for _ in range(2):
            dataset_guard.register(DATA, name="d", tenant="acme", home=home, checks=[])
        assert found(home)[("versions", "ok")].startswith("2 signed records")
        (Registry(home).get("d@1", tenant="acme").folder / "record.dsse.json").write_text("{}")
        assert ("acme/d@1", "broken") in found(home)
