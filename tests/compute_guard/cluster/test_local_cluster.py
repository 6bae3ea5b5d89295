"""A local cluster that does not start: what is left of it, and who may end it meanwhile."""

import pytest

from compute_guard.cluster import local_cluster
from compute_guard.cluster.local_cluster import down, keep_logs, up
from compute_guard.cluster.ray_start import RayEnded
from guard_core.errors import UserError


@pytest.mark.parametrize(("others_end_it", "starts"), [(True, 1), (False, 3)])
def test_a_cluster_that_is_ended_while_it_starts_is_not_started_again(
    home, monkeypatch, others_end_it, starts
):
    tried = []

    def start_node(*_, **__):
        tried.append(1)
        if others_end_it:
            down(home)
        raise RayEnded("its raylet ended")

    monkeypatch.setattr(local_cluster, "start_node", start_node)
    said = "was ended by trainguard compute down" if others_end_it else "its raylet ended"
    with pytest.raises(UserError, match=said):
        up(home)
    assert len(tried) == starts
    assert local_cluster.status(home).cluster is None


def test_the_logs_of_the_last_failed_start_are_kept_and_no_other(tmp_path):
    kept = tmp_path / "failed-start"
    for number in (1, 2):
        guard = tmp_path / f"start-{number}" / f"node-{number}" / "guard"
        guard.mkdir(parents=True)
        (guard / "gate.log").write_text(f"gate {number}")
        (guard / "config.json").write_text("a key")
        (guard.parent / "start.log").write_text("ray")
        logs = guard.parent / "session_2026-01-01_1" / "logs"
        logs.mkdir(parents=True)
        (guard.parent / "session_latest").symlink_to(logs.parent)
        for name in ("raylet.out", "worker-1.out"):
            (logs / name).write_text("ray")
        assert keep_logs(tmp_path / f"start-{number}", kept) == kept
    files = sorted(str(file.relative_to(kept)) for file in kept.rglob("*") if file.is_file())
    session = "node-2/session_2026-01-01_1/logs"
    assert files == ["node-2/guard/gate.log", f"{session}/raylet.out", "node-2/start.log"]
