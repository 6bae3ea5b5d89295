"""What a node's agent says of a submission, on a machine that does not see the home."""

from __future__ import annotations

from compute_guard.ray_plugin.agent import unadmitted


def test_a_node_without_the_home_refuses_every_submission_and_makes_no_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINGUARD_HOME", str(tmp_path / "elsewhere"))
    status, said = unadmitted({"submission_id": "intruder", "entrypoint": "true"})
    assert status == 429
    assert "go to the head's Job API" in said
    assert not (tmp_path / "elsewhere").exists()


def test_a_submission_that_the_ledger_does_not_know_is_refused(home, monkeypatch):
    monkeypatch.setenv("TRAINGUARD_HOME", str(home.settings.home))
    status, said = unadmitted({"submission_id": "intruder", "entrypoint": "true"})
    assert (status, "was not admitted" in said) == (429, True)
