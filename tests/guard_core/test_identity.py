import pickle

import pytest

from guard_core.config import load_settings
from guard_core.errors import Denied, UserError
from guard_core.home import Home
from guard_core.identity import Credentials, Principal, masked_tokens
from guard_core.storage import Storage


@pytest.fixture
def credentials(home, clock):
    return Credentials(home.storage, clock)


def test_a_token_proves_who_holds_it(credentials):
    token = credentials.issue(tenant="acme", user="ann", roles=["approver"])
    principal = credentials.verify(token)
    assert (principal.tenant, principal.user, principal.roles, principal.kind) == (
        "acme",
        "ann",
        ("approver",),
        "tenant",
    )
    assert token.startswith(f"tg_{principal.credential_id}_")


def test_a_job_credential_is_bound_to_its_workload_and_datasets(credentials):
    token = credentials.issue(
        tenant="acme", user="ann", kind="job", workload="raysubmit_1", datasets=["acme/x@1"], ttl_seconds=60
    )
    principal = credentials.verify(token)
    assert (principal.workload, principal.datasets) == ("raysubmit_1", ("acme/x@1",))


def test_the_token_itself_is_nowhere_in_the_database(home, credentials):
    secret = credentials.issue(tenant="acme", user="ann").split("_", 2)[2]
    home.close()
    for path in home.settings.home.glob("trainguard.db*"):
        assert secret.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1] + ("A" if t[-1] != "A" else "B"), lambda t: t + "x", str.upper]
)
def test_a_token_changed_in_one_place_proves_nothing(credentials, change):
    with pytest.raises(Denied, match="not known"):
        credentials.verify(change(credentials.issue(tenant="acme", user="ann")))


@pytest.mark.parametrize("token", ["", "tg", "tg__", "tg_0123456789abcdef_x", "nonsense", "tg_\udce9_x"])
def test_something_that_is_no_token_proves_nothing(credentials, token):
    with pytest.raises(Denied, match="not known"):
        credentials.verify(token)


def test_an_expired_credential_is_refused_from_the_very_second(credentials, clock):
    token = credentials.issue(tenant="acme", user="ann", ttl_seconds=60)
    clock.advance(seconds=59)
    credentials.verify(token)
    clock.advance(seconds=1)
    with pytest.raises(Denied, match="is expired"):
        credentials.verify(token)


def test_a_revoked_credential_is_refused_and_revoking_twice_keeps_the_first_time(credentials, clock):
    token = credentials.issue(tenant="acme", user="ann")
    (before,) = credentials.list()
    credentials.revoke(before.id)
    first = credentials.list()[0].revoked_at
    clock.advance(seconds=5)
    credentials.revoke(before.id)
    assert credentials.list()[0].revoked_at == first
    with pytest.raises(Denied, match="is revoked"):
        credentials.verify(token)


def test_revoking_what_does_not_exist_is_the_users_mistake(credentials):
    with pytest.raises(UserError, match="no credential 'nope'"):
        credentials.revoke("nope")


@pytest.mark.parametrize(
    "wrong",
    [
        {"tenant": "Acme"},
        {"tenant": "../etc"},
        {"tenant": ""},
        {"user": " "},
        {"ttl_seconds": 0},
        {"kind": "job"},
        {"kind": "king"},
    ],
)
def test_a_credential_that_makes_no_sense_is_not_issued(credentials, wrong):
    with pytest.raises(UserError):
        credentials.issue(**{"tenant": "acme", "user": "ann", **wrong})
    assert credentials.list() == []


def test_a_principal_is_immutable_and_travels():
    principal = Principal("acme", "ann", (), "0" * 16, "tenant")
    with pytest.raises(AttributeError):
        principal.tenant = "beta"
    assert pickle.loads(pickle.dumps(principal)) == principal


def test_tokens_are_masked_in_texts_for_people(credentials):
    token = credentials.issue(tenant="acme", user="ann")
    assert masked_tokens(f"used {token}!") == f"used tg_{token.split('_')[1]}_***!"


# --- the local token ---------------------------------------------------------------------------------


def test_the_owner_of_a_home_is_a_platform_admin_by_a_private_file(home):
    principal = home.principal()
    assert (principal.tenant, principal.kind, principal.roles) == ("local", "local", ("platform-admin",))
    assert home.path("credentials", "local.token").stat().st_mode & 0o777 == 0o600
    assert home.path("credentials").stat().st_mode & 0o777 == 0o700
    assert home.principal() == principal


def test_a_local_token_that_others_can_read_proves_nothing(home):
    home.principal()
    home.path("credentials", "local.token").chmod(0o644)
    with pytest.raises(UserError, match="readable by others, so it proves nothing; run: chmod 600"):
        home.principal()


def test_a_local_token_file_with_something_else_in_it_is_one_clear_sentence(home):
    home.principal()
    home.path("credentials", "local.token").write_text("oops")
    with pytest.raises(UserError, match="does not hold a token; delete it"):
        home.principal()


def test_a_home_whose_database_is_new_keeps_its_local_token(home):
    before = home.principal()
    home.close()
    home.storage.sqlite_path.unlink()
    with Home.open(home.settings) as again:
        assert again.principal() == before


def test_a_revoked_local_token_stays_revoked(home):
    home.credentials.revoke(home.principal().credential_id)
    with pytest.raises(Denied, match="is revoked"):
        home.principal()


def test_several_processes_using_a_home_first_at_once_agree_on_one_local_token(tmp_path, start_python):
    script = f"""
        from guard_core.config import load_settings
        from guard_core.home import Home
        with Home.open(load_settings(home={str(tmp_path / "new")!r})) as home:
            print(home.principal().credential_id)
    """
    told = {process.communicate()[0].strip() for process in [start_python(script) for _ in range(4)]}
    assert len(told) == 1
    storage = Storage.in_home(tmp_path / "new")
    assert [c.id for c in Credentials(storage).list()] == list(told)


# --- acting for tenants ------------------------------------------------------------------------------


def test_a_platform_admin_may_act_for_a_tenant_and_it_is_recorded(home):
    principal = home.principal(tenant="acme")
    assert (principal.tenant, principal.on_behalf_of, principal.kind) == ("acme", "acme", "local")
    assert principal.to_input()["on_behalf_of"] == "acme"


def test_nobody_acts_for_a_tenant_that_policy_data_does_not_know(home):
    with pytest.raises(UserError, match="no tenant 'ghost' in the policy data \\(known: acme, "):
        home.principal(tenant="ghost")


def test_a_tenants_credential_acts_for_no_other_tenant(home_dir, home):
    token = home.credentials.issue(tenant="acme", user="ann")
    with Home.open(load_settings(home=home_dir, token=token)) as hers:
        assert hers.principal(tenant="acme").on_behalf_of is None
        with pytest.raises(Denied, match="may not act for tenant beta"):
            hers.principal(tenant="beta")


def test_a_wrong_token_is_not_made_good_by_the_local_one(home_dir, home):
    home.principal()
    with (
        Home.open(load_settings(home=home_dir, token="tg_0123456789abcdef_x")) as other,
        pytest.raises(Denied),
    ):
        other.principal()
