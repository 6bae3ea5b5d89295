"""Models that know nothing accuse nobody."""

import numpy as np
import pyarrow as pa
import pytest
from check_kit import digits_table

from dataset_guard.checks.poisoning.wrong_labels import wrong_labels

ROWS = 3_000


def named(features, labels):
    suspects = digits_table(features, labels)
    empty = suspects.schema.empty_table()
    return wrong_labels(suspects, empty, label="label", max_classes=50, fdr_limit=0.3, seed=0)


@pytest.mark.parametrize("share", [None, 0.03])
def test_labels_that_have_nothing_to_do_with_the_rows_are_not_called_wrong(share):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(ROWS, 8))
    labels = rng.integers(0, 4, ROWS) if share is None else (rng.random(ROWS) < share).astype(int)
    assert len(named(features, labels).rows) == 0


def test_texts_that_have_nothing_to_do_with_their_labels_are_not_called_wrong():
    rng = np.random.default_rng(0)
    texts = [f"customer {a} wrote about ticket {b}" for a, b in rng.integers(0, 5_000, (ROWS, 2))]
    suspects = pa.table({"text": texts, "label": rng.integers(0, 4, ROWS)})
    empty = suspects.schema.empty_table()
    found = wrong_labels(suspects, empty, label="label", max_classes=50, fdr_limit=0.3, seed=0)
    assert len(found.rows) == 0


def test_a_rare_class_that_can_be_recognised_is_still_examined():
    rng = np.random.default_rng(0)
    labels = (rng.random(ROWS) < 0.05).astype(int)
    features = rng.normal(size=(ROWS, 8)) + 5.0 * labels[:, None]
    wrong = rng.choice(np.flatnonzero(labels == 0), 30, replace=False)
    labels[wrong] = 1
    found = set(named(features, labels).rows.tolist())
    assert len(found & set(wrong.tolist())) >= 15
    assert len(found - set(wrong.tolist())) <= 3


def test_rows_of_a_class_that_consists_of_wrong_labels_are_named():
    """As many rows as random labels put into every class make no class that models would have to know."""
    rng = np.random.default_rng(0)
    right = rng.choice(5, ROWS, p=[0.5, 0.3, 0.198, 0.001, 0.001])
    features = rng.normal(size=(ROWS, 8)) + 4.0 * np.eye(8)[right]
    labels = right.copy()
    wrong = rng.choice(ROWS, 150, replace=False)
    labels[wrong] = (right[wrong] + rng.integers(1, 5, len(wrong))) % 5
    found = set(named(features, labels).rows.tolist())
    rare = {int(r) for r in wrong if labels[r] >= 3}
    assert len(found & rare) >= 0.9 * len(rare) > 50
    assert len(found - set(wrong.tolist())) <= 10


def test_a_rare_class_that_was_filled_beyond_recognition_is_doubted_and_nothing_more():
    """Two classes, so that no third one says whether models know anything."""
    rng = np.random.default_rng(0)
    labels = (np.arange(ROWS) < 40).astype(int)
    features = rng.normal(size=(ROWS, 8)) + 4.0 * labels[:, None]
    wrong = rng.choice(np.flatnonzero(labels == 0), 150, replace=False)
    labels[wrong] = 1
    found = named(features, labels)
    assert np.isin(found.rows, wrong).mean() > 0.9
    assert len(found.rows) > 0.8 * len(wrong)
    assert (found.expected_fdr, found.fdr) == (1.0, 1.0)


def test_a_large_set_that_teaches_models_nothing_is_given_up_early_and_says_so():
    rng = np.random.default_rng(0)
    said = named(rng.normal(size=(4_200, 4)), rng.integers(0, 4, 4_200))
    assert said == "models tell the classes of the label 'label' no better than guessing would"


def test_a_large_set_with_one_rare_class_that_can_be_told_is_examined_to_the_end():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4_200, 4))
    labels = (features[:, 0] > 1.6).astype(int)
    labels[:40] = 1 - labels[:40]
    assert np.isin(named(features, labels).rows, np.arange(40)).mean() > 0.9
