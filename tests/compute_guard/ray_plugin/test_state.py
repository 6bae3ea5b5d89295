"""`ray list` as a tenant sees it: Ray's answer, cut."""

from __future__ import annotations

import json

from compute_guard.ray_plugin.state import cut

OWN, OTHER = "01000000", "02000000"


def answer(*rows: dict, total: int | None = None) -> bytes:
    listing = {"result": list(rows), "total": total or len(rows), "partial_failure_warning": ""}
    return json.dumps({"result": True, "msg": "", "data": {"result": listing}}).encode()


def rows_of(shape: dict) -> list[dict]:
    return shape["data"]["result"]["result"]


def test_an_actor_is_its_jobs_whatever_the_row_claims():
    mine = {"actor_id": "a" * 24 + OWN, "job_id": OWN}
    theirs = {"actor_id": "b" * 24 + OTHER, "job_id": OWN}
    shape = cut("actors", answer(mine, theirs), 100, {OWN}, set())
    assert rows_of(shape) == [mine]
    assert shape["data"]["result"]["total"] == 1


def test_the_limit_counts_own_rows():
    own = [{"task_id": f"{n:040x}" + OWN} for n in range(5)]
    shape = cut("tasks", answer({"task_id": "0" * 40 + OTHER}, *own), 3, {OWN}, set())
    assert rows_of(shape) == own[:3]
    assert shape["data"]["result"]["num_filtered"] == 5


def test_jobs_are_told_by_submission_or_driver():
    rows = [
        {"submission_id": "mine", "job_id": None},
        {"submission_id": "theirs", "job_id": OTHER},
        {"submission_id": None, "job_id": OWN},
    ]
    shape = cut("jobs", answer(*rows), 100, {OWN}, {"mine"})
    assert rows_of(shape) == [rows[0], rows[2]]


def test_no_credential_leaves_with_a_row():
    token = "tg_0123456789abcdef_" + "s" * 43
    row = {"submission_id": "mine", "runtime_env": {"env_vars": {"TRAINGUARD_TOKEN": token}}}
    shape = cut("jobs", answer(row), 100, set(), {"mine"})
    assert "s" * 43 not in json.dumps(shape)


def test_a_cluster_with_more_than_ray_tells_says_so():
    shape = cut("tasks", answer(total=20_000), 100, set(), set())
    assert "may be missing" in shape["data"]["result"]["partial_failure_warning"]


def test_an_answer_without_a_listing_holds_nothing():
    assert cut("actors", b'{"result": false, "msg": "no", "data": {"x": 1}}', 9, set(), set())["data"] == {}
