import random
import shutil

import pytest

from guard_core.attestation import Signer, Verifier
from guard_core.audit import verify
from guard_core.audit.log import AuditLog
from guard_core.errors import UserError


def file_of(log):
    return log.directory / "000000000000.jsonl"


def lines_of(log):
    return file_of(log).read_bytes().splitlines(keepends=True)


def test_a_whole_log_is_whole_and_signed_to_its_end(ten):
    report = verify(ten.directory)
    assert (report.ok, report.records, report.signed, report.problems) == (True, 10, 10, ())
    assert report.head == list(ten.records())[-1]["_hash"]
    assert report.root == ten.head().root


def test_any_single_byte_changed_anywhere_names_its_record(ten):
    good = file_of(ten).read_bytes()
    starts = [0]
    for line in lines_of(ten):
        starts.append(starts[-1] + len(line))
    places = [*range(starts[1]), *random.Random(7).sample(range(len(good)), 400)]
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        file_of(ten).write_bytes(bad)
        report = verify(ten.directory)
        number = max(i for i, start in enumerate(starts) if start <= place)
        assert not report.ok, f"byte {place} was changed unseen"
        named = {problem.record for problem in report.problems}
        # The newline that ends a record may also be missed by the record after it.
        assert named & {number, number + 1} or bad[place] == 0x0A, (
            f"byte {place} of record {number}: {report.problems}"
        )
    file_of(ten).write_bytes(good)
    assert verify(ten.directory).ok


def test_the_first_problem_names_record_file_and_line(ten):
    content = file_of(ten).read_bytes().replace(b'"number":4', b'"number":5')
    file_of(ten).write_bytes(content)
    problem = verify(ten.directory).problems[0]
    assert (problem.record, problem.file, problem.line) == (4, "000000000000.jsonl", 5)
    assert "record 4 was changed" in problem.message


@pytest.mark.parametrize("number", [0, 4, 9])
def test_a_record_taken_out_is_missed(ten, number):
    lines = lines_of(ten)
    file_of(ten).write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
    report = verify(ten.directory)
    assert not report.ok
    assert report.problems[0].record == number


def test_records_exchanged_are_noticed(ten):
    lines = lines_of(ten)
    lines[2], lines[3] = lines[3], lines[2]
    file_of(ten).write_bytes(b"".join(lines))
    assert not verify(ten.directory).ok


def test_a_tail_cut_off_is_missed_with_the_numbers_of_what_is_gone(ten):
    file_of(ten).write_bytes(b"".join(lines_of(ten)[:7]))
    report = verify(ten.directory)
    assert not report.ok
    assert "records 7 to 9 are missing" in report.problems[0].message


def test_a_log_rewritten_with_good_hashes_does_not_fit_the_signed_head(ten, tmp_path, signer):
    forged = AuditLog(tmp_path / "forged", signer=lambda: signer)
    for number in range(10):
        forged.append([{"kind": "test.counted", "number": number + 1}])
    shutil.copy(forged.directory / "000000000000.jsonl", file_of(ten))
    report = verify(ten.directory)
    assert not report.ok
    assert "rewritten" in report.problems[0].message


def test_a_log_rewritten_and_signed_with_another_key_is_not_trusted(ten, tmp_path):
    stranger = Signer.open(tmp_path / "elsewhere")
    forged = AuditLog(tmp_path / "forged", signer=lambda: stranger)
    forged.append([{"kind": "innocent"}])
    shutil.rmtree(ten.directory)
    shutil.copytree(forged.directory, ten.directory)
    report = verify(ten.directory)
    assert not report.ok
    assert "not trusted" in report.problems[0].message


@pytest.mark.parametrize("victim", [0, 1, -1])
def test_a_deleted_segment_is_missed(tmp_path, signer, victim):
    log = AuditLog(tmp_path / "audit", signer=lambda: signer, segment_bytes=500)
    for number in range(12):
        log.append([{"kind": "test", "number": number, "filler": "x" * 100}])
    sorted(log.directory.glob("*.jsonl"))[victim].unlink()
    assert not verify(log.directory).ok


def test_a_removed_head_is_a_problem_not_a_fresh_start(ten):
    (ten.directory / "head.json").unlink()
    report = verify(ten.directory)
    assert not report.ok
    assert "head.json is missing" in report.problems[0].message


def test_a_removed_log_is_a_problem_because_the_anchor_remembers_it(ten):
    for path in ten.directory.iterdir():
        path.unlink()
    report = verify(ten.directory)
    assert not report.ok
    assert "was removed" in report.problems[0].message


def test_a_kept_head_proves_that_an_older_copy_was_put_back(ten):
    old = {p.name: p.read_bytes() for p in ten.directory.iterdir()}
    ten.append([{"kind": "the deed"}])
    kept = (ten.directory / "head.json").read_bytes()
    assert verify(ten.directory, witness=kept).ok
    for name, content in old.items():
        (ten.directory / name).write_bytes(content)
    assert verify(ten.directory).ok  # the home alone cannot know: that is the stated limit
    report = verify(ten.directory, witness=kept)
    assert not report.ok
    assert "does not reach the kept head of 11" in report.problems[0].message


def test_a_kept_head_of_an_earlier_day_is_continued_by_the_log(ten):
    kept = (ten.directory / "head.json").read_bytes()
    ten.append([{"kind": "later"}])
    assert verify(ten.directory, witness=kept).ok


def test_an_exported_file_can_be_checked_alone_but_is_signed_by_nobody(ten, tmp_path):
    copy = tmp_path / "export.jsonl"
    copy.write_bytes(b"".join(lines_of(ten)[3:]))
    report = verify(copy)
    assert (report.ok, report.records, report.signed) == (True, 7, 0)
    copy.write_bytes(copy.read_bytes().replace(b'"number":6', b'"number":7'))
    assert verify(copy).problems[0].record == 6


def test_public_keys_can_be_given_where_the_home_is_not(ten, tmp_path):
    key = next((tmp_path / "keys").glob("*.pub.pem")).rename(tmp_path / "auditor.pem")
    assert not verify(ten.directory).ok
    assert verify(ten.directory, verifier=Verifier.of(key)).ok


def test_nothing_to_check_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="there is no audit log"):
        verify(tmp_path / "nowhere")
