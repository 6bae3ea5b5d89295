import os
import pickle
import shutil

import pytest

from guard_core.audit import verify
from guard_core.config import load_settings
from guard_core.errors import Undecidable, UserError
from guard_core.findings import Enforcement
from guard_core.home import Home
from guard_core.policy.bundle import shipped_policies
from guard_core.testing import captured_audit, engine_of, temporary_home

POLICY = {
    "guard/test/x.rego": """package guard.test
import rego.v1
decision := {"allow": count(deny) == 0, "deny": deny, "warn": []}
deny contains {"rule": "foreign", "msg": "not yours"} if input.principal.tenant != input.owner
""",
    "guard/test/partial.rego": """package guard.partial
import rego.v1
decision := {"allow": true} if input.never
""",
}
DECISION = "guard/test/decision"


@pytest.fixture
def ruled(home, clock):
    """The home under a small policy, with a clock that stands still."""
    home.policy = engine_of(POLICY)
    home.clock = clock
    return home


def decide(home, path=DECISION, **question):
    return home.decide(
        path, question, principal=home.principal(), enforcement=Enforcement.ENFORCED, subject="acme/x@1"
    )


# --- opening -----------------------------------------------------------------------------------------


def test_opening_makes_a_private_folder_that_git_ignores(tmp_path):
    with Home.open(load_settings(home=tmp_path / "deep" / "home")) as home:
        assert home.settings.home.stat().st_mode & 0o777 == 0o700
        assert home.path(".gitignore").read_text().splitlines()[-1] == "*"
        assert home.storage.sqlite_path.exists()


def test_opening_an_existing_home_loads_no_database_library_and_no_policy_engine(home_dir, run_python):
    said = run_python(
        """
        import sys
        from guard_core.home import Home
        home = Home.open()
        unwanted = {"sqlalchemy", "alembic", "regorus", "cryptography", "yaml", "numpy"}
        print(sorted(unwanted & set(sys.modules)))
        """
    )
    assert said.strip() == "[]"


def test_a_home_that_cannot_be_made_is_one_clear_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"home directory .* cannot be used .*choose another with --home"):
        Home.open(load_settings(home=tmp_path / "file" / "home"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user to be refused")
def test_a_home_of_another_user_is_one_clear_sentence(home_dir, run_python):
    said = run_python(
        f"""
        import os
        from guard_core.config import load_settings
        from guard_core.errors import GuardError
        from guard_core.home import Home
        import guard_core.audit.segments, guard_core.storage.database, sqlite3
        os.setuid(65534)
        try:
            Home.open(load_settings(home={str(home_dir)!r}))
        except GuardError as error:
            print(type(error).__name__, error)
        """
    )
    assert said.count("\n") == 1
    assert "Permission denied" in said or "unable to open" in said


def test_opening_repairs_what_a_crash_left_in_the_audit_log(home):
    home.audit.event("x.y", subject="", data={}, enforcement=Enforcement.DETECTIVE)
    with home.path("audit", "000000000000.jsonl").open("ab") as file:
        file.write(b'{"_hash":"torn')
    with Home.open(home.settings) as again:
        assert [r["kind"] for r in again.audit.records()] == ["x.y", "audit.repaired"]


def test_a_home_with_a_damaged_log_still_opens_so_that_it_can_be_looked_at(home):
    home.audit.event("x.y", subject="", data={}, enforcement=Enforcement.DETECTIVE)
    home.path("audit", "000000000000.jsonl").write_bytes(b"")
    with Home.open(home.settings) as again:
        assert not verify(again.audit.directory).ok


def test_a_home_travels_to_another_process_as_its_settings(home):
    home.principal()
    arrived = pickle.loads(pickle.dumps(home))
    assert arrived.settings == home.settings
    assert arrived.principal() == home.principal()
    arrived.close()


# --- deciding ----------------------------------------------------------------------------------------


def test_a_decision_is_on_record_before_it_is_given(ruled):
    with captured_audit(ruled) as captured:
        decision = decide(ruled, owner="acme")
    (record,) = captured.records
    assert not decision.allow
    assert decision.explain() == "not yours [foreign]"
    assert record["decision_id"] == decision.decision_id
    assert record["result"] == decision.value
    assert (record["path"], record["subject"], record["enforcement"]) == (DECISION, "acme/x@1", "enforced")
    assert record["bundles"]["guard"]["revision"] == ruled.policy.revision
    assert record["input"]["owner"] == "acme"
    assert record["requested_by"].startswith("local/")


def test_policy_sees_the_verified_principal_whatever_the_caller_wrote(ruled):
    decide(ruled, owner="beta", principal={"tenant": "beta", "roles": ["platform-admin"]})
    (asked,) = ruled.policy.asked(DECISION)
    assert asked["principal"]["tenant"] == "local"


def test_the_time_is_the_clocks_unless_given(ruled):
    decide(ruled)
    decide(ruled, now_ns=5)
    assert [q["now_ns"] for q in ruled.policy.asked(DECISION)] == [1767225600_000000000, 5]


def test_a_recorded_input_gives_the_same_answer_again(ruled):
    decision = decide(ruled, owner="acme")
    record = ruled.decision_record(decision.decision_id)
    assert ruled.policy.evaluate(record["path"], record["input"]).value == decision.value


def test_secrets_in_the_question_are_not_recorded_and_their_places_are_said(ruled):
    token = ruled.credentials.issue(tenant="acme", user="ann")
    decide(ruled, owner="local", env={"API_KEY": "k1", "HF_TOKEN": "k2", "note": f"x {token}", "tokens": 4})
    (record,) = ruled.audit.records()
    assert record["input"]["env"] == {"note": f"x tg_{token.split('_')[1]}_***", "tokens": 4}
    assert record["erased"] == ["/input/env/API_KEY", "/input/env/HF_TOKEN", "/input/env/note"]


@pytest.mark.parametrize("path", ["guard/partial/decision", "guard/nowhere/decision"])
def test_an_undefined_rule_is_no_permission(ruled, path):
    decision = decide(ruled, path)
    assert not decision.allow
    assert decision.undecidable
    assert list(ruled.audit.records())[-1]["path"] == path


def test_a_broken_policy_directory_is_a_denial_on_record_not_an_exception(home_dir, tmp_path):
    shutil.copytree(shipped_policies() / "data", tmp_path / "policies" / "data")
    (tmp_path / "policies" / "guard").mkdir()
    (tmp_path / "policies" / "guard" / "x.rego").write_text("package guard\nthis is not rego")
    with Home.open(load_settings(home=home_dir, policy={"dir": tmp_path / "policies"})) as home:
        decision = decide(home)
        assert decision.undecidable
        assert not decision.allow
        (record,) = home.audit.records()
        assert "x.rego" in record["error"]["message"]


def test_an_engine_that_raises_is_a_denial_on_record(ruled):
    class Falling:
        name, revision = "falling", ""

        def evaluate(self, path, input):  # noqa: A002
            raise ZeroDivisionError("boom")

        def health(self):
            return []

    ruled.policy = Falling()
    decision = decide(ruled)
    assert decision.undecidable
    assert "boom" in list(ruled.audit.records())[-1]["error"]["message"]


def test_no_decision_is_given_when_it_cannot_be_recorded(ruled):
    ruled.path("audit").write_text("a file in the way")
    with pytest.raises(Undecidable, match="cannot be written"):
        decide(ruled, owner="local")


def test_no_decision_is_given_while_the_log_cannot_be_trusted(ruled):
    decide(ruled, owner="local")
    ruled.path("audit", "000000000000.jsonl").write_bytes(b"")
    with pytest.raises(Undecidable, match="audit log cannot be trusted"):
        decide(ruled, owner="local")


def deep(levels):
    value = {}
    for _ in range(levels):
        value = {"in": value}
    return value


@pytest.mark.parametrize(
    "value", [float("nan"), b"x", object(), deep(5000)], ids=["nan", "bytes", "object", "deep"]
)
def test_no_decision_is_given_on_a_question_that_cannot_be_recorded(ruled, value):
    with pytest.raises(Undecidable, match="cannot be put on record"):
        decide(ruled, owner="local", extra=value)
    assert list(ruled.audit.records()) == []


def test_allowed_means_the_engine_said_so(ruled):
    assert decide(ruled, owner="local").allow


# --- facts and data ----------------------------------------------------------------------------------


def test_tenants_are_those_of_policy_data(home):
    assert {"acme", "beta", "local", "canary"} <= home.tenants().keys()
    assert home.policy_data().keys() >= {"tenants", "quotas"}


def test_no_references_ask_for_no_facts(home):
    assert home.dataset_facts([], principal=home.principal()) == []


def test_a_temporary_home_is_real_and_leaves_nothing(clock):
    with temporary_home(clock=clock, policy=engine_of(POLICY)) as home:
        place = home.settings.home
        assert decide(home, owner="local").allow
        assert verify(home.audit.directory).ok
    assert not place.exists()
