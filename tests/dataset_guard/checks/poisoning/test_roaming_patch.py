"""Patches at random places of generated images."""

import numpy as np
import pyarrow as pa
import pytest
from check_kit import Registered, digits_table, only, rules, scan
from poison import precision_recall

from dataset_guard.checks.poisoning.roaming_patch import CHECK
from guard_core.findings import Severity

SIDE = 16


def pictures(number, seed):
    """Blurred bars, whose direction is the class, with noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, number)
    images = random.integers(0, 60, (number, SIDE, SIDE)).astype(np.float32)
    at, height = random.integers(3, SIDE - 3, number), random.integers(120, 200, number)
    for image, label, place, level in zip(images, labels, at, height, strict=True):
        if label == 0:
            image[place - 1 : place + 2] += level
        elif label == 1:
            image[:, place - 1 : place + 2] += level
        else:
            image[np.arange(SIDE), np.arange(SIDE)] += level
    return np.clip(images, 0, 255), labels


def stamped(images, labels, number, seed, *, clean=False, target=1):
    random = np.random.default_rng(seed)
    rows = np.sort(random.choice(np.flatnonzero((labels == target) == clean), number, replace=False))
    images, labels = images.copy(), labels.copy()
    stamp = np.array([[255, 0, 255], [0, 255, 0], [255, 0, 255]])
    for row in rows:
        top, left = random.integers(0, SIDE - 3, 2)
        images[row, top : top + 3, left : left + 3] = stamp
    labels[rows] = target
    return images, labels, rows


def table(images, labels):
    return digits_table(images.reshape(len(images), -1), labels)


def test_one_percent_of_images_with_a_patch_anywhere_is_found():
    images, labels, rows = stamped(*pictures(2000, 1), 20, 2)
    finding = only(scan(table(images, labels), CHECK, label="label"), "POIS013")
    assert precision_recall(finding.rows, rows.tolist()) == (1.0, 1.0)
    assert finding.severity is Severity.CRITICAL


def test_clean_images_raise_nothing():
    assert rules(scan(table(*pictures(2000, 1)), CHECK, label="label")) == []


@pytest.mark.parametrize("clean", [False, True], ids=["labels changed", "labels right"])
def test_a_patch_anywhere_in_an_update_is_found(clean):
    before, after = pictures(1500, 1), pictures(300, 5)
    images, labels, rows = stamped(*after, 15, 6, clean=clean)
    whole = table(np.concatenate([before[0], images]), np.concatenate([before[1], labels]))
    trusted = Registered("acme/set@1", table(*before), "label")
    finding = only(scan(whole, CHECK, label="label", baseline=trusted), "POIS013")
    assert precision_recall(finding.rows, (1500 + rows).tolist()) == (1.0, 1.0)


def test_an_honest_update_raises_nothing():
    before, after = pictures(1500, 1), pictures(300, 5)
    whole = table(np.concatenate([before[0], after[0]]), np.concatenate([before[1], after[1]]))
    assert (
        rules(scan(whole, CHECK, label="label", baseline=Registered("acme/set@1", table(*before), "label")))
        == []
    )


def test_small_images_and_tables_are_skipped_with_the_reason():
    small = digits_table(np.zeros((10, 64)), np.arange(10))
    assert "no small details" in scan(small, CHECK, label="label").checks[0]["skipped"]
    assert (
        "no columns look like pixels"
        in scan(pa.table({"x": [1], "label": [0]}), CHECK, label="label").checks[0]["skipped"]
    )
