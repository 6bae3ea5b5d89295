"""A set that grew is registered by hashing what is new; what is known is known by its bytes."""

import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from registered import table

import dataset_guard
from dataset_guard.commands.text import verification_text
from dataset_guard.hashing.rowhash import RowHasher
from dataset_guard.registry.store import Registry
from guard_core.errors import Tampered

SMALL = table(900, seed=3)


@pytest.fixture
def small(tmp_path, home):
    """A folder of three files, registered with a label."""
    folder = tmp_path / "small"
    folder.mkdir()
    for number in range(3):
        pq.write_table(SMALL.slice(300 * number, 300), folder / f"{number}.parquet")
    dataset_guard.register(folder, name="small", tenant="acme", label="label", home=home, checks=["schema"])
    return folder


@pytest.fixture
def hashed(monkeypatch):
    """How many rows were hashed, batch by batch."""
    seen, whole = [], RowHasher.hash
    monkeypatch.setattr(RowHasher, "hash", lambda self, b: (seen.append(b.num_rows), whole(self, b))[1])
    return seen


def registered(folder, home, name="small", **how):
    how = {"label": "label", **how}
    found = dataset_guard.register(folder, name=name, tenant="acme", home=home, checks=["schema"], **how)
    record = Registry(home).reference(found.ref, tenant="acme")
    return record.record, record


def test_a_registration_of_a_grown_set_hashes_the_new_rows_only(small, home, hashed):
    pq.write_table(table(70, seed=9), small / "1-more.parquet")  # between the files that are there
    grown, reference = registered(small, home)
    assert sum(hashed) == 70
    fresh, other = registered(small, home, name="other")
    assert sum(hashed) == 70 + 970
    for key in ("content", "rows_root"):
        assert grown[key] == fresh[key]
    assert np.array_equal(reference.row_hashes(), other.row_hashes())
    assert np.array_equal(reference.feature_hashes(), other.feature_hashes())


def test_of_a_folder_that_grew_the_old_version_is_still_read_and_compared(small, home):
    pq.write_table(table(70, seed=9), small / "3-more.parquet")
    registered(small, home)
    found = dataset_guard.diff("acme/small@1", "acme/small@2", home=home)
    assert (len(found.added), len(found.removed)) == (70, 0)
    assert dataset_guard.read("acme/small@1", home=home).to_table().num_rows == 900
    pq.write_table(SMALL.slice(0, 299), small / "0.parquet")
    with pytest.raises(Tampered, match=r"0\.parquet"):
        dataset_guard.read("acme/small@1", home=home).to_table()


def test_a_folder_that_grew_is_told_in_one_sentence(small, home):
    pq.write_table(table(70, seed=9), small / "3-more.parquet")
    alone = dataset_guard.verify("acme/small@1", home=home)
    registered(small, home)
    found = dataset_guard.verify("acme/small@1", home=home)
    kept = "the files of acme/small@1 have the bytes they were registered with, and it can be read as before"
    assert (alone.problems, alone.ok) == ((f"the folder grew by 3-more.parquet; {kept}",), False)
    said = f"the folder grew by 3-more.parquet; all together it is acme/small@2 now; {kept}"
    assert found.problems == (said,)
    assert verification_text(found) == f"acme/small@1  GREW\n  {said}"


@pytest.mark.parametrize("how", [{"label": None}, {"label": "name"}])
def test_another_label_has_other_hashes_so_all_rows_are_hashed(small, home, hashed, how):
    registered(small, home, **how)
    assert sum(hashed) == 900


def test_a_version_that_was_tampered_with_is_no_help(small, home, hashed):
    folder = Registry(home).get("small@1", tenant="acme").folder
    raw = bytearray((folder / "rows.sealed").read_bytes())
    raw[40] ^= 1
    (folder / "rows.sealed").write_bytes(raw)
    grown, _ = registered(small, home)
    assert sum(hashed) == 900
    assert grown["content"] == registered(small, home, name="other")[0]["content"]
    with pytest.raises(Tampered, match=r"rows\.sealed is not what was signed"):
        dataset_guard.verify("acme/small@1", home=home)


def test_a_file_with_other_bytes_is_hashed_whatever_its_clock_says(small, home, hashed):
    stat = (small / "1.parquet").stat()
    pq.write_table(SMALL.slice(300, 299), small / "1.parquet")
    os.utime(small / "1.parquet", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    grown, _ = registered(small, home)
    assert sum(hashed) == 899
    assert grown["content"]["rows"] == 899


def test_a_folder_whose_name_is_data_is_not_known_under_another_name(tmp_path, home, hashed):
    for value in (1, 2):
        (tmp_path / "parts" / f"k={value}").mkdir(parents=True)
        pq.write_table(SMALL.slice(0, 50), tmp_path / "parts" / f"k={value}" / "a.parquet")
    registered(tmp_path / "parts", home)
    del hashed[:]
    (tmp_path / "parts" / "k=2").rename(tmp_path / "parts" / "k=3")
    helped = dataset_guard.fingerprint(tmp_path / "parts", base="acme/small@1", home=home)
    assert helped.fingerprint == dataset_guard.fingerprint(tmp_path / "parts").fingerprint
    record, _ = registered(tmp_path / "parts", home)
    assert record["content"]["fingerprint"] == helped.fingerprint
    assert record["content"] == registered(tmp_path / "parts", home, name="other")[0]["content"]


def test_a_picture_that_changed_its_class_is_not_known(tmp_path, home):
    from PIL import Image

    for at, folder in enumerate(("cat", "cat", "dog")):
        (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (at, 0, 0)).save(tmp_path / "set" / folder / f"{at}.png")
    registered(tmp_path / "set", home)
    (tmp_path / "set" / "cat").rename(tmp_path / "set" / "cow")
    helped = dataset_guard.fingerprint(tmp_path / "set", base="acme/small@1", home=home)
    alone = dataset_guard.fingerprint(tmp_path / "set")
    assert (helped.fingerprint, helped.set_root) == (alone.fingerprint, alone.set_root)
