"""Large files are recognised by tags under the tenant's key; whatever differs is seen, and BLAKE3 decides."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3

import dataset_guard
from dataset_guard.reading import open_source
from dataset_guard.registry.store import Registry
from dataset_guard.sidecars import file_tags, manifest
from dataset_guard.sidecars.file_tags import Expected, FileTags, has_aes
from dataset_guard.sidecars.manifest import manifest_of
from guard_core.errors import Tampered

KEY = bytes(range(32))
GOLDEN = Path(__file__).parents[2] / "golden" / "v1"
LARGE = 3 * 1_000 + 7


@pytest.fixture
def segmented(monkeypatch):
    """Segments of 1,000 bytes in pieces of 300."""
    monkeypatch.setattr(file_tags, "SEGMENT_BYTES", 1_000)
    monkeypatch.setattr(file_tags, "PIECE_BYTES", 300)


@pytest.fixture
def tagged(tmp_path, segmented):
    """Tags, a file of three segments and a bit, and what it should be."""
    file = tmp_path / "large"
    file.write_bytes(os.urandom(LARGE))
    tags = FileTags(KEY, fast=True)
    digest = tags.digest(file)
    assert digest == blake3(file.read_bytes()).hexdigest()
    return tags, file, Expected(file, digest, LARGE)


def spoiled(raw, at):
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def test_an_unchanged_file_has_its_tags(tagged):
    tags, _, expected = tagged
    assert tags.same([expected, expected]) == [True, True]


@pytest.mark.parametrize("at", [0, 299, 999, 1_000, 2_999, 3_000, LARGE - 1])
def test_a_changed_byte_is_seen_wherever_it_is(tagged, at):
    tags, file, expected = tagged
    file.write_bytes(spoiled(file.read_bytes(), at))
    assert tags.same([expected]) == [False]


def test_a_file_cut_short_removed_or_in_another_order_is_not_the_same(tagged):
    tags, file, expected = tagged
    raw = file.read_bytes()
    for other in (raw[:-1], raw[1_000:2_000] + raw[:1_000] + raw[2_000:], b""):
        file.write_bytes(other)
        assert tags.same([expected]) == [False]
    file.unlink()
    assert tags.same([expected]) == [False]


def test_without_aes_instructions_blake3_decides_and_no_tags_are_made(tagged, tmp_path, monkeypatch):
    tags, file, expected = tagged
    assert tags.write(tmp_path / "tags", [expected.blake3])
    slow = FileTags(KEY, fast=False)
    slow.load(tmp_path / "tags")
    assert slow.same([expected]) == [False]  # not known: it is hashed
    monkeypatch.setattr(manifest, "_SMALL_BYTES", 100)
    fresh = FileTags(KEY, fast=False)
    assert manifest.file_digest(file, tags=fresh) == expected.blake3
    assert not fresh.write(tmp_path / "none", [expected.blake3])


@pytest.mark.parametrize(
    ("said", "there"),
    [
        ("flags\t\t: fpu aes avx2\n", True),
        ("flags\t\t: fpu vaes sse2\n", False),
        ("Features\t: fp asimd aes pmull\n", True),
        ("Features\t: fp asimd\n", False),
        ("processor : 0\n", True),
        (None, True),
    ],
)
def test_aes_instructions_are_read_from_the_processors_own_list(tmp_path, said, there):
    if said is not None:
        (tmp_path / "cpuinfo").write_text(said)
    assert has_aes(tmp_path / "cpuinfo") is there


def test_another_tenants_key_recognises_nothing(tagged, tmp_path):
    tags, _, expected = tagged
    assert tags.write(tmp_path / "files.tags", [expected.blake3])
    for key, known in ((KEY, True), (bytes(32), False)):
        other = FileTags(key)
        other.load(tmp_path / "files.tags")
        assert other.same([expected]) == [known]
    assert FileTags(KEY).same([expected]) == [False]


def test_only_the_tags_of_a_versions_own_files_are_written(tagged, tmp_path):
    assert not tagged[0].write(tmp_path / "files.tags", ["00" * 32])
    assert not (tmp_path / "files.tags").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"format": "other", "segment_bytes": 1, "files": {}}'])
def test_a_file_that_holds_no_tags_is_refused(tmp_path, text):
    (tmp_path / "files.tags").write_text(text)
    with pytest.raises(Tampered, match="does not hold tags of files"):
        FileTags(KEY).load(tmp_path / "files.tags")


@pytest.mark.parametrize("name", ["file-tags.json", "file-tags-aegis.json"])
def test_tags_of_every_release_are_still_known(tmp_path, name):
    golden = json.loads((GOLDEN / name).read_text())
    raw = bytes.fromhex(golden["seed"]) * golden["repeats"]
    (tmp_path / "data").write_bytes(raw)
    (tmp_path / "files.tags").write_text(json.dumps(golden["file"]))
    tags = FileTags(bytes.fromhex(golden["key"]))
    tags.load(tmp_path / "files.tags")
    [digest] = golden["file"]["files"]
    assert digest == blake3(raw).hexdigest()
    assert tags.same([Expected(tmp_path / "data", digest, len(raw))]) == [True]
    (tmp_path / "data").write_bytes(spoiled(raw, len(raw) - 1))
    assert tags.same([Expected(tmp_path / "data", digest, len(raw))]) == [False]


def test_tags_of_an_earlier_release_are_taken_over_beside_new_ones(tmp_path):
    golden = json.loads((GOLDEN / "file-tags.json").read_text())
    (tmp_path / "old").write_bytes(bytes.fromhex(golden["seed"]) * golden["repeats"])
    (tmp_path / "new").write_bytes(os.urandom(LARGE))
    (tmp_path / "files.tags").write_text(json.dumps(golden["file"]))
    tags = FileTags(bytes.fromhex(golden["key"]))
    tags.load(tmp_path / "files.tags")
    [old] = golden["file"]["files"]
    new = tags.digest(tmp_path / "new")
    assert tags.write(tmp_path / "both.tags", [old, new])
    again = FileTags(bytes.fromhex(golden["key"]))
    again.load(tmp_path / "both.tags")
    expected = [
        Expected(tmp_path / name, digest, (tmp_path / name).stat().st_size)
        for name, digest in (("old", old), ("new", new))
    ]
    assert again.same(expected) == [True, True]


def test_a_tag_is_the_specified_one(tagged):
    """Of the second segment, made by hand from the layout that file_tags.py gives."""
    from nacl.bindings import crypto_aead_aegis128l_encrypt as aegis

    tags, file, expected = tagged
    stored = tags._tags[expected.blake3][47:94]
    nonce, segment = stored[:15], file.read_bytes()[1_000:2_000]
    key = blake3(KEY, derive_key_context="trainguard 2026-11 file tags aegis").digest()[:16]
    pieces = [segment[at : at + 300] for at in range(0, 1_000, 300)]
    said = b"".join(aegis(b"", piece, nonce + bytes([n]), key) for n, piece in enumerate(pieces))
    over = blake3(KEY, derive_key_context="trainguard 2026-11 file tags over pieces").digest()
    assert stored[15:] == blake3(said, key=over).digest()


# --- registered versions -------------------------------------------------------------------------


@pytest.fixture
def version(tmp_path, home):
    """A folder with one file of 1.6 MB, registered."""
    folder = tmp_path / "set"
    folder.mkdir()
    table = pa.table({"x": pa.array(range(200_000)), "label": pa.array([0, 1] * 100_000)})
    pq.write_table(table, folder / "a.parquet", compression="none", use_dictionary=False)
    dataset_guard.register(folder, name="set", tenant="acme", home=home, checks=["schema"])
    return folder


@pytest.fixture
def hashed(monkeypatch):
    """The files that BLAKE3 was computed of."""
    from dataset_guard.sidecars import manifest

    seen, whole = [], manifest._readable_digest
    monkeypatch.setattr(
        manifest, "_readable_digest", lambda file, **how: (seen.append(file.name), whole(file, **how))[1]
    )
    return seen


def test_verify_recognises_by_tags_and_without_the_key_by_blake3(version, home, hashed):
    found = dataset_guard.verify("acme/set@1", home=home)
    assert (found.ok, found.keyed, hashed) == (True, True, [])
    found = dataset_guard.verify("acme/set@1", home=home, keyless=True)
    assert (found.ok, found.keyed, hashed) == (True, False, ["a.parquet"])
    said = [record["data"]["keyed"] for record in home.audit.records(kind="dataset.verified")]
    assert said == [True, False]


def test_a_key_that_was_lost_costs_speed_only(version, home, hashed):
    key = home.path("keys", "acme.rowkey")
    key.unlink()
    for other in ("", "00" * 32):
        if other:
            key.write_text(other)
        found = dataset_guard.verify("acme/set@1", home=home)
        assert (found.ok, found.keyed, hashed.pop()) == (True, False, "a.parquet")
        assert key.exists() == bool(other)


def test_a_change_is_found_although_size_and_time_are_kept(version, home):
    file = version / "a.parquet"
    before, raw = file.stat(), file.read_bytes()
    file.write_bytes(spoiled(raw, 1_000_000))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = dataset_guard.verify("acme/set@1", home=home)
    assert (found.ok, found.keyed, found.changes[0].file) == (False, False, "a.parquet")


def test_tags_that_were_tampered_with_are_found(version, home):
    path = Registry(home).get("set@1", tenant="acme").folder / "files.tags"
    path.write_bytes(spoiled(path.read_bytes(), 100))
    with pytest.raises(Tampered, match=r"files\.tags"):
        dataset_guard.verify("acme/set@1", home=home)


def test_a_set_that_grew_takes_over_digests_and_tags(version, home, hashed):
    pq.write_table(pa.table({"x": [1], "label": [0]}), version / "b.parquet")
    (version / "a.parquet").rename(version / "0.parquet")  # also under another name
    dataset_guard.register(version, name="set", tenant="acme", home=home, checks=["schema"])
    assert hashed == ["b.parquet"]
    reference = Registry(home).reference("set@2", tenant="acme")
    assert reference.manifest == manifest_of(open_source(version))
    hashed.clear()
    assert dataset_guard.verify("acme/set@2", home=home).keyed
    assert hashed == ["b.parquet"]
