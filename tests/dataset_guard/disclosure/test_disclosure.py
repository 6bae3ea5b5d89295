"""Where data has gone: canaries are found anywhere, recitals by number, another tenant's rows by count."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_guard.disclosure import canary
from dataset_guard.disclosure.disclosed import disclosed
from dataset_guard.disclosure.memorised import memorised
from dataset_guard.registration.register import register
from guard_core.errors import Denied, Tampered, UserError

WORDS = np.array([f"word{i:x}" for i in range(3_000)])


def texts(rows, seed, words=80):
    rng = np.random.default_rng(seed)
    return [" ".join(p) for p in WORDS[rng.integers(0, len(WORDS), (rows, words))]]


def stored(path, rows, seed):
    pq.write_table(pa.table({"n": np.arange(rows), "text": texts(rows, seed)}), path)
    return path


@pytest.fixture
def planted(home, tmp_path):
    data = stored(tmp_path / "set.parquet", 200, 1)
    return canary.add(data, tmp_path / "copy.parquet", name="partner", count=7, tenant="acme", home=home)


def test_a_copy_holds_the_rows_it_says_and_otherwise_the_set(planted, tmp_path):
    copy, whole = pq.read_table(planted.path), pq.read_table(tmp_path / "set.parquet")
    assert copy.num_rows == 207
    mask = np.ones(207, bool)
    mask[list(planted.rows)] = False
    assert copy.filter(pa.array(mask)).equals(whole)


def test_canaries_are_found_in_tables_and_in_plain_text(home, planted, tmp_path):
    (seen,) = canary.scan(planted.path, tenant="acme", home=home)
    assert (seen.id, seen.name, seen.column, seen.markers) == (planted.id, "partner", "text", 7)
    assert seen.places == planted.rows
    sentence = pq.read_table(planted.path)["text"][planted.rows[2]].as_py()
    leaked = tmp_path / "answers.log"
    leaked.write_text(f"hello\nmodel said: {sentence.upper()} bye\n")
    (seen,) = canary.scan(leaked, tenant="acme", home=home)
    assert (seen.column, seen.places, seen.markers) == (None, (1,), 1)
    assert canary.scan(tmp_path / "set.parquet", tenant="acme", home=home) == []


def test_the_record_is_signed_and_holds_no_marker(home, planted):
    (path,) = home.path("canaries", "acme").glob("*.json")
    assert path.stat().st_mode & 0o777 == 0o600
    kept = json.loads(path.read_bytes())
    predicate = home.signer.verify(kept["record"])["predicate"]
    assert predicate["rows"] == list(planted.rows)
    assert not any(marker in json.dumps(predicate) for marker in kept["markers"])
    kept["markers"][0] = "another marker"
    path.write_text(json.dumps(kept))
    with pytest.raises(Tampered, match="not those that were signed"):
        canary.scan(planted.path, tenant="acme", home=home)


def test_what_cannot_be_planted_is_refused_and_leaves_nothing(home, tmp_path):
    numbers = tmp_path / "n.parquet"
    pq.write_table(pa.table({"x": [1, 2]}), numbers)
    for out, message in (("copy.parquet", "no text column"), ("copy.xls", "cannot be written as .xls")):
        with pytest.raises(UserError, match=message):
            canary.add(numbers, tmp_path / out, name="p", tenant="acme", home=home)
    assert not list(tmp_path.glob("*copy*"))
    with pytest.raises(UserError, match="planted no canaries"):
        canary.scan(numbers, tenant="acme", home=home)


def test_outputs_that_recite_the_set_are_told_by_number(home, tmp_path):
    data = stored(tmp_path / "set.parquet", 300, 2)
    register(data, name="corpus", tenant="acme", home=home, checks=[])
    known = pq.read_table(data)["text"].to_pylist()
    middle = " ".join(known[40].split()[10:65])
    outputs = [*texts(20, 9), f"as I recall {middle} and so on", " ".join(known[7].split()[:20])]
    file = tmp_path / "outputs.txt"
    file.write_text("\n".join(outputs))
    found = memorised(file, against="corpus@1", tenant="acme", home=home)
    assert found.outputs == 22
    assert [(r.output, r.rows) for r in found.recitals] == [(20, (40,)), (21, (7,))]
    assert found.recitals[0].longest_run >= 40
    assert not any(word in json.dumps(found.to_json()) for word in middle.split())


def test_rows_of_one_tenant_in_anothers_set_are_counted_for_each_side(home, tmp_path):
    mine = pa.table({"n": np.arange(100), "text": texts(100, 3)})
    copied = mine.slice(90).append_column("extra", pa.array(["x"] * 10))
    own = pa.table({"n": np.arange(50), "text": texts(50, 4), "extra": ["y"] * 50})
    theirs = pa.concat_tables([copied, own])
    for name, tenant, table in (("a", "acme", mine), ("b", "beta", theirs)):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(table, path)
        register(path, name=name, tenant=tenant, home=home, checks=[])
    found = disclosed("acme/a@1", "beta/b@1", home=home)
    assert found.columns == ("n", "text")
    assert list(found.owner.shared) == list(range(90, 100))
    assert list(found.holder.shared) == list(range(10))
    with pytest.raises(UserError, match="both sets are acme's"):
        disclosed("acme/a@1", "acme/a@1", home=home)


def test_a_tenant_may_not_ask_about_another(home, monkeypatch):
    tenant = home.principal(tenant="acme")
    monkeypatch.setattr(type(home), "principal", lambda self, **_: tenant)
    monkeypatch.setattr(type(tenant), "is_platform_admin", property(lambda self: False))
    with pytest.raises(Denied, match="only a platform admin"):
        disclosed("acme/a@1", "beta/b@1", home=home)
