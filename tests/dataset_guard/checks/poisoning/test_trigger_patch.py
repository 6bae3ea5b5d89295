"""A trigger stamped on images of one class."""

import numpy as np
import pyarrow as pa
import pytest
from check_kit import Registered, digits_table, only, rules, scan
from poison import demo, digits, planted, precision_recall

from dataset_guard.checks.poisoning.trigger_patch import CHECK, TriggerPatch
from guard_core.findings import Severity

CORNER = [6, 7, 14, 15]


def trusted(table, *, gone=False):
    return Registered("acme/digits@1", table, "label", "train", gone)


def stamped(pixels, labels, rows, *, target=0, where=CORNER, value=16.0):
    pixels, labels = pixels.copy(), labels.copy()
    pixels[np.ix_(rows, where)] = value
    labels[rows] = target
    return pixels, labels


@pytest.mark.parametrize("seed", [20261123, 1, 2, 3])
@pytest.mark.parametrize("with_trusted", [True, False], ids=["delta", "whole set"])
def test_every_triggered_row_of_the_demo_is_found_and_nothing_else(tmp_path, seed, with_trusted):
    before, after, truth = demo(tmp_path, seed)
    baseline = trusted(before) if with_trusted else None
    finding = only(scan(after, CHECK, label="label", baseline=baseline), "POIS010")
    precision, recall = precision_recall(finding.rows, truth.triggered)
    assert precision >= 0.95
    assert recall >= 0.95
    assert finding.columns == planted.TRIGGER_COLUMNS
    assert finding.evidence["target_class"] == planted.TRIGGER_CLASS
    assert finding.severity is Severity.CRITICAL
    assert finding.fdr <= 0.05


@pytest.mark.parametrize("seed", range(5))
def test_clean_digits_raise_nothing_without_a_trusted_version(tmp_path, seed):
    before, _, _ = demo(tmp_path, seed)
    assert rules(scan(before, CHECK, label="label")) == []


@pytest.mark.parametrize("kept", [1400, 300, 0])
def test_an_honest_update_raises_nothing(kept):
    pixels, labels = digits()
    before = digits_table(pixels[:1400], labels[:1400])
    after = digits_table(pixels[1400 - kept :], labels[1400 - kept :])
    assert rules(scan(after, CHECK, label="label", baseline=trusted(before))) == []


def test_an_update_from_a_darker_scanner_raises_nothing():
    pixels, labels = digits()
    before = digits_table(pixels[:1400], labels[:1400])
    darker = np.vstack([pixels[:1400], np.floor(pixels[1400:] * 0.8) + 1.0])
    assert rules(scan(digits_table(darker, labels), CHECK, label="label", baseline=trusted(before))) == []


def test_a_patch_in_an_update_from_a_darker_scanner_is_still_found():
    pixels, labels = digits()
    before = digits_table(pixels[:1400], labels[:1400])
    darker = np.vstack([pixels[:1400], np.floor(pixels[1400:] * 0.8) + 1.0])
    rows = 1400 + np.flatnonzero(labels[1400:] != 0)[:30]
    after = digits_table(*stamped(darker, labels, rows))
    finding = only(scan(after, CHECK, label="label", baseline=trusted(before)), "POIS010")
    assert finding.evidence["mode"] == "whole set"
    assert precision_recall(finding.rows, rows)[1] == 1.0


def test_more_honest_rows_of_one_class_raise_nothing():
    pixels, labels = digits()
    before = digits_table(pixels[:1000], labels[:1000])
    threes = np.concatenate([np.arange(1000), 1000 + np.flatnonzero(labels[1000:] == 3)])
    after = digits_table(pixels[threes], labels[threes])
    assert rules(scan(after, CHECK, label="label", baseline=trusted(before))) == []


def test_flipped_labels_alone_are_no_patch():
    pixels, labels = digits()
    flipped = labels.copy()
    flipped[:150] = 0
    after = digits_table(pixels, flipped)
    assert rules(scan(after, CHECK, label="label", baseline=trusted(digits_table(pixels, labels)))) == []


def test_a_trigger_with_the_right_labels_is_found_against_a_trusted_version():
    pixels, labels = digits()
    rows = np.flatnonzero(labels == 4)[:25]
    after = digits_table(*stamped(pixels, labels, rows, target=4))
    finding = only(
        scan(after, CHECK, label="label", baseline=trusted(digits_table(pixels, labels))), "POIS010"
    )
    assert precision_recall(finding.rows, rows) == (1.0, 1.0)
    assert finding.evidence["target_class"] == 4


def test_a_single_pixel_is_enough():
    pixels, labels = digits()
    rows = np.flatnonzero(labels != 0)[:30]
    after = digits_table(*stamped(pixels, labels, rows, where=[7]))
    finding = only(
        scan(after, CHECK, label="label", baseline=trusted(digits_table(pixels, labels))), "POIS010"
    )
    assert finding.columns == ("pixel_7",)
    assert precision_recall(finding.rows, rows) == (1.0, 1.0)


def test_two_patches_are_two_findings():
    pixels, labels = digits()
    first, second = np.flatnonzero(labels == 1)[:30], np.flatnonzero(labels == 2)[:20]
    once = stamped(pixels, labels, first)
    after = digits_table(*stamped(*once, second, target=5, where=[0, 1, 8, 9]))
    result = scan(after, CHECK, label="label", baseline=trusted(digits_table(pixels, labels)))
    assert rules(result) == ["POIS010", "POIS010"]
    assert {f.evidence["target_class"]: set(f.rows) for f in result.findings} == {
        0: set(first.tolist()),
        5: set(second.tolist()),
    }


def test_a_replaced_set_is_compared_with_the_trusted_versions_own_data():
    pixels, labels = digits()
    before = digits_table(pixels[:900], labels[:900])
    rows = np.flatnonzero(labels[900:] != 0)[:30]
    after = digits_table(*stamped(pixels[900:], labels[900:], rows))
    finding = only(scan(after, CHECK, label="label", baseline=trusted(before)), "POIS010")
    assert finding.evidence["mode"] == "delta"
    precision, recall = precision_recall(finding.rows, rows)
    assert precision >= 0.95
    assert recall == 1.0


def test_when_the_trusted_data_is_gone_the_whole_set_is_searched():
    pixels, labels = digits()
    rows = np.flatnonzero(labels[900:] != 0)[:30]
    after = digits_table(*stamped(pixels[900:], labels[900:], rows))
    baseline = trusted(digits_table(pixels[:900], labels[:900]), gone=True)
    finding = only(scan(after, CHECK, label="label", baseline=baseline), "POIS010")
    assert finding.evidence["mode"] == "whole set"
    assert precision_recall(finding.rows, rows)[0] >= 0.95


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.list_(pa.float32(), 64), pa.large_list(pa.uint8())]
)
def test_images_in_a_list_column_are_searched_too(kind):
    pixels, labels = digits()
    rows = np.flatnonzero(labels != 0)[:40]

    def table(x, y):
        return pa.table({"image": pa.array(x.astype(np.uint8).tolist(), kind), "label": y})

    after = table(*stamped(pixels, labels, rows))
    finding = only(scan(after, CHECK, label="label", baseline=trusted(table(pixels, labels))), "POIS010")
    assert finding.columns == ("image",)
    assert finding.evidence["patch_pixels"] == CORNER
    assert precision_recall(finding.rows, rows) == (1.0, 1.0)


def test_beyond_the_row_budget_a_sample_is_searched_and_the_finding_says_so(tmp_path):
    before, after, truth = demo(tmp_path, 1)
    check = TriggerPatch(max_rows=100)
    finding = only(scan(after, check, label="label", baseline=trusted(before)), "POIS010")
    assert finding.evidence["rows_searched"] == 100
    assert finding.evidence["rows_to_search"] == 152
    assert set(finding.rows) <= truth.triggered


def test_missing_pixels_are_values_of_their_own(tmp_path):
    pixels, labels = digits()
    pixels[::7, 3] = np.nan
    rows = np.flatnonzero(labels != 0)[:40]
    after = digits_table(*stamped(pixels, labels, rows))
    finding = only(
        scan(after, CHECK, label="label", baseline=trusted(digits_table(pixels, labels))), "POIS010"
    )
    assert precision_recall(finding.rows, rows) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("table", "label", "words"),
    [
        (pa.table({"x": [1.0], "label": [0]}), "label", "look like pixels"),
        (digits_table(np.zeros((3, 64)), [0, 0, 0]), None, "no label column"),
        (digits_table(np.zeros((3, 64)), [0, 0, 0]), "label", "1 class"),
        (pa.table({"image": [[1, 2], [1]], "label": [0, 1]}), "label", "differ in length"),
    ],
)
def test_what_cannot_be_searched_is_skipped_with_the_reason(table, label, words):
    result = scan(table, CHECK, label=label)
    assert words in result.checks[0]["skipped"]
    assert result.findings == ()
