"""A version appears whole or not at all; what is kept is signed; what is refused leaves nothing."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dataset_guard
from dataset_guard.registry import record as records
from dataset_guard.registry.store import Registry
from guard_core.config import Settings
from guard_core.errors import Denied, Tampered, Undecidable, UserError
from guard_core.findings import Verdict
from guard_core.home import Home
from guard_core.policy.bundle import shipped_policies
from guard_core.testing import captured_audit, engine_of, temporary_home

FORK = multiprocessing.get_context("fork")
STEPS = ["scanned", "staged", "decided", "signed", "published", "recorded", "committed"]


def table(rows=300, seed=1):
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "x": rng.normal(size=rows),
            "text": [f"row {i} {rng.integers(0, 10**9)}" for i in range(rows)],
            "label": rng.integers(0, 3, rows),
        }
    )


@pytest.fixture
def home():
    with temporary_home() as home:
        yield home


@pytest.fixture
def path(tmp_path):
    pq.write_table(table(), tmp_path / "data.parquet")
    return tmp_path / "data.parquet"


def register(home, data, name="digits", **options):
    return dataset_guard.register(
        data, **{"name": name, "tenant": "acme", "label": "label", "home": home, **options}
    )


def stored(home):
    """Everything under datasets/ that is not a lock."""
    root = home.path("datasets")
    found = [p.relative_to(root).as_posix() for p in root.rglob("*")] if root.exists() else []
    return [p for p in found if p.endswith(("json", "arrow", "html", "parquet")) or ".staging/" in p]


def test_a_registration_is_numbered_judged_signed_and_on_record(home, path):
    with captured_audit(home) as audit:
        report = register(home, path, split="train")
    assert (report.ref, report.verdict, report.rows, report.columns) == (
        "acme/digits@1",
        Verdict.ALLOW,
        300,
        3,
    )
    assert report.report_path.is_file()
    assert report.fingerprint == dataset_guard.fingerprint(path).fingerprint
    assert audit.kinds == ["decision", "dataset.registered"] or "dataset.registered" in audit.kinds
    event = next(r for r in audit.records if r["kind"] == "dataset.registered")
    assert (event["subject"], event["decision_id"]) == (report.ref, report.decision_id)
    version = Registry(home).get("digits", tenant="acme")
    record = Registry(home).record(version)
    assert record["content"]["fingerprint"] == version.fingerprint == report.fingerprint
    assert [f["path"] for f in record["source"]["files"]] == ["data.parquet"]
    envelope = json.loads((version.folder / records.ENVELOPE).read_text())
    statement = home.signer.verify(envelope)
    assert statement["subject"][0]["digest"]["dg1"] == report.fingerprint.removeprefix("dg1:")
    assert not list(home.path("datasets", ".staging").iterdir())


def test_registering_again_makes_the_next_version_and_keeps_the_first(home, path):
    first = register(home, path, checks=[])
    second = register(home, path, checks=[])
    assert (first.version, second.version) == (1, 2)
    assert Registry(home).get("digits@1", tenant="acme").fingerprint == first.fingerprint
    assert Registry(home).get("digits", tenant="acme").version == 2


def test_a_frame_is_kept_so_that_it_can_be_read_again(home):
    frame = pd.DataFrame({"a": [1, 2, 3], "label": ["x", "y", "x"]})
    register(home, frame, checks=[])
    reference = Registry(home).reference("digits@1", tenant="acme")
    kept = pa.Table.from_batches(reference.open().stream()).to_pydict()
    assert kept == {"a": [1, 2, 3], "label": ["x", "y", "x"]}
    assert dataset_guard.verify("digits@1", tenant="acme", home=home).ok


def test_a_table_that_parquet_would_change_is_kept_in_arrow(home):
    steps = pa.array([(1, 2, 3)] * 5, pa.month_day_nano_interval())
    register(home, pa.table({"i": steps, "label": [1, 2, 1, 2, 1]}), checks=[])
    reference = Registry(home).reference("digits@1", tenant="acme")
    assert reference.open().kind == "arrow"
    assert dataset_guard.fingerprint(reference.open()).fingerprint == reference.version.fingerprint


def test_a_scan_keeps_nothing_but_says_the_same(home, path):
    report = dataset_guard.scan(path, name="digits", tenant="acme", label="label", home=home)
    assert report.version is None
    assert report.decision_id
    assert stored(home) == []
    assert register(home, path).fingerprint == report.fingerprint


def test_the_sidecar_serves_hashes_in_row_order_with_and_without_the_label(home, path):
    register(home, path, checks=[])
    relabelled = table().set_column(2, "label", pa.array([9] * 300))
    register(home, relabelled, name="relabelled", checks=[])
    first, second = (Registry(home).reference(n, tenant="acme") for n in ("digits", "relabelled"))
    assert (first.feature_hashes() == second.feature_hashes()).all()
    assert not (first.row_hashes() == second.row_hashes()).all(axis=1).any()
    assert (first.row_window(100, 7) == first.row_hashes()[100:107]).all()
    ordered = first.sorted_row_hashes()
    assert sorted(map(tuple, first.row_hashes().tolist())) == list(map(tuple, ordered.tolist()))


def test_two_tenants_keep_unrelated_hashes_of_the_same_rows(home, path):
    register(home, path, checks=[])
    register(home, path, tenant="beta", checks=[])
    a, b = (Registry(home).reference("digits@1", tenant=t).row_hashes() for t in ("acme", "beta"))
    assert not np.isin(a, b).any()


# --- names, aliases ------------------------------------------------------------------------------


def test_an_alias_is_a_name_for_one_version_and_can_be_moved(home, path):
    register(home, path, checks=[])
    register(home, path, checks=[])
    registry = Registry(home)
    registry.set_alias(registry.get("digits@1", tenant="acme"), "production")
    assert registry.get("acme/digits@production", tenant="beta").version == 1
    registry.set_alias(registry.get("digits@2", tenant="acme"), "production")
    assert registry.get("digits@production", tenant="acme").version == 2
    assert registry.aliases("digits", tenant="acme") == {"production": 2}


@pytest.mark.parametrize(
    "text", ["", "a b", "x@", "x@0", "x@-1", "/x", "../x@1", "x@1@2", "Acme/x@1", "a/b/c"]
)
def test_what_is_no_reference_is_refused(home, text):
    with pytest.raises(UserError, match="is not a dataset reference"):
        Registry(home).find(text, tenant="acme")


def test_a_missing_version_is_refused_with_what_there_is(home, path):
    register(home, path, checks=[])
    with pytest.raises(UserError, match="the newest version of digits is 1"):
        Registry(home).get("digits@7", tenant="acme")
    with pytest.raises(UserError, match="acme has digits"):
        Registry(home).get("numbers", tenant="acme")


# --- two writers, kill -9, full disk -------------------------------------------------------------


def _write_many(settings, seed, count):
    with Home.open(settings) as home:
        for i in range(count):
            register(home, table(50, seed * 100 + i), checks=[])


def test_writers_at_the_same_time_neither_lose_nor_double_a_version(home):
    writers = [FORK.Process(target=_write_many, args=(home.settings, seed, 5)) for seed in (1, 2, 3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [w.exitcode for w in writers] == [0, 0, 0]
    registry = Registry(home)
    versions = registry.versions("digits", tenant="acme")
    assert [v.version for v in versions] == list(range(1, 16))
    assert len({registry.record(v)["content"]["fingerprint"] for v in versions}) == 15
    events = [r["subject"] for r in home.audit.records(kind="dataset.registered")]
    assert sorted(events) == sorted(v.ref for v in versions)


def _die_at(settings, step):
    def kill(done):
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    with Home.open(settings) as home:
        register(home, table(200, 9), steps=kill, checks=[])


@pytest.mark.parametrize("step", STEPS)
def test_kill_9_leaves_a_whole_version_or_none_and_leftovers_are_swept(home, step):
    register(home, table(200, 8), checks=[])
    process = FORK.Process(target=_die_at, args=(home.settings, step))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    expected = 2 if step == "committed" else 1
    registry = Registry(home)
    assert [v.version for v in registry.versions("digits", tenant="acme")] == list(range(1, expected + 1))
    after = register(home, table(200, 10), checks=[])
    assert after.version == expected + 1
    for version in registry.versions("digits", tenant="acme"):
        assert dataset_guard.verify(version.ref, home=home, tenant="acme").ok
    folders = sorted(p.name for p in home.path("datasets", "acme", "digits").iterdir() if p.is_dir())
    assert folders == [str(v) for v in range(1, expected + 2)]
    assert not list(home.path("datasets", ".staging").iterdir())
    swept = step in ("published", "recorded")
    assert bool(list(home.audit.records(kind="dataset.swept"))) == swept


def _register_with_small_files(settings, limit, queue):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        with Home.open(settings) as home:
            register(home, table(60_000), checks=[])
        queue.put("registered")
    except UserError as error:
        queue.put(str(error))


def refused_for_space(home, target, args):
    queue = FORK.Queue()
    process = FORK.Process(target=target, args=(home.settings, *args, queue))
    process.start()
    sentence = queue.get(timeout=120)
    process.join()
    assert "cannot be stored" in sentence
    assert "nothing was stored" in sentence
    assert stored(home) == []
    assert Registry(home).names(tenant="acme") == []


def test_a_file_that_grows_too_large_for_the_system_stores_nothing(home):
    home.principal(tenant="acme")  # the home exists, with its database and keys
    refused_for_space(home, _register_with_small_files, (1 << 20,))


def test_a_full_disk_stores_nothing(home, tmp_path):
    home.principal(tenant="acme")
    place = home.path("datasets")
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        with pytest.raises(UserError, match=r"No space left.*nothing was stored"):
            register(home, table(60_000), checks=[])
        assert stored(home) == []
        assert Registry(home).names(tenant="acme") == []
    finally:
        subprocess.run(["umount", place], check=True)


# --- what is refused -----------------------------------------------------------------------------


REFUSED = {
    "an unknown label": ({"label": "zz"}, "no label column 'zz'"),
    "a label of nulls": ({"label": "empty"}, "holds only nulls"),
    "a label of lists": ({"label": "lists"}, "holds nested values (list<item: int64>)"),
    "an unknown split": ({"split": "dev"}, "none of train, validation, test"),
    "an unknown tenant": ({"tenant": "nobody"}, "no tenant 'nobody'"),
    "a bad name": ({"name": "../x"}, "cannot be used"),
    "an unknown trusted version": ({"trusted": "digits@1"}, "no dataset 'digits@1'"),
    "an unknown other set": ({"against": ["digits@1"]}, "no dataset 'digits@1'"),
    "an evaluation suite that is nowhere": (
        {"evaluation": ["gsm.jsonl"]},
        "there is no file gsm.jsonl, and as",
    ),
    "no rows": ({"data": table(0)}, "the table data has no rows"),
    "a missing file": ({"data": "nothing.parquet"}, "no file or folder"),
    "no columns": ({"data": pa.table({})}, "no rows"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_a_mistake_is_one_sentence_and_stores_nothing(home, case):
    options, said = REFUSED[case]
    data = table().append_column("empty", pa.nulls(300, pa.int64()))
    data = data.append_column("lists", pa.array([[1]] * 300))
    with pytest.raises(UserError) as caught:
        register(home, **{"data": data, **options})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert stored(home) == []


def test_a_column_of_nulls_that_is_not_the_label_is_no_error(home):
    data = table().append_column("empty", pa.nulls(300, pa.int64()))
    assert register(home, data).version == 1


def test_a_data_set_of_another_tenant_is_never_compared(home, path):
    register(home, path, tenant="beta", name="secret", checks=[])
    with pytest.raises(Denied, match="another tenant"):
        register(home, path, against=["beta/secret@1"], checks=[])


def test_policy_that_refuses_stores_nothing_and_is_on_record(path):
    denial = '{"allow": false, "deny": [{"rule": "no", "msg": "not today"}]}'
    rego = f"package guard.dataset.registration\ndecision := {denial}"
    with temporary_home(policy=engine_of({"x.rego": rego})) as home:
        with pytest.raises(Denied, match="not today") as caught:
            register(home, path, checks=[])
        assert caught.value.decision_id
        assert home.decision_record(caught.value.decision_id) is not None
        assert stored(home) == []
        assert dataset_guard.scan(path, tenant="acme", home=home).verdict == Verdict.DENY


@pytest.mark.parametrize("rego", ["package other", 'package guard.dataset.registration\ndecision := "yes"'])
def test_policy_without_an_answer_is_undecidable_and_stores_nothing(path, rego):
    with temporary_home(policy=engine_of({"x.rego": rego})) as home:
        with pytest.raises(Undecidable, match="no decision"):
            register(home, path, checks=[])
        assert stored(home) == []


def test_policy_without_a_verdict_is_undecidable(path):
    rego = 'package guard.dataset.registration\ndecision := {"allow": true, "deny": []}'
    with (
        temporary_home(policy=engine_of({"x.rego": rego})) as home,
        pytest.raises(Undecidable, match="no verdict"),
    ):
        register(home, path, checks=[])


def test_a_broken_policy_folder_is_found_before_the_data_is_read(tmp_path, path):
    folder = shutil.copytree(shipped_policies(), tmp_path / "policies")
    (folder / "guard" / "bad.rego").write_text("package guard.bad\nthis is not rego {")
    settings = Settings(home=tmp_path / "home", policy={"dir": folder})
    with Home.open(settings) as home, pytest.raises(UserError, match=r"bad\.rego"):
        register(home, path, steps=lambda step: pytest.fail(step))


def test_a_tier_that_requires_all_checks_records_nothing_that_skipped_one(tmp_path, path):
    folder = shutil.copytree(shipped_policies(), tmp_path / "policies")
    tenants = folder / "data" / "tenants.yaml"
    tenants.write_text(tenants.read_text().replace("tier: basic", "tier: strict", 1))
    with Home.open(Settings(home=tmp_path / "home", policy={"dir": folder})) as home:
        with pytest.raises(Denied, match=r"left out: .*secrets.* \[checks-required\]"):
            register(home, path, checks=["schema"])
        assert stored(home) == []
        assert register(home, path).version == 1


def test_a_quarantined_version_cannot_be_the_trusted_one(path):
    rego = 'package guard.dataset.registration\ndecision := {"allow": true, "verdict": "quarantine"}'
    with temporary_home(policy=engine_of({"x.rego": rego})) as home:
        assert register(home, path, checks=[]).verdict == Verdict.QUARANTINE
        with pytest.raises(UserError, match="cannot be the trusted version"):
            register(home, path, trusted="digits@1", checks=[])


def test_data_that_changes_while_it_is_read_is_refused(home, path):
    def touch(progress):
        pq.write_table(table(300, 2), path)

    with pytest.raises(UserError, match="changed while it was read"):
        register(home, path, progress=touch)
    assert stored(home) == []


def test_nothing_stored_holds_a_cell_value(home):
    secret = "s3cr3t-cell-value"
    data = table().append_column("note", pa.array([secret] * 300))
    report = register(home, data, name="notes", label="note")
    folder = report.report_path.parent
    for file in folder.iterdir():
        if file.is_file():
            assert secret.encode() not in file.read_bytes(), file.name
    for file in Path(home.settings.home, "audit").glob("*.jsonl"):
        assert secret not in file.read_text()


def test_a_changed_row_in_the_database_is_found(home, path):
    from sqlalchemy import update

    from guard_core.storage.tables import DatasetVersionRow

    register(home, path, checks=[])
    with home.storage.session() as session:
        session.execute(update(DatasetVersionRow).values(verdict="warn"))
    with pytest.raises(Tampered, match="another verdict"):
        Registry(home).reference("digits@1", tenant="acme")
    [fact] = home.dataset_facts(["digits@1"], principal=home.principal(tenant="acme"))
    assert (fact["tampered"], fact["record_ok"], fact["verdict"]) == (True, False, "unknown")


def test_a_home_that_was_moved_still_has_its_records(home, path, tmp_path):
    register(home, path)
    shutil.copytree(home.settings.home, tmp_path / "moved", symlinks=True)
    with Home.open(Settings(home=tmp_path / "moved")) as moved:
        assert dataset_guard.verify("digits@1", tenant="acme", home=moved).ok
