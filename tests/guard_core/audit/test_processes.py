"""Real processes on one log: many writers at once, writers killed, a disk that is full."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from guard_core.audit import verify
from guard_core.audit.log import AuditLog

WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from guard_core.attestation import Signer
    from guard_core.audit.log import AuditLog
    root, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    signer = Signer.open(root / "keys")
    log = AuditLog(root / "audit", signer=lambda: signer, anchor=root / "keys" / "audit.anchor")
    print("ready", flush=True)
    for number in range(count):
        log.append([{"kind": "test", "writer": name, "number": number}])
        print(number, flush=True)
    """
)


def start(root, name, count, **options):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), name, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def test_many_processes_append_to_one_log_and_no_record_is_lost_or_doubled(tmp_path):
    writers = [start(tmp_path, f"w{i}", 40) for i in range(4)]  # the key and the log are made in the race too
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    report = verify(tmp_path / "audit")
    assert (report.ok, report.records, report.signed) == (True, 160, 160)
    log = AuditLog(tmp_path / "audit", signer=lambda: None)
    seen = [(r["writer"], r["number"]) for r in log.records()]
    assert sorted(seen) == sorted((f"w{i}", n) for i in range(4) for n in range(40))
    for i in range(4):
        assert [n for w, n in seen if w == f"w{i}"] == list(range(40))


def test_kill_9_while_appending_loses_nothing_acknowledged_and_the_log_goes_on(tmp_path, signer):
    acknowledged = 0
    for attempt, wanted in enumerate((1, 5, 12, 30)):
        writer = start(tmp_path, f"k{attempt}", 100_000)
        told = []
        for line in writer.stdout:
            if line.strip().isdigit():
                told.append(int(line))
            if len(told) >= wanted:
                break
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        acknowledged = len(told) + sum(word.isdigit() for word in rest)
        log = AuditLog(tmp_path / "audit", signer=lambda: signer, anchor=tmp_path / "keys" / "audit.anchor")
        log.recover()
        log.append([{"kind": "after", "attempt": attempt}])
        written = [r["number"] for r in log.records(kind="test") if r["writer"] == f"k{attempt}"]
        assert written == list(range(len(written)))
        assert len(written) >= acknowledged
        assert verify(tmp_path / "audit").ok


FULL = textwrap.dedent(
    """
    import resource, signal, sys
    from pathlib import Path
    from guard_core.attestation import Signer
    from guard_core.audit.log import AuditLog
    from guard_core.errors import Undecidable
    root = Path(sys.argv[1])
    signer = Signer.open(root / "keys")
    log = AuditLog(root / "audit", signer=lambda: signer)
    log.append([{"kind": "small"}])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # the kernel itself refuses to write further
    try:
        for number in range(100):
            log.append([{"kind": "big", "filler": "x" * 700}])
    except Undecidable as error:
        print(number, error)
    """
)


def test_a_disk_that_is_full_leaves_the_log_whole_and_says_so_in_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True
    )
    number, _, message = done.stdout.partition(" ")
    assert "cannot be written (File too large), so nothing may happen" in message
    report = verify(tmp_path / "audit")
    assert (report.ok, report.torn_bytes) == (True, 0)
    assert report.records == 1 + int(number)
    assert not list((tmp_path / "audit").glob("*.tmp"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user to be refused")
def test_a_folder_of_another_user_is_refused_in_one_sentence(tmp_path, signer):
    log = AuditLog(tmp_path / "audit", signer=lambda: signer)
    log.append([{"kind": "x"}])
    script = textwrap.dedent(
        f"""
        import os
        from pathlib import Path
        from guard_core.audit.log import AuditLog
        from guard_core.errors import Undecidable
        import guard_core.audit.verify
        os.setuid(65534)
        try:
            AuditLog(Path({str(log.directory)!r}), signer=None).append([])
        except Undecidable as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "(Permission denied), so nothing may happen" in done.stdout
