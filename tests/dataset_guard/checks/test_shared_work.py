"""What several checks need of one batch is made once, and never taken for another batch's."""

import gc

import numpy as np
import pyarrow as pa

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.leakage.near_duplicate_text import NearDuplicateText
from dataset_guard.checks.poisoning.flooding import CHECK as FLOODING
from dataset_guard.checks.shared_work import OfBatch
from dataset_guard.reading import open_source
from dataset_guard.scanning.scan import scan_source


def batch(*values):
    return pa.RecordBatch.from_pydict({"x": pa.array(values)})


def test_the_first_that_asks_makes_it_and_the_others_find_it():
    made, one = OfBatch(), batch(1, 2)
    assert made.known(one, "x") is None
    assert made.get(one, "x", len) == 2
    assert made.get(one, "x", lambda _: 99) == made.known(one, "x") == 2
    assert made.known(batch(1, 2), "x") is None


def test_it_is_forgotten_with_the_batch():
    made = OfBatch()
    made.get(batch(1), "x", len)
    gc.collect()
    assert not made._held


def test_near_duplicates_are_the_same_whether_another_check_ranked_the_texts_or_not():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(300)]
    texts = [" ".join(rng.choice(words, 30)) for _ in range(400)]
    texts += [f"{t} again" for t in texts[:60]] + ["short"]
    table = pa.table({"site": ["a", "b"] * 230 + ["a"], "text": texts})
    small = NearDuplicateText(memory_bytes=100_000)

    def found(*checks):
        cut = pa.Table.from_batches(table.to_batches(max_chunksize=50))
        context = CheckContext(schema=table.schema, tenant="acme", name="set")
        done = scan_source(open_source(cut), context, row_key=bytes(32), available=(checks, ()))
        return [f for f in done.findings if f.rule_id == "LEAK003"]

    alone, beside = found(small), found(FLOODING, small)
    assert alone
    assert alone[0].evidence["sampled_share"] < 0.9
    assert [(f.rows, f.evidence) for f in alone] == [(f.rows, f.evidence) for f in beside]
