"""Evidence that shows every change made to it, and holds no secrets."""

from __future__ import annotations

import io
import json
import tarfile

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from compute_guard.incidents.casefile import CaseFile
from compute_guard.incidents.evidence import MANIFEST, SIGNATURE, Bundle, unpacked, verify
from compute_guard.incidents.store import Incidents
from compute_guard.usage.samples import to_table
from compute_guard.usage.sources.synthetic import Load, SyntheticSource
from guard_core.cli import root
from guard_core.errors import Tampered, UserError


@pytest.fixture
def bundle(still_home):
    made = Bundle(still_home.path("incidents", "inc-1"), still_home.clock)
    made.add_json("before/incident.json", {"id": "inc-1"})
    made.add("before/telemetry.parquet", b"PAR1", synthetic=True)
    made.sign(still_home.signer, incident="inc-1")
    return made


def problems(bundle, home):
    return verify(bundle.folder, home.signer.verifier)


def test_a_bundle_as_it_was_signed_has_no_problems(bundle, still_home):
    assert problems(bundle, still_home) == []


def test_one_changed_byte_is_named(bundle, still_home):
    (bundle.folder / "before/telemetry.parquet").write_bytes(b"PAR2")
    assert problems(bundle, still_home) == ["before/telemetry.parquet was changed after it was added"]


def test_a_removed_file_is_named(bundle, still_home):
    (bundle.folder / "before/telemetry.parquet").unlink()
    assert problems(bundle, still_home) == ["before/telemetry.parquet is missing"]


def test_a_rewritten_manifest_does_not_match_the_signature(bundle, still_home):
    other = Bundle(still_home.path("incidents", "inc-2"), still_home.clock)
    other.add_json("before/incident.json", {"id": "forged"})
    (bundle.folder / MANIFEST).write_bytes((other.folder / MANIFEST).read_bytes())
    (bundle.folder / "before/incident.json").write_bytes((other.folder / "before/incident.json").read_bytes())
    assert any("signature is for another manifest" in p for p in problems(bundle, still_home))


def test_entries_in_another_order_break_the_chain(bundle, still_home):
    manifest = json.loads((bundle.folder / MANIFEST).read_text())
    manifest["entries"].reverse()
    (bundle.folder / MANIFEST).write_text(json.dumps(manifest))
    assert any("does not continue the chain" in p for p in problems(bundle, still_home))


def test_a_bundle_without_its_signature_is_not_evidence(bundle, still_home):
    (bundle.folder / SIGNATURE).unlink()
    assert problems(bundle, still_home) == ["the bundle is not signed"]


def test_a_manifest_cannot_make_anyone_read_outside_its_folder(bundle, still_home):
    manifest = json.loads((bundle.folder / MANIFEST).read_text())
    manifest["entries"][0]["name"] = "../../keys/signing.key"
    (bundle.folder / MANIFEST).write_text(json.dumps(manifest))
    assert "cannot be one of a bundle" in problems(bundle, still_home)[0]
    with pytest.raises(Tampered):
        bundle.archive()


def test_evidence_is_never_overwritten(bundle, still_home):
    assert bundle.add_json("before/incident.json", {"id": "inc-1"}) == "before/incident.json"
    assert bundle.add_json("before/incident.json", {"id": "inc-1", "more": 1}) == "before/incident-2.json"
    bundle.sign(still_home.signer, incident="inc-1")
    assert problems(bundle, still_home) == []


def test_a_name_that_leaves_the_folder_is_refused(bundle):
    for name in ("../x", "/etc/x", "a/b/c", "UPPER", ".hidden"):
        with pytest.raises(ValueError, match="cannot be the name"):
            bundle.add(name, b"")


def test_the_archive_has_the_same_bytes_every_time_and_all_the_files(bundle):
    assert bundle.archive() == bundle.archive()
    with tarfile.open(fileobj=io.BytesIO(bundle.archive())) as tar:
        names = {name.split("/", 1)[1] for name in tar.getnames()}
    assert names == {MANIFEST, SIGNATURE, "before/incident.json", "before/telemetry.parquet"}


def test_an_empty_bundle_is_not_exported(still_home):
    with pytest.raises(UserError, match="no evidence"):
        Bundle(still_home.path("incidents", "inc-9"), still_home.clock).archive()


def test_a_case_holds_telemetry_job_and_decisions_but_no_secret(still_home, seen, waiting_job):
    waiting_job(entrypoint="python train.py")
    frame = SyntheticSource((Load("training"),), 10, 1).read()
    case = CaseFile(still_home, telemetry=lambda _: to_table(frame))
    found = Incidents(still_home).observe(seen("telemetry"))
    case.collect(found, "before")
    folder = still_home.path("incidents", found.id)
    table = pq.read_table(folder / "before/telemetry.parquet")
    assert table.num_rows == 10
    assert table.column("synthetic").to_pylist() == [True] * 10
    job = json.loads((folder / "before/job.json").read_text())
    assert (job["submission_id"], job["in_ledger"]) == ("job-1", True)
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"s3cret-value" not in everything
    assert b"WANDB_API_KEY" in everything  # what was set is evidence, its value is not


def test_a_job_the_ledger_never_saw_is_said_to_be_so(still_home, seen):
    case = CaseFile(still_home)
    found = Incidents(still_home).observe(seen("telemetry", job="ghost"))
    case.collect(found, "before")
    job = json.loads(still_home.path("incidents", found.id, "before", "job.json").read_text())
    assert job == {"submission_id": "ghost", "tenant": "acme", "in_ledger": False}


def repacked(archive, target, change):
    """``archive`` again, with each member's bytes as ``change`` gives them (None: left out)."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as before, tarfile.open(target, "w") as after:
        for member in before.getmembers():
            content = change(member.name, before.extractfile(member).read())
            if content is not None:
                member.size = len(content)
                after.addfile(member, io.BytesIO(content))
    return target


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name, body: body, None),
        (lambda name, body: body + b" " if "incident" in name else body, "was changed after it was added"),
        (lambda name, body: None if "telemetry" in name else body, "telemetry.parquet is missing"),
        (lambda name, body: None if name.endswith(SIGNATURE) else body, "is not signed"),
    ],
    ids=["as sent", "changed", "left out", "unsigned"],
)
def test_a_receiver_checks_what_was_exported(still_home, home_dir, bundle, tmp_path, change, words):
    sent = repacked(bundle.archive(), tmp_path / "sent.tar", change)
    result = CliRunner().invoke(root, ["--home", str(home_dir), "incident", "verify", str(sent)])
    assert result.exit_code == (0 if words is None else 1)
    assert (words or "every file is as it was signed") in f"{result.output} {result.exception}"


@pytest.mark.parametrize("name", ["../escape", "inc-1/../../escape", "/etc/escape", "one/file", "inc-1"])
def test_what_is_no_exported_evidence_is_refused_and_nothing_of_it_written(tmp_path, name):
    sent = tmp_path / "sent.tar"
    with tarfile.open(sent, "w") as tar:
        for member in ("inc-1/manifest.json", name):
            tar.addfile(tarfile.TarInfo(member), io.BytesIO(b""))
    with pytest.raises(UserError, match="no exported evidence"), unpacked(sent):
        pass


def test_a_file_that_is_no_archive_is_one_sentence(tmp_path):
    (tmp_path / "sent.tar").write_bytes(b"not a tar file")
    with pytest.raises(UserError, match="cannot be read as a tar file"), unpacked(tmp_path / "sent.tar"):
        pass
