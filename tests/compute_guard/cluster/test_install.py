"""What `compute install` writes for clusters that somebody else starts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from compute_guard.cluster.install import Kit, write_kit
from guard_core.cli import root
from guard_core.errors import UserError

POOLS = [part for pool in ("acme", "beta", "shared") for part in ("--pool", pool)]


def written(home_dir: Path, out: Path, target: str, *more: str) -> Path:
    arguments = ["--target", target, "--profile", "hardened", "--out", str(out), *more]
    done = CliRunner().invoke(root, ["--home", str(home_dir), "compute", "install", *arguments])
    assert done.exit_code == 0, done.output
    return out


def test_the_scripts_are_valid_shell_and_tell_the_tenants_nothing(home_dir, tmp_path):
    kit = written(home_dir, tmp_path / "kit", "ray-start", "--head", "10.0.0.5", "--pool", "acme")
    for script in ("head.sh", "node.sh", "place.sh"):
        subprocess.run(["sh", "-n", str(kit / script)], check=True)
    settings = (kit / "cluster.env").read_text()
    assert "COMPUTE_GUARD_PROFILE=hardened" in settings
    assert "COMPUTE_GUARD_GATE=10.0.0.5:6390" in settings
    assert (kit / "system.token").read_text() not in settings
    assert all(file.stat().st_mode & 0o077 == 0 or file.suffix == ".crt" for file in kit.iterdir())
    assert '--address="$COMPUTE_GUARD_GATE"' in (kit / "node.sh").read_text()


def test_written_again_the_token_and_the_certificate_stay(home_dir, tmp_path):
    kit = written(home_dir, tmp_path / "kit", "ray-start", "--head", "10.0.0.5")
    before = [(kit / name).read_text() for name in ("system.token", "ca.crt", "authority.key")]
    written(home_dir, kit, "ray-start", "--head", "10.0.0.5")
    assert before == [(kit / name).read_text() for name in ("system.token", "ca.crt", "authority.key")]


def test_the_helm_values_give_every_pool_a_group_and_no_node_the_home_or_the_authoritys_key(
    home_dir, tmp_path
):
    kit = written(
        home_dir, tmp_path / "kit", "kuberay", "--pool", "acme", "--pool", "beta", "--pool", "shared"
    )
    values = yaml.safe_load((kit / "values.yaml").read_text())
    groups = [values["worker"], *values["additionalWorkerGroups"].values()]
    assert [group["groupName"] for group in groups] == ["acme", "beta", "shared"]
    for group in groups:
        assert group["rayStartParams"] == {"address": "trainguard-head:6390"}
        assert {volume["name"] for volume in group["volumes"]} == {"account", "system-token", "guard"}
        assert {one["name"]: one["value"] for one in group["containerEnv"]} == {
            "COMPUTE_GUARD_POOL": group["groupName"],
            "RAY_ADDRESS": "trainguard-head:6390",
        }
    common = {one["name"]: one["value"] for one in values["common"]["containerEnv"]}
    assert common["KUBERNETES_SERVICE_HOST"] == "trainguard-head"
    objects = {one["kind"]: one for one in yaml.safe_load_all((kit / "guard.yaml").read_text())}
    secret = objects["Secret"]["stringData"]
    assert secret["system.token"].strip() == (kit / "system.token").read_text()
    assert secret["authority.key"].strip() == (kit / "authority.key").read_text().strip()
    assert {port["port"] for port in objects["Service"]["spec"]["ports"]} >= {6390, 6391, 6392}


def test_ray_up_tells_every_machine_the_heads_name(home_dir, tmp_path):
    kit = written(home_dir, tmp_path / "kit", "ray-up", "--pool", "shared")
    part = yaml.safe_load((kit / "ray-up.yaml").read_text())
    assert any("name.sh" in command for command in part["head_start_ray_commands"])
    assert 'name.sh "$RAY_HEAD_IP"' in part["worker_start_ray_commands"][1]
    assert part["worker_start_ray_commands"][-1].endswith("node.sh shared")


def test_a_head_that_has_a_name_of_its_own_is_told_to_no_machine(home_dir, tmp_path):
    kit = written(home_dir, tmp_path / "kit", "ray-up", "--head", "head.example.com", "--pool", "shared")
    assert "name.sh" not in (kit / "ray-up.yaml").read_text()
    assert "COMPUTE_GUARD_GATE=head.example.com:6390" in (kit / "cluster.env").read_text()


def test_the_heads_name_is_told_again_in_place_of_what_was_told_before(home_dir, tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n10.0.0.9 trainguard-head\n10.0.0.7 other\n")
    kit = written(home_dir, tmp_path / "kit", "ray-up", "--pool", "shared")
    script = (kit / "name.sh").read_text().replace("/etc/hosts", str(hosts))
    for _ in range(2):
        subprocess.run(["sh", "-c", script, "sh", "10.0.0.5"], check=True)
    assert hosts.read_text() == "127.0.0.1 localhost\n10.0.0.7 other\n10.0.0.5 trainguard-head\n"


def test_rays_own_launcher_takes_the_part_for_ray_up(home_dir, tmp_path):
    util = pytest.importorskip("ray.autoscaler._private.util")
    kit = written(home_dir, tmp_path / "kit", "ray-up", "--pool", "shared")
    part = yaml.safe_load((kit / "ray-up.yaml").read_text())
    cluster = {
        "cluster_name": "guarded",
        "provider": {"type": "aws", "region": "us-west-2"},
        "auth": {"ssh_user": "ubuntu"},
        "available_node_types": {"head": {"node_config": {}, "resources": {}}},
        "head_node_type": "head",
    }
    whole = util.prepare_config(cluster | part)
    util.validate_config(whole)
    # Words by which `ray up` tells that Ray is started at all; without them it warns that it is not.
    assert any("ray start" in one and "autoscaling-config" in one for one in part["head_start_ray_commands"])
    for where in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert whole[where] == part[where]  # and not Ray's own `ray start`
    assert part["setup_commands"][0] in whole["head_setup_commands"]


@pytest.mark.parametrize("missing", [["--out"], ["--head"]])
def test_what_is_missing_is_named(home_dir, tmp_path, missing):
    given = {"--out": str(tmp_path / "kit"), "--head": "10.0.0.5"}
    rest = [part for name, value in given.items() if name not in missing for part in (name, value)]
    done = CliRunner().invoke(
        root, ["--home", str(home_dir), "compute", "install", "--profile", "gate", *rest]
    )
    assert done.exit_code == 2
    assert "--out FOLDER" in done.output


def test_a_head_with_a_port_is_refused_before_anything_is_written(tmp_path):
    kit = Kit(target="ray-start", profile="gate", head="10.0.0.5:6379", pools=["shared"], environment={})
    with pytest.raises(UserError, match="without a port"):
        write_kit(kit, tmp_path / "kit")
    assert not (tmp_path / "kit").exists()


def test_a_folder_that_cannot_be_written_is_named_in_one_sentence(home_dir, tmp_path):
    (tmp_path / "file").write_text("")
    out = ["--out", str(tmp_path / "file" / "kit"), "--head", "10.0.0.5", "--profile", "gate"]
    done = CliRunner().invoke(root, ["--home", str(home_dir), "compute", "install", *out])
    assert isinstance(done.exception, UserError)
    assert "kit cannot be written: Not a directory" in str(done.exception)


@pytest.mark.parametrize(
    ("target", "there"), [("ray-up", '"$HOME"/.trainguard'), ("kuberay", "/var/lib/trainguard/home")]
)
def test_the_home_of_a_head_elsewhere_is_no_folder_of_this_machines(tmp_path, monkeypatch, target, there):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRAINGUARD_HOME", raising=False)
    done = CliRunner().invoke(root, ["compute", "install", "--target", target])
    assert there in done.stdout
    assert str(tmp_path) not in done.stdout


def test_without_gates_ray_up_needs_no_right_but_its_users_own(home_dir):
    part = yaml.safe_load(printed(home_dir, "--target", "ray-up").stdout)
    assert part["file_mounts"] == {"~/.ray/auth_token": "./auth_token"}
    for where in ("head_start_ray_commands", "worker_start_ray_commands"):
        stop, start = part[where]
        assert stop == "ray stop"
        assert 'export RAY_AUTH_TOKEN_PATH="$HOME"/.ray/auth_token && ' in start
        subprocess.run(["sh", "-n", "-c", start], check=True)


def test_a_cluster_of_one_tenants_own_is_told_whose_it_is(home_dir):
    done = CliRunner().invoke(
        root, ["--home", str(home_dir), "compute", "install", "--tenant", "acme", "--target", "kuberay"]
    )
    assert "COMPUTE_GUARD_TENANT" in done.output


def printed(home_dir: Path, *arguments: str) -> Result:
    return CliRunner().invoke(root, ["--home", str(home_dir), "compute", "install", *arguments])


def test_without_gates_the_commands_make_the_token_and_bear_a_home_with_a_space(tmp_path):
    home = tmp_path / "a home"
    text = printed(home, "--token-file", str(tmp_path / "ray token" / "auth")).stdout
    commands = [line for line in text.splitlines() if not line.startswith("ray start")]
    script = "\n".join([*commands, 'cat "$RAY_AUTH_TOKEN_PATH"; printf %s "$TRAINGUARD_HOME"'])
    done = subprocess.run(["sh", "-eu", "-c", script], check=True, capture_output=True, text=True)
    token, told = done.stdout.splitlines()
    assert len(token) == 64
    assert told == str(home)
    assert (tmp_path / "ray token" / "auth").stat().st_mode & 0o777 == 0o600
    assert not home.exists()
    values = yaml.safe_load(printed(home, "--target", "kuberay").stdout)
    assert {"name": "TRAINGUARD_HOME", "value": str(home)} in values["common"]["containerEnv"]


def test_a_pool_or_a_tenant_that_the_policies_do_not_know_is_said(home_dir, tmp_path):
    out = ["--out", str(tmp_path / "kit"), "--target", "kuberay", "--profile", "gate"]
    done = printed(home_dir, *out, "--pool", "shared", "--pool", "mars", "--tenant", "nobody")
    assert done.exit_code == 0
    assert "pool mars is not in nodes.yaml" in done.stderr
    assert "tenant nobody is not in tenants.yaml" in done.stderr
    assert "shared" not in done.stderr


def test_what_only_gates_have_is_refused_without_them(home_dir, tmp_path):
    done = printed(home_dir, "--pool", "shared", "--out", str(tmp_path / "kit"))
    assert done.exit_code == 2
    assert "need --profile gate or hardened" in done.output
