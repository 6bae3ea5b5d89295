import json

import pytest

from guard_core.cli import main


def issue(capsys, *arguments):
    assert main(["tenant", "issue", *arguments]) == 0
    return capsys.readouterr().out.strip()


def test_a_token_is_printed_alone_on_stdout_and_works(home, capsys):
    token = issue(capsys, "acme", "--user", "ann", "--role", "approver", "--ttl", "90d")
    principal = home.credentials.verify(token)
    assert (principal.tenant, principal.user, principal.roles) == ("acme", "ann", ("approver",))


def test_issuing_and_revoking_are_on_record_without_the_token(home, capsys):
    token = issue(capsys, "acme", "--user", "ann")
    credential_id = token.split("_")[1]
    assert main(["tenant", "revoke", credential_id]) == 0
    issued, revoked = home.audit.records(kind="credential.")
    assert (issued["kind"], revoked["kind"]) == ("credential.issued", "credential.revoked")
    assert issued["data"]["tenant"] == "acme"
    assert issued["data"]["by"].startswith("local/")
    assert token not in home.path("audit", "000000000000.jsonl").read_text()


def test_a_credential_that_cannot_be_recorded_does_not_work(home, capsys):
    home.principal()
    home.path("audit").write_text("a file in the way of the log's folder")
    assert main(["tenant", "issue", "acme", "--user", "ann"]) == 3
    assert capsys.readouterr().out == ""
    assert [c.state(home.clock()) for c in home.credentials.list() if c.user == "ann"] == ["revoked"]


def test_credentials_are_listed_with_state_but_never_with_tokens(home, capsys):
    token = issue(capsys, "acme", "--user", "ann", "--ttl", "1h")
    assert main(["tenant", "revoke", token.split("_")[1]]) == 0
    capsys.readouterr()
    assert main(["tenant", "list", "--format", "json"]) == 0
    out = capsys.readouterr().out
    assert token.split("_", 2)[2] not in out
    assert {c["user"]: c["state"] for c in json.loads(out)}["ann"] == "revoked"
    assert main(["tenant", "list"]) == 0
    assert "revoked  tenant  acme/ann" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ghost", "--user", "x"], "there is no tenant 'ghost'"),
        (["acme", "--user", "x", "--ttl", "soon"], "--ttl 'soon' is not a lifetime"),
        (["acme"], "Missing option '--user'"),
    ],
)
def test_a_mistake_is_one_sentence_and_no_credential(home, capsys, arguments, sentence):
    assert main(["tenant", "issue", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {sentence}")
    assert len(captured.err.splitlines()) == 1


def test_a_tenant_issues_and_revokes_nothing_and_sees_only_its_own(home, capsys, monkeypatch):
    issue(capsys, "beta", "--user", "bob")
    token = issue(capsys, "acme", "--user", "ann")
    monkeypatch.setenv("TRAINGUARD_TOKEN", token)
    assert main(["tenant", "issue", "acme", "--user", "eve"]) == 1
    assert main(["tenant", "revoke", token.split("_")[1]]) == 1
    capsys.readouterr()
    assert main(["tenant", "list", "--format", "json"]) == 0
    assert [c["user"] for c in json.loads(capsys.readouterr().out)] == ["ann"]
