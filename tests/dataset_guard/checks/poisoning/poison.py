"""The demo's poisoned update, built for real, and the score of a detector against what was planted."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[4]


def _planted():
    spec = importlib.util.spec_from_file_location("planted", ROOT / "examples/demo/planted.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["planted"] = module
    spec.loader.exec_module(module)
    return module


planted = _planted()


def demo(folder, seed):
    """(trusted table, poisoned table, what was planted)."""
    data = planted.build(folder, seed=seed)
    return pq.read_table(data.train), pq.read_table(data.poisoned), data.planted


def precision_recall(found, truth):
    found, truth = set(found), set(truth)
    hits = len(found & truth)
    return hits / max(1, len(found)), hits / len(truth)


def digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(7).permutation(len(data.target))
    return data.data[order], data.target[order]
