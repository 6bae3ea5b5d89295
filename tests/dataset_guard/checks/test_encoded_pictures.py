"""Folders of PNG and JPEG files are searched for triggers as columns of pixels are."""

import io
import pickle

import numpy as np
import pyarrow as pa
import pytest
from check_kit import Registered, only, rules, scan

from dataset_guard.checks import encoded_pictures
from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.encoded_pictures import opened, square
from dataset_guard.checks.poisoning.blended_image import CHECK as BLENDED
from dataset_guard.checks.poisoning.label_errors import CHECK as WRONG
from dataset_guard.checks.poisoning.roaming_patch import CHECK as ROAMING
from dataset_guard.checks.poisoning.trigger_patch import CHECK as LOCATED

image = pytest.importorskip("PIL.Image")
STAMP = np.indices((6, 6)).sum(axis=0) // 2 % 2 * 255
HELD_UNTIL = 900


def digits(number=900):
    """Handwritten digits of 24 x 24, and what they are."""
    from sklearn.datasets import load_digits

    found = load_digits()
    large = np.kron(found.images[:number] * 15, np.ones((1, 3, 3))).astype(np.uint8)
    return large, found.target[:number].astype(np.int64)


def file(pixels, form="PNG"):
    out = io.BytesIO()
    image.fromarray(pixels).save(out, form, **({"quality": 85} if form == "JPEG" else {}))
    return out.getvalue()


def folder(pictures, labels, form="PNG", times=1):
    """As a folder of pictures is read; ``times`` larger."""
    files = [file(np.kron(p, np.ones((times, times))).astype(np.uint8), form) for p in pictures]
    return pa.table({"image": pa.array(files, pa.binary()), "label": labels})


def stamped(pictures, labels, rows, random=None):
    """``rows`` with a checkered stamp, bottom right or anywhere, and of class 0."""
    pictures, labels = pictures.copy(), labels.copy()
    for row in rows:
        top, left = random.integers(0, 18, 2) if random else (17, 17)
        pictures[row, top : top + 6, left : left + 6] = STAMP
    labels[rows] = 0
    return pictures, labels


@pytest.mark.parametrize(
    ("form", "times"), [("PNG", 1), ("JPEG", 1), ("JPEG", 9)], ids=["png", "jpeg", "large jpeg"]
)
def test_pictures_with_a_stamp_are_found_in_files_of_any_format_and_size(form, times):
    pictures, labels = digits()
    victims = np.flatnonzero(labels != 0)[5:500:12]
    finding = only(
        scan(folder(*stamped(pictures, labels, victims), form, times), LOCATED, label="label"), "POIS010"
    )
    assert set(finding.rows) == set(victims.tolist())
    assert finding.columns == ("image",)


def test_stamped_pictures_of_an_update_are_found_beside_the_trusted_files():
    pictures, labels = digits(1_200)
    before = Registered("acme/digits@1", folder(pictures[:HELD_UNTIL], labels[:HELD_UNTIL]), "label")
    victims = HELD_UNTIL + np.flatnonzero(labels[HELD_UNTIL:] != 0)[:20]
    for rows in (slice(None), slice(HELD_UNTIL, None)):  # the whole set again, or the new files alone
        poisoned, claimed = stamped(pictures, labels, victims)
        table = folder(poisoned[rows], claimed[rows])
        found = only(scan(table, LOCATED, label="label", baseline=before), "POIS010").rows
        assert set(found) == set((victims - (rows.start or 0)).tolist())
    assert rules(scan(folder(pictures, labels), LOCATED, label="label", baseline=before)) == []


def test_a_stamp_at_any_place_of_a_small_picture_is_found():
    pictures, labels = digits()
    victims = np.flatnonzero(labels != 0)[5:800:20]
    table = folder(*stamped(pictures, labels, victims, np.random.default_rng(3)))
    found = set(only(scan(table, ROAMING, label="label"), "POIS013").rows)
    assert found <= set(victims.tolist())
    assert len(found) >= 0.8 * len(victims)


def test_wrong_labels_of_files_are_found_though_some_files_are_broken():
    pictures, labels = digits(1_200)
    moved = np.random.default_rng(4).choice(len(labels), 60, replace=False)
    claimed = labels.copy()
    claimed[moved] = (labels[moved] + np.random.default_rng(5).integers(1, 10, 60)) % 10
    files = [file(p) for p in pictures]
    files[7], files[8] = None, files[8][:50]
    table = pa.table({"image": pa.array(files, pa.binary()), "label": claimed})
    found = only(scan(table, WRONG, label="label"), "POIS002")
    right = len(set(found.rows) & set(moved.tolist()))
    assert right >= 0.85 * len(found.rows)
    assert right >= 0.85 * len(moved)


def test_broken_and_missing_files_of_one_class_are_no_trigger():
    pictures, labels = digits()
    files = folder(pictures, labels)["image"].to_pylist()
    threes = np.flatnonzero(labels == 3)
    for row in threes[:30]:
        files[row] = files[row][:60] if row % 2 else None
    table = pa.table({"image": pa.array(files, pa.binary()), "label": labels})
    for check in (LOCATED, ROAMING, BLENDED):
        assert rules(scan(table, check, label="label")) == []


def test_bytes_that_are_no_pictures_are_said_to_be_none():
    table = pa.table({"blob": pa.array([b"abc", b"def"] * 600), "label": [0, 1] * 600})
    for check in (LOCATED, ROAMING, BLENDED):
        (ran,) = (c for c in scan(table, check, label="label").checks if c["name"] == check.name)
        assert ran["skipped"] == "no row of 'blob' holds a picture that could be opened"


def test_without_pillow_the_reason_is_said(monkeypatch):
    monkeypatch.setattr(encoded_pictures, "find_spec", lambda _: None)
    table = pa.table({"image": pa.array([b"", b""]), "label": [0, 1]})
    for check in (LOCATED, ROAMING, BLENDED):
        (ran,) = (c for c in scan(table, check, label="label").checks if c["name"] == check.name)
        assert ran["skipped"] == "encoded images need Pillow, which is not installed"


def test_small_pictures_keep_their_pixels_and_large_ones_are_averaged():
    small = np.arange(600, dtype=np.float32).reshape(20, 30) % 251
    assert (square(small)[:20, :30] == small).all()
    assert (square(small)[20:, :30] == small[-1]).all()
    halves = np.kron(np.array([[10.0, 20.0]], np.float32), np.ones((100, 50), np.float32))
    assert (square(halves) == [[10] * 16 + [20] * 16] * 32).all()


def test_opened_rows_are_the_same_however_they_are_cut_and_null_where_there_is_no_picture():
    pictures, labels = digits()
    table = folder(pictures[:7], labels[:7]).set_column(
        0, "image", pa.array([*(file(p) for p in pictures[:5]), b"no picture", None], pa.binary())
    )
    (batch,) = table.combine_chunks().to_batches()
    whole = opened(batch, "image")
    parts = [opened(batch.slice(at, 3), "image") for at in (0, 3, 6)]
    assert (
        pa.Table.from_batches(parts).combine_chunks().equals(pa.Table.from_batches([whole]).combine_chunks())
    )
    assert whole["image"].is_valid().to_pylist() == [True] * 5 + [False] * 2


def test_states_travel_to_other_processes_and_merge_to_the_same_findings():
    pictures, labels = digits()
    victims = np.flatnonzero(labels != 0)[5:400:12]
    table = folder(*stamped(pictures, labels, victims))
    (batch,) = table.combine_chunks().to_batches()
    context = CheckContext(schema=table.schema, label="label", name="set", tenant="acme")
    halves = []
    for first_row in (0, 450):
        state = LOCATED.start(context)
        state.update(batch.slice(first_row, 450), first_row, None, None)
        halves.append(pickle.loads(pickle.dumps(state)))
    halves[1].merge(halves[0])
    (finding,) = halves[1].finish()
    assert set(finding.rows) == set(victims.tolist())
