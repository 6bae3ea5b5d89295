"""``trainguard dataset``: what it prints, what it returns, and what it leaves when it fails."""

import importlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from guard_core.cli import main
from guard_core.policy.bundle import shipped_policies

ROWS = 400


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder, which is the working directory, with ``t.parquet`` in it."""
    folder = tmp_path / "work"
    folder.mkdir()
    rng = np.random.default_rng(1)
    table = pa.table(
        {
            "x": rng.normal(size=ROWS),
            "s": [f"value {i}" for i in range(ROWS)],
            "empty": pa.nulls(ROWS, pa.string()),
            "label": rng.integers(0, 2, ROWS),
        }
    )
    pq.write_table(table, folder / "t.parquet")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(home_dir, data, capsys):
    """Runs the command; gives (status, stdout, stderr)."""

    def command(*args):
        capsys.readouterr()
        status = main(["dataset", *args])
        out, err = capsys.readouterr()
        return status, out, err

    return command


def registered(run, *more):
    status, out, err = run(
        "register", "t.parquet", "--name", "t", "--tenant", "acme", "--fail-on", "never", *more
    )
    assert status == 0, err
    return out


def test_register_prints_the_documented_json_alone_on_stdout(run):
    report = json.loads(registered(run, "--label", "label", "--format", "json"))
    assert list(report) == [
        "name", "version", "fingerprint", "digest", "rows", "columns", "verdict", "decision_id",
        "report_path", "findings",
    ]  # fmt: skip
    assert (report["name"], report["version"], report["rows"], report["columns"]) == ("t", 1, ROWS, 4)
    assert report["digest"] == report["fingerprint"][:36]


@pytest.mark.parametrize("output_format", ["text", "sarif", "junit", "html"])
def test_every_format_is_printed(run, output_format):
    out = registered(run, "--format", output_format)
    assert {"text": "acme/t@1", "sarif": "2.1.0", "junit": "<testsuite", "html": "<!doctype html>"}[
        output_format
    ].lower() in out.lower()


def test_scan_keeps_nothing(run, home_dir):
    status, out, _ = run("scan", "t.parquet", "--format", "json", "--fail-on", "never")
    assert (status, json.loads(out)["version"]) == (0, None)
    assert run("list")[1] == ""


def test_a_critical_finding_is_status_one_unless_told_otherwise(run, data):
    table = pq.read_table("t.parquet")
    pq.write_table(pa.concat_tables([table, table]), "twice.parquet")
    registered(run)
    args = (
        "scan",
        "t.parquet",
        "--tenant",
        "acme",
        "--split",
        "test",
        "--against",
        "t@1",
        "--format",
        "json",
    )
    status, out, _ = run(*args)
    findings = json.loads(out)["findings"]
    assert any(f["severity"] == "critical" for f in findings)
    assert status == 1
    assert run(*args, "--fail-on", "never")[0] == 0


def test_fingerprint_prints_the_documented_json(run):
    status, out, _ = run("fingerprint", "t.parquet", "--format", "json")
    found = json.loads(out)
    assert status == 0
    assert list(found) == [
        "fingerprint",
        "sequence_root",
        "schema_root",
        "set_root",
        "rows",
        "bytes",
        "seconds",
    ]
    assert run("fingerprint", "t.parquet")[1].strip() == found["fingerprint"]
    without = json.loads(run("fingerprint", "t.parquet", "--no-set-root", "--format", "json")[1])
    assert (without["fingerprint"], without["set_root"]) == (found["fingerprint"], None)


def test_fingerprint_needs_no_home(data, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINGUARD_HOME", str(tmp_path / "nowhere"))
    assert main(["dataset", "fingerprint", "t.parquet"]) == 0
    assert not (tmp_path / "nowhere").exists()


def test_verify_says_ok_and_then_names_the_change(run, data):
    registered(run)
    status, out, _ = run("verify", "acme/t@1", "--format", "json")
    assert (status, json.loads(out)["ok"], json.loads(out)["changes"]) == (0, True, [])
    table = pq.read_table("t.parquet")
    labels = table["label"].to_pylist()
    labels[17] = 1 - labels[17]
    pq.write_table(table.set_column(3, "label", pa.array(labels)), "t.parquet")
    status, out, _ = run("verify", "t@1", "--tenant", "acme", "--format", "json")
    assert status == 1
    assert json.loads(out)["changes"] == [{"file": "t.parquet", "block": 0, "column": "label", "rows": [17]}]
    assert "t.parquet, block 0, column label, row 17" in run("verify", "acme/t@1")[1]


def test_a_tampered_record_is_status_one(run, home_dir):
    registered(run)
    record = home_dir / "datasets" / "acme" / "t" / "1" / "record.json"
    record.write_text(record.read_text().replace('"verdict"', '"verdicts"'))
    status, out, err = run("verify", "acme/t@1")
    assert (status, out) == (1, "")
    assert "is not what was signed" in err


def test_diff_of_two_versions(run, data):
    registered(run)
    table = pq.read_table("t.parquet")
    pq.write_table(table.slice(3), "t.parquet")
    registered(run)
    status, out, _ = run("diff", "acme/t@1", "acme/t@2", "--format", "json")
    assert status == 0
    assert json.loads(out)["removed"] == {"count": 3, "rows": [0, 1, 2]}
    assert "3 rows removed: 0" in run("diff", "t@1", "t@2", "--tenant", "acme")[1]


def test_show_list_and_alias(run):
    registered(run)
    registered(run)
    assert run("alias", "acme/t@1", "stable")[0] == 0
    status, out, _ = run("show", "acme/t@stable", "--format", "json")
    assert (status, json.loads(out)["version"]) == (0, 1)
    assert json.loads(run("show", "t", "--tenant", "acme", "--format", "json")[1])["version"] == 2
    listed = json.loads(run("list", "--format", "json")[1])
    assert [(v["ref"], v["aliases"]) for v in listed] == [("acme/t@1", ["stable"]), ("acme/t@2", [])]
    assert "  @stable\n" in run("list")[1]
    assert "newest version of t is 2, its aliases are stable" in run("show", "acme/t@new")[2]
    assert run("list", "--tenant", "beta")[1] == ""


MISTAKES = {
    "a missing file": (("register", "none.parquet", "--name", "t"), "no file or folder none.parquet"),
    "an empty file": (("register", "empty.csv", "--name", "t"), "empty.csv is empty"),
    "a truncated Parquet file": (("register", "cut.parquet", "--name", "t"), "cut.parquet is damaged"),
    "a short row": (("register", "ragged.csv", "--name", "t"), "ragged.csv row 3 has 1 field "),
    "duplicate columns": (("register", "twins.csv", "--name", "t"), "two columns named 'a'"),
    "bytes that are not UTF-8": (
        ("register", "latin.csv", "--name", "t"),
        "latin.csv is not UTF-8 at line 2",
    ),
    "no rows": (("register", "header.csv", "--name", "t"), "has no rows"),
    "an unknown extension": (("register", "t.docx", "--name", "t"), "extension '.docx'"),
    "an unknown label": (("register", "t.parquet", "--name", "t", "--label", "zz"), "no label column 'zz'"),
    "a label of nulls": (("register", "t.parquet", "--name", "t", "--label", "empty"), "holds only nulls"),
    "an unknown tenant": (("register", "t.parquet", "--name", "t", "--tenant", "zz"), "no tenant 'zz'"),
    "a bad name": (("register", "t.parquet", "--name", "a/b"), "cannot be used"),
    "an unknown check": (("register", "t.parquet", "--name", "t", "--checks", "zz"), "zz"),
    "a setting no check has": (
        ("register", "t.parquet", "--name", "t", "--set", "schema.zz=1"),
        "check 'schema' has no parameter 'zz'",
    ),
    "a setting of another kind": (
        ("register", "t.parquet", "--name", "t", "--set", "schema.label_nulls_critical=lots"),
        "takes a number, not 'lots'",
    ),
    "an unknown reference": (
        ("register", "t.parquet", "--name", "t", "--trusted", "t@9"),
        "no dataset 't@9'",
    ),
    "a missing suite": (
        ("register", "t.parquet", "--name", "t", "--suite", "zz.json"),
        "no suite file zz.json",
    ),
    "a broken suite": (
        ("register", "t.parquet", "--name", "t", "--suite", "ragged.csv"),
        "not readable JSON",
    ),
    "an unknown option value": (("register", "t.parquet", "--name", "t", "--split", "zz"), "'zz'"),
    "no name": (("register", "t.parquet"), "--name"),
    "verify of nothing": (("verify", "t@1"), "no dataset 't@1'"),
    "show of no reference": (("show", "a b"), "not a dataset reference"),
}


@pytest.mark.parametrize("case", sorted(MISTAKES))
def test_a_mistake_is_one_sentence_status_two_and_stores_nothing(run, data, home_dir, case):
    (data / "empty.csv").touch()
    (data / "cut.parquet").write_bytes((data / "t.parquet").read_bytes()[:900])
    (data / "ragged.csv").write_text("a,b\n1,2\n3\n")
    (data / "twins.csv").write_text("a,a\n1,2\n")
    (data / "latin.csv").write_bytes("a\né\n".encode("latin-1"))
    (data / "header.csv").write_text("a,b\n")
    (data / "t.docx").write_text("x")
    args, said = MISTAKES[case]
    status, out, err = run(*args)
    assert (status, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert "Traceback" not in err
    assert run("list")[1] == ""
    assert not list(home_dir.glob("datasets/*/*/[0-9]*"))


def test_a_setting_of_a_check_is_used_and_kept_with_the_version(run):
    registered(run, "--set", "schema.label_nulls_critical=0.25")
    told = json.loads(run("show", "acme/t@1", "--format", "json")[1])
    (schema,) = (c for c in told["checks"] if c["name"] == "schema")
    assert schema["parameters"] == {"label_nulls_critical": 0.25}


def test_a_column_of_nulls_is_a_finding_not_a_mistake(run):
    report = json.loads(registered(run, "--label", "label", "--format", "json"))
    assert report["version"] == 1
    assert [(f["rule_id"], f["columns"]) for f in report["findings"]] == [("QUAL010", ["empty"])]


def with_policies(tmp_path, monkeypatch, change):
    folder = shutil.copytree(shipped_policies(), tmp_path / "policies")
    change(folder)
    monkeypatch.setenv("TRAINGUARD_POLICY_DIR", str(folder))


def test_malformed_policies_are_status_two_and_store_nothing(run, tmp_path, monkeypatch):
    with_policies(
        tmp_path, monkeypatch, lambda f: (f / "guard" / "bad.rego").write_text("package guard.bad\nnot {")
    )
    status, out, err = run("register", "t.parquet", "--name", "t")
    assert (status, out) == (2, "")
    assert "bad.rego" in err
    monkeypatch.delenv("TRAINGUARD_POLICY_DIR")
    assert run("list")[1] == ""


def test_policies_without_an_answer_are_status_three_and_store_nothing(run, tmp_path, monkeypatch):
    def remove(folder):
        shutil.rmtree(folder / "guard" / "dataset" / "registration")

    with_policies(tmp_path, monkeypatch, remove)
    status, out, err = run("register", "t.parquet", "--name", "t")
    assert (status, out) == (3, "")
    assert "nothing was stored" in err
    monkeypatch.delenv("TRAINGUARD_POLICY_DIR")
    assert run("list")[1] == ""


def test_an_engine_that_is_down_is_status_three_and_stores_nothing(run, monkeypatch):
    monkeypatch.setenv("TRAINGUARD_POLICY_ENGINE", "server")
    monkeypatch.setenv("TRAINGUARD_POLICY_SERVER_URL", "http://127.0.0.1:9")
    status, out, _ = run("register", "t.parquet", "--name", "t")
    assert (status, out) == (3, "")
    assert run("list")[1] == ""


def test_a_tenant_sees_and_registers_only_its_own(run, home, monkeypatch):
    registered(run)
    token = home.credentials.issue(tenant="beta", user="bob")
    monkeypatch.setenv("TRAINGUARD_TOKEN", token)
    assert run("list")[1] == ""
    assert run("show", "acme/t@1")[0] == 1
    assert run("verify", "acme/t@1")[0] == 1
    assert run("register", "t.parquet", "--name", "t", "--tenant", "acme")[0] == 1
    assert run("register", "t.parquet", "--name", "t", "--fail-on", "never")[0] == 0
    assert run("list")[1].startswith("beta/t@1")


def test_the_command_in_a_process_of_its_own(data, home_dir):
    script = "import sys; from guard_core.cli import main; sys.exit(main())"
    command = [
        sys.executable,
        "-c",
        script,
        "dataset",
        "register",
        "t.parquet",
        "--name",
        "t",
        "--format",
        "json",
    ]
    environment = {**os.environ, "TRAINGUARD_HOME": str(home_dir)}
    done = subprocess.run([*command, "--fail-on", "never"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] == 1


def test_importing_the_package_is_light():
    heavy = ("pyarrow", "numpy", "numba", "ray", "sqlalchemy")
    code = f"import sys, dataset_guard; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_functions_of_the_package_are_not_hidden_by_modules_of_the_same_name():
    import dataset_guard

    for place in set(dataset_guard._HOME_OF.values()):
        importlib.import_module(f"dataset_guard.{place}")
    for name in set(dataset_guard.__all__) - {"ray_data"}:
        assert callable(getattr(dataset_guard, name)), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dataset_guard.nothing
