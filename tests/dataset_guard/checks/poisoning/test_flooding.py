"""A source that sends the same text again and again, edited or not, is told from sources that do not."""

import numpy as np
import pyarrow as pa
import pytest
from check_kit import Registered, only, rules, scan

from dataset_guard.checks.poisoning.flooding import CHECK, Flooding, _most_repeats

WORDS = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("a", "esi", "oru", "ulte", "ime")]
SITES = ["north", "south", "east", "west"]


def honest(rows, seed=0):
    rng = np.random.default_rng(seed)
    text = [" ".join(rng.choice(WORDS, 30)) for _ in range(rows)]
    return pa.table({"site": [SITES[i % 4] for i in range(rows)], "text": text})


def flood(rows, seed=1):
    """Copies of one text from one site, each with one word changed."""
    rng = np.random.default_rng(seed)
    words = list(rng.choice(WORDS, 60))
    texts = []
    for _ in range(rows):
        words[int(rng.integers(60))] = str(rng.choice(WORDS))
        texts.append(" ".join(words))
    return pa.table({"site": ["north"] * rows, "text": texts})


def test_the_rows_of_a_source_that_floods_are_named():
    table = pa.concat_tables([honest(600), flood(120)])
    finding = only(scan(table, CHECK), "POIS024")
    found = set(finding.rows)
    assert len(found & set(range(600, 720))) >= 100
    assert not found & set(range(600))
    assert finding.columns == ("text", "site")
    assert finding.evidence["texts_of_the_source"] == 270


def test_copies_shared_by_all_sources_are_no_flood():
    copies = flood(120)
    spread = copies.set_column(0, "site", pa.array([SITES[i % 4] for i in range(120)]))
    assert rules(scan(pa.concat_tables([honest(600), spread]), CHECK)) == []


def test_only_new_rows_count_beside_a_trusted_version():
    before = pa.concat_tables([honest(600), flood(120)])
    after = pa.concat_tables([before, honest(100, seed=5)])
    assert rules(scan(after, CHECK, baseline=Registered("acme/set@1", before))) == []
    worse = pa.concat_tables([after, flood(90, seed=6)])
    finding = only(scan(worse, CHECK, baseline=Registered("acme/set@1", before)), "POIS024")
    assert min(finding.rows) >= 820


def test_how_the_table_is_cut_and_sampled_does_not_matter():
    table = pa.concat_tables([honest(600), flood(120)])
    whole = only(scan(table, CHECK), "POIS024")
    cut = only(scan(pa.Table.from_batches(table.to_batches(max_chunksize=97)), CHECK), "POIS024")
    assert cut.rows == whole.rows
    some = scan(table, Flooding(max_rows=500))
    assert set(only(some, "POIS024").rows) <= set(whole.rows)


@pytest.mark.parametrize(
    ("names", "words"),
    [(["place", "text"], "no column says by its name"), (["user_id", "label"], "no other column")],
)
def test_what_cannot_be_judged_is_skipped_with_the_reason(names, words):
    result = scan(honest(10).rename_columns(names), CHECK, label="label" if "label" in names else None)
    assert words in result.checks[0]["skipped"]


def test_the_quick_count_of_repeats_is_that_of_the_most_repeated_source() -> None:
    random = np.random.default_rng(5)
    for sources, texts in ((1, 1), (4, 20), (300, 50)):
        names = random.integers(0, 2**64, sources, dtype=np.uint64)[random.integers(0, sources, 3_000)]
        keys = random.integers(0, 2**64, texts, dtype=np.uint64)[random.integers(0, texts, 3_000)]
        of = {name: keys[names == name] for name in np.unique(names)}
        assert _most_repeats(keys, names) == max(len(k) - len(np.unique(k)) for k in of.values())
