import json
from importlib.metadata import EntryPoint

import pytest

from guard_core import doctor, probes
from guard_core.cli import main
from guard_core.config import load_settings
from guard_core.doctor import Probe, examine, guarded
from guard_core.errors import MissingExtra
from guard_core.findings import Enforcement


def by_name(found, name):
    return next(probe for probe in found if probe.name == name)


@pytest.fixture
def used(home):
    """A home in use: token, key, log."""
    home.principal()
    home.audit.event("x.y", subject="", data={}, enforcement=Enforcement.DETECTIVE)
    return home


def test_a_home_in_use_is_private_migrated_and_whole(used):
    found = [*probes.home(used.settings), *probes.storage(used.settings), *probes.audit(used.settings)]
    assert {probe.status for probe in found} == {"ok"}
    assert {probe.name for probe in found} == {
        "directory",
        "local.token",
        "signing.key",
        "credentials",
        "keys",
        "sqlite",
        "integrity",
        "log",
    }


def test_looking_makes_no_home(tmp_path):
    settings = load_settings(home=tmp_path / "none")
    found = [*probes.home(settings), *probes.storage(settings), *probes.audit(settings)]
    assert {probe.status for probe in found} == {"info"}
    assert not (tmp_path / "none").exists()


def test_a_key_that_others_can_read_is_broken_and_the_remedy_mends_it(used):
    key = used.path("keys", "signing.key")
    key.chmod(0o644)
    probe = by_name(probes.home(used.settings), "signing.key")
    assert (probe.status, probe.remedy) == ("broken", f"run: chmod 600 {key}")


def test_a_changed_audit_record_is_broken(used):
    path = used.path("audit", "000000000000.jsonl")
    path.write_bytes(path.read_bytes().replace(b"x.y", b"x.z"))
    (probe,) = probes.audit(used.settings)
    assert probe.status == "broken"
    assert "record 0 was changed" in probe.message


def test_a_damaged_database_is_broken(used):
    used.close()
    content = bytearray(used.storage.sqlite_path.read_bytes())
    content[4096 * 3 : 4096 * 6] = b"\xff" * 4096 * 3
    used.storage.sqlite_path.write_bytes(content)
    assert "broken" in {probe.status for probe in probes.storage(used.settings)}


def test_an_old_schema_is_worth_knowing_and_a_newer_one_is_broken(used):
    import sqlite3
    from contextlib import closing

    for version, status in (("0000", "info"), ("9999", "broken")):
        with closing(sqlite3.connect(used.storage.sqlite_path)) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
            connection.commit()
        assert by_name(probes.storage(used.settings), "sqlite").status == status


def test_a_policy_directory_that_is_not_there_is_broken(used, tmp_path):
    settings = load_settings(home=used.settings.home, policy={"dir": tmp_path / "nowhere"})
    (probe,) = probes.policy(settings)
    assert probe.status == "broken"


@pytest.fixture
def declared(monkeypatch):
    """Have these entry points declared, for one test."""

    def declare(*points):
        monkeypatch.setattr(probes, "_declared", lambda: list(points))

    return declare


def test_a_plug_in_that_cannot_be_loaded_is_broken_with_the_reason(used, declared):
    declared(
        EntryPoint("gone", "guard_core.no_such_module:x", "trainguard.commands"),
        EntryPoint("misspelt", "guard_core.cli:mian", "trainguard.commands"),
        EntryPoint("good", "guard_core.audit.cli:audit", "trainguard.commands"),
    )
    gone, misspelt, good = probes.plugins(used.settings)
    assert (gone.status, misspelt.status, good.status) == ("broken", "broken", "ok")
    assert "No module named 'guard_core.no_such_module'" in gone.message
    assert "AttributeError" in misspelt.message


def test_a_plug_in_whose_host_is_not_installed_is_only_worth_knowing(used, declared, monkeypatch):
    monkeypatch.setattr(probes, "find_spec", lambda name: None)
    declared(EntryPoint("trainguard", "dataset_guard.x:y", "mlflow.dataset_source"))
    (probe,) = probes.plugins(used.settings)
    assert (probe.status, probe.remedy) == ("info", 'run: pip install "trainguard[mlflow]"')


def test_a_plug_in_that_asks_for_an_extra_is_only_worth_knowing(used, declared, monkeypatch):
    def load(self):
        raise MissingExtra.of("ray", "ray")

    monkeypatch.setattr(EntryPoint, "load", load)
    declared(EntryPoint("x", "y:z", "trainguard.commands"))
    (probe,) = probes.plugins(used.settings)
    assert (probe.status, probe.remedy) == ("info", 'pip install "trainguard[ray]"')


def test_what_mlflow_did_not_register_is_broken_though_it_loads(used, declared):
    """MLflow warns once and goes on without the plug-in; only its registry tells."""
    declared(
        EntryPoint("from_pandas", "guard_core.clock:rfc3339", "mlflow.dataset_constructor"),
        EntryPoint("trainguard", "guard_core.clock:rfc3339", "mlflow.dataset_source"),
        EntryPoint("trainguard", "guard_core.testing:FrozenClock", "mlflow.run_context_provider"),
    )
    found = list(probes.mlflow_registries(used.settings))
    assert [probe.status for probe in found] == ["broken", "broken", "broken"]
    assert "did not register" in found[0].message


def test_what_mlflow_itself_registers_is_recognised(used, declared):
    declared(
        EntryPoint("from_numpy", "mlflow.data.numpy_dataset:from_numpy", "mlflow.dataset_constructor"),
        EntryPoint("http", "mlflow.data.http_dataset_source:HTTPDatasetSource", "mlflow.dataset_source"),
        EntryPoint("git", "mlflow.tracking.context.git_context:GitRunContext", "mlflow.run_context_provider"),
    )
    assert {probe.status for probe in probes.mlflow_registries(used.settings)} == {"ok"}


def test_required_packages_are_checked_against_their_pins():
    (old,) = probes._requirement("click>=999")
    assert (old.status, old.remedy) == ("broken", 'run: pip install "click>=999"')
    (gone,) = probes._requirement("no-such-package-of-ours>=1")
    assert gone.status == "broken"
    (extra,) = probes._requirement('no-such-package-of-ours>=1; extra == "gpu"')
    assert (extra.status, extra.remedy) == ("info", 'run: pip install "trainguard[gpu]"')
    (good,) = probes._requirement("click>=8")
    assert good.status == "ok"


def test_probes_of_other_packages_take_nothing_or_the_settings_and_may_fall():
    settings = load_settings()
    probe = Probe("x", "y", "ok", "fine")
    assert guarded("x", "probes", lambda: [probe], settings) == [probe]
    assert (
        guarded("x", "probes", lambda given: [Probe("x", "y", "ok", str(given.home))], settings)[0].status
        == "ok"
    )

    def falls():
        raise ZeroDivisionError("boom")

    (fallen,) = guarded("x", "probes", falls, settings)
    assert fallen.status == "broken"
    assert "boom" in fallen.message


def test_what_is_broken_must_say_what_to_do():
    with pytest.raises(ValueError, match="must say what to do"):
        Probe("x", "y", "broken", "alas")


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("info", 0), ("broken", 1)])
def test_the_command_exits_1_only_when_something_is_broken(home_dir, monkeypatch, capsys, status, code):
    probe = Probe("area", "name", status, "message", "run: mend it" if status != "ok" else "")
    monkeypatch.setattr(doctor, "examine", lambda settings: [probe])
    assert main(["doctor"]) == code
    out = capsys.readouterr().out
    assert ("-> run: mend it" in out) == (status != "ok")
    assert main(["doctor", "--format", "json"]) == code
    assert json.loads(capsys.readouterr().out) == {"ok": code == 0, "probes": [probe.to_json()]}


def test_everything_is_looked_at(used):
    found = examine(used.settings)
    assert {"python", "package", "settings", "home", "storage", "audit", "policy", "plug-in", "mlflow"} <= {
        probe.area for probe in found
    }
    assert by_name(found, "trainguard.commands:audit").status == "ok"
