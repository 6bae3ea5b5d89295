"""Who read a version is one command away, for those whose data it is."""

import json
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_guard.reads.on_record import reads_of
from dataset_guard.reads.verified_read import read
from dataset_guard.registration.register import register
from guard_core.cli import main
from guard_core.config import load_settings
from guard_core.errors import Denied, Tampered, UserError
from guard_core.home import Home
from guard_core.policy.bundle import shipped_policies


def as_tenant(home, tenant, **credential):
    token = home.credentials.issue(tenant=tenant, user="lin", **credential)
    return Home.open(load_settings(home=home.settings.home, token=token))


@pytest.fixture
def data(home, tmp_path):
    """The file of acme/x@1, twenty rows."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": range(20), "b": range(20)}), path)
    register(path, name="x", tenant="acme", home=home, checks=[])
    return path


def test_each_read_is_listed_with_who_what_how_much_and_how_it_ended(home, data):
    lin = as_tenant(home, "acme")
    read("x@1", columns=["a"], home=lin).to_table()
    next(iter(read("x@1", purpose="evaluate", home=lin).batches()))
    pq.write_table(pa.table({"a": range(20), "b": range(1, 21)}), data)
    with pytest.raises(Tampered):
        read("x@1", home=lin).to_table()
    whole, early, stopped = reads_of(lin, "x@1")
    assert (whole.user, whole.tenant, whole.purpose, whole.columns) == ("lin", "acme", "train", ("a",))
    assert whole.rows == 20
    assert whole.bytes >= 20 * 8
    assert [read.outcome for read in (whole, early, stopped)] == ["all", "part", "stopped"]
    assert "differs in column 'b'" in stopped.problem


def test_a_name_alone_lists_all_versions_also_those_that_are_gone(home, data):
    read("acme/x@1", home=home).to_table()
    register(pa.table({"a": [1], "b": [2]}), name="x", tenant="acme", home=home, checks=[])
    read("acme/x@2", home=home).to_table()
    assert main(["--home", str(home.settings.home), "dataset", "delete", "acme/x@1"]) == 0
    assert [found.ref for found in reads_of(home, "acme/x")] == ["acme/x@1", "acme/x@2"]
    assert [found.ref for found in reads_of(home, "acme/x@1")] == ["acme/x@1"]
    with pytest.raises(UserError, match="there is no dataset 'acme/x@9'"):
        reads_of(home, "acme/x@9")


def test_other_tenants_and_jobs_are_refused(home, data):
    with pytest.raises(Denied, match="may not act for tenant acme"):
        reads_of(as_tenant(home, "beta"), "acme/x@1")
    job = as_tenant(home, "acme", kind="job", workload="job-1", datasets=["acme/x@1"])
    with pytest.raises(Denied, match="a person's credential"):
        reads_of(job, "acme/x@1")


def test_what_the_mask_policy_keeps_back_is_kept_back(home, data, tmp_path):
    read("acme/x@1", home=home).to_table()
    policies = tmp_path / "policies"
    shutil.copytree(shipped_policies(), policies)
    (policies / "data" / "masks.yaml").write_text("masks:\n  - {decision: dataset.read, pointer: /user}\n")
    careful = Home.open(load_settings(home=home.settings.home, policy={"dir": policies}))
    [found] = reads_of(careful, "acme/x@1")
    assert (found.user, found.rows) == ("(masked)", 20)


def test_the_command_prints_a_table_or_json(home, data, capsys):
    command = ["--home", str(home.settings.home), "dataset", "reads", "acme/x@1"]
    assert main(command) == 0
    assert "nobody read acme/x@1" in capsys.readouterr().err
    read("acme/x@1", home=home).to_table()
    capsys.readouterr()
    assert main(command) == 0
    head, line, total = capsys.readouterr().out.splitlines()
    assert head.split() == ["when", "version", "who", "for", "rows", "data", "outcome"]
    assert "acme/x@1" in line
    assert re.search(r"train  20    \d+ B  all$", line)
    assert re.fullmatch(r"1 read by 1 person: 20 rows, \d+ B", total)
    assert main([*command, "--format", "json", "--since", "2001-01-01"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["outcome"]) == (20, "all")
    assert main([*command, "--since", "2999-01-01"]) == 0
    assert "since then" in capsys.readouterr().err
