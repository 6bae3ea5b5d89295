"""What is left of a local cluster that did not start."""

from compute_guard.cluster.local_cluster import keep_logs


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
