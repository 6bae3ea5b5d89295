"""Nodes beside the head that end while they start."""

import subprocess
from pathlib import Path

import pytest

from compute_guard.cluster import further_nodes
from compute_guard.cluster.connection import Cluster
from compute_guard.cluster.further_nodes import TRIES, FurtherNodes, tried
from compute_guard.cluster.ray_start import RayEnded, RunningNode
from guard_core.errors import UserError


def test_what_ended_is_started_again_and_at_most_three_times():
    trials, cleared = [], []

    def ends(until):
        def start(trial):
            trials.append(trial)
            if trial < until:
                raise RayEnded("busy")
            return f"trial {trial}"

        return start

    assert tried(ends(2), "it", cleared.append) == "trial 2"
    assert (trials, cleared) == ([0, 1, 2], [0, 1])
    with pytest.raises(RayEnded, match="busy"):
        tried(ends(3), "it")
    assert trials[3:] == [0, 1, 2]


def test_what_cannot_be_helped_by_another_start_is_raised_at_once():
    trials = []

    def start(trial):
        trials.append(trial)
        raise UserError("ray is not installed")

    with pytest.raises(UserError, match="not installed"):
        tried(start, "it")
    assert trials == [0]


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """Nodes of a cluster in ``tmp_path``; ``begin(failures)`` has so many of them end before they join."""
    cluster = Cluster(
        dashboard="", gcs_address="127.0.0.1:1", token_file="", marker="m", temp_dir=str(tmp_path)
    )
    found = FurtherNodes(settings=None, cluster=cluster, period_ms=250)
    addresses = []

    def begin(failures):
        def start_node(_settings, known, arguments, _options, _period, name, _pool):
            addresses.append(arguments[-1])
            (Path(known.temp_dir) / name).mkdir()
            command = ["false"] if len(addresses) <= failures else ["sleep", "60"]
            process = subprocess.Popen(command)
            if command == ["false"]:
                process.wait()
            else:
                running.append(process)
            return RunningNode(process, stays=True)

        monkeypatch.setattr(further_nodes, "start_node", start_node)
        monkeypatch.setattr(further_nodes, "has_joined", lambda _gcs, _: len(addresses) > failures)
        return found, addresses

    running = []
    yield begin
    for process in running:
        process.kill()
        process.wait()


def test_a_node_that_ends_before_it_has_joined_is_started_again_at_an_address_of_its_own(nodes, tmp_path):
    found, addresses = nodes(failures=1)
    found.start(0, "acme", {})
    assert addresses == ["--node-ip-address=127.0.0.11", "--node-ip-address=127.0.1.11"]
    # What the first one left is kept, and the second began with nothing.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ended-0-node-0", "node-0"]


def test_a_node_that_ends_each_time_is_said_in_one_sentence_with_its_pool_and_the_remedy(nodes):
    found, addresses = nodes(failures=TRIES)
    with pytest.raises(
        UserError, match=r"node 0 \(pool acme\) ended again and again .* start fewer nodes"
    ) as raised:
        found.start(0, "acme", {})
    assert (len(addresses), isinstance(raised.value, RayEnded)) == (TRIES, False)


def test_no_node_is_started_for_a_cluster_that_was_given_up(nodes):
    found, addresses = nodes(failures=0)
    found.give_up()
    with pytest.raises(UserError, match="did not come up"):
        found.start(0, "acme", {})
    assert addresses == []
