"""Names, keys, ids and tokens: whose they are, and what becomes of those that try to be another's."""

from __future__ import annotations

import json
import os
import stat

import pytest

pytest.importorskip("ray")

from compute_guard.ray_plugin.gates import kv, launcher
from compute_guard.ray_plugin.gates.admitting import agent_mark
from compute_guard.ray_plugin.gates.authority import access, domain_of, review
from compute_guard.ray_plugin.gates.environment import credential_id, credential_in, environment_of, fields_of
from compute_guard.ray_plugin.gates.identity import by_token
from compute_guard.ray_plugin.gates.namespaces import question, shown, stored
from compute_guard.ray_plugin.gates.tenancy import Job, Jobs
from compute_guard.ray_plugin.gates.tokens import Tokens
from compute_guard.ray_plugin.gates.users import Users
from compute_guard.ray_plugin.gates.wire import Refusal

ACME, BETA = "01000000", "02000000"


@pytest.fixture
def jobs(tmp_path) -> Jobs:
    known = Jobs(tmp_path / "jobs.jsonl")
    known.add(Job(ACME, "acme", "ada", "w-a", "x@acme"))
    known.add(Job(BETA, "beta", "bob", "w-b", "x@beta"))
    return known


def test_jobs_survive_and_a_line_cut_short_is_no_job(jobs, tmp_path):
    with (tmp_path / "jobs.jsonl").open("a") as file:
        file.write('{"id": "03000000", "tenant": "ac')
    again = Jobs(tmp_path / "jobs.jsonl")
    assert again.get("03000000") is None
    again.add(Job("04000000", "acme", "ada", "w-c", "y@acme"))
    assert Jobs(tmp_path / "jobs.jsonl").get("04000000").workload == "w-c"
    assert Jobs(tmp_path / "jobs.jsonl").get(BETA).tenant == "beta"


def test_a_node_is_told_of_the_jobs_it_has_not_heard_of(jobs, tmp_path):
    assert [job.id for job in jobs.since(0)[1]] == [ACME, BETA]
    known, _ = jobs.since(0)
    jobs.add(Job("04000000", "acme", "ada", "w-c", "y@acme"))
    for same in (jobs, Jobs(tmp_path / "jobs.jsonl")):
        count, new = same.since(known)
        assert (count, [job.id for job in new]) == (3, ["04000000"])
        assert same.since(count) == (3, [])


def test_ids_tell_their_job(jobs):
    assert jobs.owner(b"\x11" * 12 + bytes.fromhex(BETA)) == "beta"
    assert jobs.object_owner(b"\x11" * 20 + bytes.fromhex(ACME) + b"\1\0\0\0") == "acme"
    assert jobs.owner(bytes.fromhex("63000000")) is None
    assert jobs.owner(b"") is None


@pytest.mark.parametrize("namespace", ["train", "", "_ray_internal_x", "a/b"])
def test_a_namespace_is_stored_per_tenant_and_shown_as_it_was(namespace):
    assert shown(stored(namespace, "acme"), "acme") == namespace
    assert stored(stored(namespace, "acme"), "acme") == stored(namespace, "acme")


@pytest.mark.parametrize("namespace", ["prod@beta", "@beta", "x@beta@acme"])
def test_a_namespace_that_is_anothers_is_refused(namespace):
    with pytest.raises(Refusal):
        stored(namespace, "acme")


def test_policy_is_asked_about_the_tenants_own_namespace():
    assert question("train", "acme") == "acme/train"
    assert question("beta/train", "acme") == "beta/train"


def place(jobs, namespace: bytes, key: bytes, *, write: bool = False) -> kv.Place:
    owners = {"w-a": "acme", "w-b": "beta"}
    return kv.place("acme", namespace, key, write=write, jobs=jobs, owner_of=owners.get)


def test_functions_are_a_jobs_own(jobs):
    own = b"RemoteFunction:" + ACME.encode() + b":x"
    assert place(jobs, b"fun", own, write=True).key == own
    assert place(jobs, b"fun", b"ActorClass:63000000:x").namespace == b"fun"  # Ray's own supervisor
    for key in (b"RemoteFunction:" + BETA.encode() + b":x", b"odd", b""):
        with pytest.raises(Refusal):
            place(jobs, b"fun", key)
    with pytest.raises(Refusal):
        place(jobs, b"fun", b"ActorClass:63000000:x", write=True)


def test_job_records_are_a_tenants_own(jobs):
    assert place(jobs, b"job", b"_ray_internal_job_info_w-a", write=True)
    for key in (b"_ray_internal_job_info_w-b", b"_ray_internal_job_info_", b"other"):
        with pytest.raises(Refusal):
            place(jobs, b"job", key)


@pytest.mark.parametrize("namespace", [b"tracing", b"session", b"cluster", b"dashboard"])
def test_rays_own_namespaces_are_not_written(jobs, namespace):
    with pytest.raises(Refusal):
        place(jobs, namespace, b"tracing_startup_hook", write=True)


def test_every_other_namespace_is_private(jobs):
    assert place(jobs, b"serve", b"k", write=True) == kv.Place(b"serve@acme", b"k")
    assert place(jobs, b"serve@acme", b"k") == kv.Place(b"serve@acme", b"k")
    assert place(jobs, b"serve@beta", b"k") == kv.Place(b"serve@beta@acme", b"k")


def test_packages_have_a_name_per_tenant(jobs):
    mine = place(jobs, b"", b"gcs://_ray_pkg_abc.zip", write=True)
    assert mine.key.startswith(b"gcs://_ray_pkg_") and mine.key.endswith(b"_abc.zip")
    assert place(jobs, b"", mine.key) == mine
    theirs = kv.own_package("_ray_pkg_abc.zip", "beta")
    assert place(jobs, b"", b"gcs://" + theirs.encode()).key != b"gcs://" + theirs.encode()
    with pytest.raises(Refusal):
        place(jobs, b"", b"gcs://")


def test_listings_show_the_tenants_own_keys(jobs):
    keys = [b"RemoteFunction:" + job.encode() + b":x" for job in (ACME, BETA)]
    assert kv.listed("acme", b"fun", keys, jobs, lambda _s: None) == keys[:1]


def test_the_authority_lets_the_system_everywhere_and_a_tenant_home():
    tenants = {"token-a": "acme"}

    def user(token: str) -> str | None:
        status = review({"spec": {"token": token}}, "token-s", tenants)["status"]
        return status["user"]["username"] if status["authenticated"] else None

    def may(name: str, domain: str) -> bool:
        body = {"spec": {"user": name, "resourceAttributes": {"name": domain}}}
        return access(body)["status"]["allowed"]

    assert (user("token-s"), user("token-a"), user("guess"), user("")) == (
        "system",
        "tenant-acme",
        None,
        None,
    )
    assert may("system", "system") and may("system", domain_of("acme")) and may("tenant-acme", "tenant-acme")
    assert not may("tenant-acme", "system") and not may("tenant-acme", "tenant-beta") and not may("", "")
    assert not access({})["status"]["allowed"]
    assert not review({}, "token-s", tenants)["status"]["authenticated"]


def test_a_rotated_token_is_accepted_until_its_grace_is_ended(tmp_path):
    tokens = Tokens(tmp_path / "tokens")
    first = tokens.of("acme")
    assert tokens.by_token() == {first: "acme"}
    tokens.rotate("acme")
    second = tokens.of("acme")
    assert second != first
    assert tokens.by_token() == {first: "acme", second: "acme"}
    tokens.revoke_old("acme")
    assert tokens.by_token() == {second: "acme"}
    assert (tmp_path / "tokens" / "acme").stat().st_mode & 0o077 == 0


def test_a_caller_is_known_by_its_token_and_no_longer_than_the_token_counts():
    known = [{"one": "acme", "two": "beta"}]
    identify = by_token(lambda: "system", lambda: known[0])

    def caller(token: str) -> str | None:
        return identify((("authorization", f"Bearer {token}"),))

    for _ in range(2):
        assert [caller("one"), caller("two"), caller("system")] == ["acme", "beta", None]
        with pytest.raises(Refusal):
            caller("three")
    known[0] = {"two": "acme", "three": "beta"}
    assert [caller("two"), caller("three")] == ["acme", "beta"]
    with pytest.raises(Refusal):
        caller("one")


def test_unix_users_are_kept_and_never_a_nodes_group(tmp_path):
    users = Users(tmp_path / "users.json")
    numbers = [users.of("acme"), users.node_group("n1"), users.of("beta"), users.of("acme")]
    assert numbers[0] == numbers[3] and len(set(numbers)) == 3
    again = Users(tmp_path / "users.json")
    assert again.all() == {"acme": numbers[0], "beta": numbers[2]}


def test_environments_tell_fields_and_the_jobs_credential():
    token = "tg_0123456789abcdef_" + "A" * 43
    environment = environment_of(
        json.dumps({"pip": ["x"], "env_vars": {"TRAINGUARD_TOKEN": token, "A": "1"}})
    )
    assert credential_in(environment) == token
    assert credential_id(token) == "0123456789abcdef"
    assert credential_id("nonsense") == ""
    assert fields_of(environment) == ("env_vars", "env_vars.A", "pip")
    for text in ("[]", "{", '"x"'):
        with pytest.raises(Refusal):
            environment_of(text)


def test_the_launcher_knows_a_worker_by_its_job_or_its_submissions_credential(tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "FOLDER", str(tmp_path))
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / ACME).write_text('{"tenant": "acme"}')
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "0123456789abcdef").write_text('{"tenant": "beta"}')
    context = '--serialized-runtime-env-context={"env_vars": {"TRAINGUARD_TOKEN": "tg_0123456789abcdef_x"}}'
    assert launcher.facts_for([], {"RAY_JOB_ID": ACME})["tenant"] == "acme"
    assert launcher.facts_for([context], {"RAY_JOB_ID": "63000000"})["tenant"] == "beta"
    for environment in ({}, {"RAY_JOB_ID": "ffffffff"}, {"RAY_JOB_ID": "../../x"}, {"RAY_JOB_ID": BETA}):
        assert launcher.facts_for(["setup_worker.py"], environment) is None


def test_rays_own_workers_that_spill_objects_are_known_by_kind_and_have_no_job():
    spills = ["setup_worker.py", "default_worker.py", "--worker-type=SPILL_WORKER"]
    assert launcher.moves_objects(spills, {"RAY_JOB_ID": "ffffffff"})
    assert not launcher.moves_objects(spills, {"RAY_JOB_ID": ACME})
    assert not launcher.moves_objects(spills[:2], {"RAY_JOB_ID": "ffffffff"})


def test_the_agents_mark_needs_the_systems_token():
    assert agent_mark("a") != agent_mark("b")


def test_a_driver_that_comes_before_ray_start_has_ended_finds_the_clusters_address(tmp_path):
    umask = os.umask(0o077)  # as on a hardened node
    try:
        launcher._leave_address(["--gcs-address=10.0.0.5:6379"], str(tmp_path))
        launcher._leave_address(["--gcs-address=10.0.0.6:6379"], str(tmp_path))
    finally:
        os.umask(umask)
    assert (tmp_path / "ray_current_cluster").read_text() == "10.0.0.5:6379"


def test_a_tenant_reaches_its_temporary_directory_and_nobody_else_does(tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "FOLDER", str(tmp_path / "guard"))
    umask = os.umask(0o077)  # as on a hardened node
    try:
        private = launcher.private_folder("acme")
    finally:
        os.umask(umask)
    assert private == str(tmp_path / "tenants" / "acme")
    assert stat.S_IMODE((tmp_path / "tenants" / "acme").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "tenants").stat().st_mode) == 0o711
