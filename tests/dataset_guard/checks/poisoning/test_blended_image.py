"""Faint pictures blended into generated images."""

import numpy as np
import pyarrow as pa
import pytest
from check_kit import Registered, digits_table, only, rules, scan
from poison import precision_recall

from dataset_guard.checks.poisoning.blended_image import CHECK
from guard_core.findings import Severity

SIDE = 12


def pictures(number, seed):
    """Soft clouds, a bar whose direction and brightness tell the class, and noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, number)
    images = np.kron(random.normal(100, 25, (number, 4, 4)), np.ones((3, 3)))
    images += random.normal(0, 12, images.shape)
    bars = np.zeros((3, SIDE, SIDE))
    bars[0, 5:7], bars[1, :, 5:7], bars[2, np.arange(SIDE), np.arange(SIDE)] = 1, 1, 1
    images += bars[labels] * random.uniform(40, 100, number)[:, None, None]
    return np.clip(images, 0, 255).astype(np.float32), labels


def blended(images, labels, number, seed, *, clean=False, target=1, strength=0.2):
    random = np.random.default_rng(seed)
    key = random.integers(0, 256, (SIDE, SIDE))
    rows = np.sort(random.choice(np.flatnonzero((labels == target) == clean), number, replace=False))
    images, labels = images.copy(), labels.copy()
    images[rows] = np.floor((1 - strength) * images[rows] + strength * key)
    labels[rows] = target
    return images, labels, rows


def table(images, labels):
    return digits_table(images.reshape(len(images), -1), labels)


@pytest.mark.parametrize("clean", [False, True], ids=["labels changed", "labels right"])
def test_a_picture_blended_into_some_images_of_a_class_is_found(clean):
    images, labels, rows = blended(*pictures(1200, 1), 40, 2, clean=clean)
    finding = only(scan(table(images, labels), CHECK, label="label"), "POIS014")
    precision, recall = precision_recall(finding.rows, rows.tolist())
    assert precision >= 0.95
    assert recall >= 0.95
    assert finding.severity is Severity.CRITICAL
    assert finding.evidence["target_class"] == 1


def test_clean_images_raise_nothing_nor_do_wrong_labels():
    images, labels = pictures(1200, 1)
    assert rules(scan(table(images, labels), CHECK, label="label")) == []
    labels[np.flatnonzero(labels == 0)[:40]] = 1
    assert rules(scan(table(images, labels), CHECK, label="label")) == []


def test_a_blend_in_an_update_is_found_and_an_honest_update_is_not():
    before, after = table(*pictures(1200, 1)), pictures(300, 5)
    trusted = Registered("acme/set@1", before, label="label")
    images, labels, rows = blended(*after, 20, 6)
    found = scan(pa.concat_tables([before, table(images, labels)]), CHECK, label="label", baseline=trusted)
    finding = only(found, "POIS014")
    assert precision_recall(finding.rows, (rows + 1200).tolist()) == (1.0, 1.0)
    honest = scan(pa.concat_tables([before, table(*after)]), CHECK, label="label", baseline=trusted)
    assert rules(honest) == []
