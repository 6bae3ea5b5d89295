"""A source that labels against all others is told from one whose rows are merely hard."""

import numpy as np
import pyarrow as pa
from check_kit import only, rules, scan
from poison import precision_recall

from dataset_guard.checks.poisoning.label_errors import CHECK
from dataset_guard.checks.poisoning.source_flips import flipped_sources


def judged(rows, seed=0, *, sources=8):
    """Chances of honest models: right, and sure of it, for nine rows in ten."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 3, rows)
    chances = np.full((rows, 3), 0.05)
    seen = np.where(rng.random(rows) < 0.9, codes, rng.integers(0, 3, rows))
    chances[np.arange(rows), seen] = 0.9
    return chances, codes, rng.integers(1, sources + 1, rows).astype(np.uint64)


def test_the_source_whose_labels_were_turned_is_named():
    chances, codes, sources = judged(2000)
    turned = np.flatnonzero(sources == 3)[::2]
    codes[turned] = (codes[turned] + 1) % 3
    (found,) = flipped_sources(chances, codes, np.ones(2000, bool), {"site": sources})
    assert found.number == 3
    precision, recall = precision_recall(found.rows, turned.tolist())
    assert precision > 0.85
    assert recall > 0.85
    assert 1 - precision <= found.fdr + 0.05


def test_errors_that_all_sources_make_and_a_class_that_is_hard_name_nobody():
    chances, codes, sources = judged(2000)
    everybody = {"site": sources}
    asked = np.ones(2000, bool)
    assert flipped_sources(chances, codes, asked, everybody) == []
    hard = codes == 2
    chances[hard] = np.roll(chances[hard], 1, axis=1)
    sources[hard] = np.where(np.arange(hard.sum()) % 4 > 0, 5, sources[hard])  # one source has most of them
    assert flipped_sources(chances, codes, asked, {"site": sources}) == []


def test_an_update_that_is_bad_throughout_names_no_source_of_it():
    chances, codes, sources = judged(3000)
    asked = np.arange(3000) >= 2400  # the rest is trusted
    turned = np.flatnonzero(asked)[::8]
    codes[turned] = (codes[turned] + 1) % 3
    assert flipped_sources(chances, codes, asked, {"site": sources}) == []


def test_a_source_that_is_most_of_the_set_cannot_be_judged_by_the_others():
    chances, codes, sources = judged(1000, sources=1)
    codes[:400] = (codes[:400] + 1) % 3
    assert flipped_sources(chances, codes, np.ones(1000, bool), {"site": sources}) == []


def test_a_scan_names_the_rows_of_that_source_and_never_the_source():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 600)
    site = rng.choice(["north", "south", "east", "west", "mallory"], 600)
    values = {f"x{i}": labels * 3.0 + rng.normal(size=600) for i in range(4)}
    turned = np.flatnonzero(site == "mallory")[:60]
    labels[turned] = 1 - labels[turned]
    finding = only(scan(pa.table({**values, "site": site, "label": labels}), CHECK, label="label"), "POIS004")
    precision, recall = precision_recall(finding.rows, turned.tolist())
    assert precision > 0.9
    assert recall > 0.8
    assert finding.columns == ("label", "site")
    assert "mallory" not in str(finding)


def test_without_a_column_of_sources_nothing_is_said_about_one():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300)
    table = pa.table({"x": labels + rng.normal(size=300), "label": labels})
    assert "POIS004" not in rules(scan(table, CHECK, label="label"))
