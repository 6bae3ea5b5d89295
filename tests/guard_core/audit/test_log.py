import errno
import json
import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from guard_core.attestation import Signer
from guard_core.audit import verify
from guard_core.audit.log import AuditLog
from guard_core.errors import Tampered, Undecidable
from guard_core.findings import Enforcement


def segment(log: AuditLog) -> Path:
    return log.directory / "000000000000.jsonl"


def again(log: AuditLog, signer: Signer) -> AuditLog:
    """The same log as another process would open it: nothing remembered."""
    return AuditLog(log.directory, signer=lambda: signer, anchor=log._anchor)


def test_records_are_numbered_chained_and_come_back_in_order(ten):
    found = list(ten.records())
    assert [r["_seq"] for r in found] == list(range(10))
    assert [r["_prev"] for r in found[1:]] == [r["_hash"] for r in found[:-1]]
    assert [r["number"] for r in found] == list(range(10))


def test_an_event_says_what_happened_to_what_and_how_strongly_it_was_enforced(log, clock):
    event_id = log.event(
        "dataset.registered", subject="acme/x@1", data={"rows": 3}, enforcement=Enforcement.COOPERATIVE
    )
    (found,) = log.records()
    assert found["event_id"] == event_id
    assert (found["kind"], found["subject"], found["data"]) == ("dataset.registered", "acme/x@1", {"rows": 3})
    assert found["enforcement"] == "cooperative"
    assert found["timestamp"] == "2026-01-01T00:00:00.000000Z"


def test_a_secret_in_an_events_data_is_not_written_and_its_place_is_said(log):
    token = "tg_0123456789abcdef_" + "s" * 43
    log.event(
        "x.y",
        subject="",
        data={"password": "hunter2", "note": f"used {token}"},
        enforcement=Enforcement.DETECTIVE,
    )
    text = segment(log).read_text()
    assert "hunter2" not in text
    assert "s" * 43 not in text
    assert json.loads(text)["erased"] == ["/data/password", "/data/note"]


def test_records_can_be_chosen_by_kind_area_and_time(log, clock):
    for kind in ("dataset.read", "dataset.verified", "workload.state"):
        log.event(kind, subject="s", data={}, enforcement=Enforcement.DETECTIVE)
        clock.advance(seconds=60)
    assert [r["kind"] for r in log.records(kind="dataset.read")] == ["dataset.read"]
    assert [r["kind"] for r in log.records(kind="dataset.")] == ["dataset.read", "dataset.verified"]
    assert [r["kind"] for r in log.records(since=clock.now - timedelta(seconds=60))] == ["workload.state"]


def test_several_records_are_appended_all_or_none(log):
    with pytest.raises(TypeError):
        log.append([{"kind": "good"}, {"kind": "bad", "value": object()}])
    assert list(log.records()) == []
    assert log.append([{"kind": "a"}, {"kind": "b"}]) == 0
    assert log.append([{"kind": "c"}]) == 2


def test_a_full_segment_is_followed_by_one_named_for_its_first_record(tmp_path, signer):
    log = AuditLog(tmp_path / "audit", signer=lambda: signer, segment_bytes=1000)
    for number in range(20):
        log.append([{"kind": "test", "number": number, "filler": "x" * 100}])
    names = sorted(p.name for p in log.directory.glob("*.jsonl"))
    assert names[:2] == ["000000000000.jsonl", "000000000004.jsonl"]
    assert [r["number"] for r in log.records()] == list(range(20))
    assert verify(log.directory).ok


def test_private_files_are_private(ten):
    for path in (segment(ten), ten.directory / "head.json"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert ten.directory.stat().st_mode & 0o777 == 0o700


# --- after a crash ----------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b'{"_hash":"ab', b"\0" * 700, b"{"])
def test_a_torn_last_line_is_cut_off_kept_aside_and_its_removal_recorded(ten, signer, torn):
    with segment(ten).open("ab") as file:
        file.write(torn)
    assert verify(ten.directory).torn_bytes == len(torn)
    log = again(ten, signer)
    log.recover()
    last = list(log.records())[-1]
    assert (last["kind"], last["data"]["bytes"], last["_seq"]) == ("audit.repaired", len(torn), 10)
    assert [p.read_bytes() for p in log.directory.glob("torn-*.bin")] == [torn]
    report = verify(log.directory)
    assert (report.ok, report.records, report.torn_bytes) == (True, 11, 0)


def test_records_written_before_the_head_could_be_signed_are_taken_up_and_named(ten, signer):
    head = (ten.directory / "head.json").read_bytes()
    ten.append([{"kind": "one"}, {"kind": "two"}])
    (ten.directory / "head.json").write_bytes(head)  # as if killed between the two writes
    assert verify(ten.directory).signed == 10
    log = again(ten, signer)
    assert log.append([{"kind": "three"}]) == 13
    (note,) = log.records(kind="audit.recovered")
    assert note["data"] == {"first": 10, "last": 11}
    assert verify(log.directory).signed == 14


def test_a_head_that_the_disk_does_not_take_up_is_no_head_and_the_append_says_so(ten, signer, monkeypatch):
    sync = os.fsync

    def full(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().name.startswith(".head.json"):
            raise OSError(errno.EIO, "Input/output error")
        sync(handle)

    head = (ten.directory / "head.json").read_bytes()
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(Undecidable, match="cannot be written"):
            ten.append([{"kind": "one"}])
    assert (ten.directory / "head.json").read_bytes() == head
    assert not list(ten.directory.glob(".head*"))
    assert again(ten, signer).append([{"kind": "two"}]) == 12  # after "one", and the note that it was found
    assert verify(ten.directory).signed == 13


def test_a_crash_right_after_a_new_segment_was_begun_loses_nothing(tmp_path, signer):
    log = AuditLog(tmp_path / "audit", signer=lambda: signer, segment_bytes=300)
    for number in range(3):
        log.append([{"kind": "test", "number": number, "filler": "x" * 200}])
    head = (log.directory / "head.json").read_bytes()
    log.append([{"kind": "test", "number": 3}])
    (log.directory / "head.json").write_bytes(head)
    fresh = AuditLog(log.directory, signer=lambda: signer, segment_bytes=300)
    fresh.append([{"kind": "test", "number": 4}])
    assert [r["number"] for r in fresh.records(kind="test")] == [0, 1, 2, 3, 4]
    assert verify(fresh.directory).ok


def test_looking_at_a_whole_log_changes_nothing(ten, signer):
    before = {p.name: p.read_bytes() for p in ten.directory.iterdir()}
    again(ten, signer).recover()
    assert {p.name: p.read_bytes() for p in ten.directory.iterdir()} == before


# --- after a crime ----------------------------------------------------------------------------------


def test_nothing_is_appended_to_a_log_whose_tail_was_cut(ten, signer):
    lines = segment(ten).read_bytes().splitlines(keepends=True)
    segment(ten).write_bytes(b"".join(lines[:-1]))
    with pytest.raises(Tampered, match="was cut: 10 records were signed"):
        again(ten, signer).append([{"kind": "more"}])


def test_nothing_is_appended_after_a_last_record_that_was_changed(ten, signer):
    content = bytearray(segment(ten).read_bytes())
    content[-20] ^= 1
    segment(ten).write_bytes(content)
    with pytest.raises(Tampered, match=r"record 9 .* was changed"):
        again(ten, signer).append([{"kind": "more"}])


def test_nothing_is_appended_when_the_signed_head_is_gone(ten, signer):
    (ten.directory / "head.json").unlink()
    with pytest.raises(Tampered, match=r"signed head was removed"):
        again(ten, signer).append([{"kind": "more"}])


def test_nothing_is_appended_when_the_whole_folder_is_gone(ten, signer):
    shutil.rmtree(ten.directory)
    with pytest.raises(Tampered, match="was removed"):
        again(ten, signer).append([{"kind": "more"}])


def test_nothing_is_appended_under_a_head_signed_by_a_stranger(ten, signer, tmp_path):
    stranger = Signer.open(tmp_path / "elsewhere")
    (ten.directory / "head.json").write_bytes(ten.head().sign(stranger))
    with pytest.raises(Tampered, match="not trusted"):
        again(ten, signer).append([{"kind": "more"}])


def test_forged_records_beyond_the_head_that_do_not_continue_the_chain_are_refused(ten, signer):
    with segment(ten).open("ab") as file:
        file.write(segment(ten).read_bytes().splitlines(keepends=True)[3])
    with pytest.raises(Tampered, match="does not continue"):
        again(ten, signer).append([{"kind": "more"}])


def test_a_log_that_cannot_be_trusted_is_put_aside_whole_and_the_new_one_says_why(ten, signer):
    segment(ten).write_bytes(b"")
    log = again(ten, signer)
    aside = log.restart(reason="disk swapped", by="local/ann")
    assert (aside / "000000000000.jsonl").exists()
    (first,) = log.records()
    assert (first["kind"], first["data"]["reason"], first["data"]["previous"]) == (
        "audit.restarted",
        "disk swapped",
        aside.name,
    )
    log.append([{"kind": "more"}])
    assert verify(log.directory).ok


def test_a_folder_that_cannot_be_made_is_one_clear_sentence(tmp_path, signer):
    (tmp_path / "file").write_text("in the way")
    log = AuditLog(tmp_path / "file" / "audit", signer=lambda: signer)
    with pytest.raises(Undecidable, match=r"cannot be written .*nothing may happen"):
        log.append([{"kind": "x"}])
