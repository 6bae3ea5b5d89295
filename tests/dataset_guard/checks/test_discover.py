"""Checks come from entry points; a third party's package is installed for real and found."""

import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from dataset_guard.checks.discover import GROUP, configured, discover, select
from guard_core.errors import UserError

PLUGIN = Path(__file__).parents[2] / "example_plugin"

SCAN = """
import datetime, json, pyarrow as pa
from dataset_guard.checks.base import CheckContext
from dataset_guard.reading import open_source
from dataset_guard.scanning.scan import scan_source
table = pa.table({"day": [datetime.date(2020, 1, 1), None, datetime.date(2090, 1, 1)]})
result = scan_source(open_source(table), CheckContext(schema=table.schema), row_key=None)
print(json.dumps({"findings": [f.to_json() for f in result.findings], "checks": list(result.checks)}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The example package, built from a copy and installed into a folder of its own."""
    import shutil

    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(PLUGIN, source)
    target = tmp_path_factory.mktemp("target")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, capture_output=True)
    return target


def points(folder):
    return [p for d in distributions(path=[str(folder)]) for p in d.entry_points if p.group == GROUP]


def test_a_third_partys_check_is_found_and_runs_in_a_scan(installed):
    import json

    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", SCAN], env=environment, capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout)
    found = [f for f in result["findings"] if f["rule_id"] == "QUAL900"]
    assert [(f["rows"], f["check"]) for f in found] == [([2], "future_dates")]
    ran = {c["name"]: c for c in result["checks"]}
    assert ran["future_dates"]["parameters"] == {"last_year": 2026}
    assert ran["future_dates"]["skipped"] is None
    assert "a_library_that_nobody_has" in ran["broken_example"]["skipped"]
    assert "exact_overlap" in ran


def test_a_check_that_cannot_be_imported_is_told_with_its_error(installed):
    broken = [p for p in points(installed) if p.name == "broken_example"]
    sys.path.insert(0, str(installed))
    try:
        checks, lost = discover(broken)
    finally:
        sys.path.remove(str(installed))
    assert checks == ()
    assert lost[0].name == "broken_example"
    assert "ModuleNotFoundError" in lost[0].error


def test_what_is_no_check_is_told_so():
    from importlib.metadata import EntryPoint

    _, (lost,) = discover([EntryPoint("odd", "json", GROUP)])
    assert "has no CHECK" in lost.error


def test_of_two_checks_with_one_name_ours_wins():
    from importlib.metadata import EntryPoint

    ours = "dataset_guard.checks.quality.schema"
    checks, lost = discover([EntryPoint("a_schema", "dataset_guard.checks.quality.schema:CHECK", GROUP),
                             EntryPoint("z_schema", ours, GROUP)])  # fmt: skip
    assert [c.name for c in checks] == ["schema"]
    assert "already" in lost[0].error


def test_names_select_checks_and_settings_change_them():
    checks, _ = discover()
    (chosen,) = select(checks, ["exact_overlap"])
    assert configured(chosen, {"duplicates_warning": 0.5}).duplicates_warning == 0.5
    with pytest.raises(UserError, match="there is no check 'nothing'"):
        select(checks, ["nothing"])


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"duplicates_warning": "much"}, "takes a number, not 'much'"),
        ({"duplicates_warning": True}, "takes a number, not True"),
    ],
)
def test_a_setting_of_another_kind_is_refused(setting, words):
    (chosen,) = select(discover()[0], ["exact_overlap"])
    with pytest.raises(UserError, match=words):
        configured(chosen, setting)
