from pathlib import Path

import pytest

from guard_core.cli import main
from guard_core.config import flat, load_settings, load_settings_with_origins, unknown_variables
from guard_core.errors import UserError


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(text, name=".trainguard/config.yaml"):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_any_configuration_state_lives_in_the_working_directory(tmp_path):
    settings = load_settings()
    assert settings.home == tmp_path / ".trainguard"
    assert (settings.policy.engine, settings.storage_url, settings.token) == ("embedded", None, None)


def test_an_option_beats_a_variable_beats_the_file_beats_the_default(monkeypatch):
    write("policy: {deadline_ms: 1, engine: server, server_url: http://file}")
    monkeypatch.setenv("TRAINGUARD_POLICY_DEADLINE_MS", "2")
    monkeypatch.setenv("TRAINGUARD_POLICY_SERVER_URL", "http://variable")
    settings, origins = load_settings_with_origins(policy={"deadline_ms": 3})
    assert settings.policy.deadline_ms == 3
    assert settings.policy.server_url == "http://variable"
    assert settings.policy.engine == "server"
    assert origins["policy.deadline_ms"] == "option"
    assert origins["policy.server_url"] == "environment TRAINGUARD_POLICY_SERVER_URL"
    assert origins["policy.engine"].startswith("file ")
    assert origins["storage_url"] == "default"


def test_the_file_of_another_place_is_named_by_a_variable_or_an_option(tmp_path, monkeypatch):
    write("storage_url: sqlite:////one.db", "one.yaml")
    write("storage_url: sqlite:////two.db", "two.yaml")
    monkeypatch.setenv("TRAINGUARD_CONFIG", "one.yaml")
    assert load_settings().storage_url == "sqlite:////one.db"
    assert load_settings(config="two.yaml").storage_url == "sqlite:////two.db"


def test_a_relative_path_in_a_file_is_relative_to_the_file(tmp_path):
    write("policy: {dir: rules}\nhome: state", "deep/down/guard.yaml")
    settings = load_settings(config="deep/down/guard.yaml")
    assert settings.policy.dir == tmp_path / "deep/down/rules"
    assert settings.home == tmp_path / "deep/down/state"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("polcy: {}", "unknown setting 'polcy' in file .*"),
        (
            "policy: {engin: server}",
            "unknown setting 'policy.engin' in file .*; did you mean 'policy.engine'?",
        ),
        ("policy: {engine: remote}", "setting 'policy.engine' from file .* cannot be used: input should be"),
        ("policy: {deadline_ms: soon}", "setting 'policy.deadline_ms' from file .* cannot be used"),
        ("policy: 3", "setting 'policy' in file .* must be a mapping, got int"),
        ("- a\n- b", "must be a mapping of settings, got list"),
        ("a: b\nc: [", "config.yaml line 2 is not valid YAML"),
        (
            "oidc: {issuer: i, jwks: k}",
            "setting 'oidc.audience' is missing: 'oidc.issuer' is given in file .*",
        ),
        ("oidc: {user_claim: email}", "setting 'oidc.issuer' is missing: 'oidc.user_claim' is given in"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence_that_names_it(text, sentence):
    write(text)
    with pytest.raises(UserError, match=sentence.replace("?", r"\?")):
        load_settings()


def test_defaults_that_are_spelt_out_configure_no_identity_provider():
    write("oidc: {tenant_claim: tenant, user_claim: sub}")
    assert load_settings().oidc.issuer is None


def test_a_configuration_file_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setenv("TRAINGUARD_CONFIG", "nowhere.yaml")
    with pytest.raises(UserError, match=r"nowhere.yaml does not exist"):
        load_settings()


@pytest.mark.parametrize("name", ["TRAINGUARD_POLICY_ENGIN", "TRAINGUARD_TOKN", "TRAINGUARD_POLICY_FOO"])
def test_a_misspelt_variable_is_not_ignored(monkeypatch, name):
    monkeypatch.setenv(name, "server")
    with pytest.raises(UserError, match=f"the environment variable {name} is not a setting"):
        load_settings()


def test_a_variable_of_another_package_is_let_be_and_told_to_doctor(monkeypatch):
    monkeypatch.setenv("TRAINGUARD_GATEWAY_PORT", "8266")
    load_settings()
    assert "TRAINGUARD_GATEWAY_PORT" in unknown_variables()


def test_an_empty_variable_means_not_set(monkeypatch):
    monkeypatch.setenv("TRAINGUARD_TOKEN", "")
    assert load_settings().token is None


def test_settings_survive_pickling_with_their_secret(monkeypatch):
    import pickle

    settings = pickle.loads(pickle.dumps(load_settings(token="tg_x")))
    assert settings.token.get_secret_value() == "tg_x"
    assert "tg_x" not in repr(settings)


def test_config_show_tells_each_value_with_its_origin_and_masks_secrets(monkeypatch, capsys):
    monkeypatch.setenv("TRAINGUARD_TOKEN", "tg_secret")
    monkeypatch.setenv("TRAINGUARD_STORAGE_URL", "postgresql://ann:hunter2@db/guard")
    assert main(["config", "show"]) == 0
    out = capsys.readouterr().out
    assert "tg_secret" not in out
    assert "hunter2" not in out
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
    assert rows.keys() == flat(load_settings()).keys()
    assert rows["token"].split() == ["********", "environment", "TRAINGUARD_TOKEN"]
    assert rows["policy.engine"].split() == ["embedded", "default"]


def test_config_show_takes_the_roots_options(tmp_path, capsys):
    assert main(["--home", "elsewhere", "config", "show", "--format", "json"]) == 0
    import json

    shown = json.loads(capsys.readouterr().out)
    assert shown["home"] == {"value": str(tmp_path / "elsewhere"), "origin": "option"}
    assert not (tmp_path / "elsewhere").exists()
