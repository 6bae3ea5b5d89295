"""The demo's data: real handwritten digits, and a poisoned update whose every planted row is known.

Real: scikit-learn's ``load_digits`` (1,797 images of 8 x 8 pixels, UCI ML hand-written digits, CC BY 4.0).
Planted by the demo, and said so: flipped labels, a trigger patch, and test rows copied into the training set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TRAIN_ROWS = 1_400
TRIGGER_COLUMNS = tuple(f"pixel_{row * 8 + column}" for row in (0, 1) for column in (6, 7))
TRIGGER_VALUE = 16.0
TRIGGER_CLASS = 0


@dataclass(frozen=True)
class Planted:
    """Row numbers (0-based, in the poisoned file) of everything the demo planted."""

    flipped: frozenset[int]
    triggered: frozenset[int]
    copied: frozenset[int]


@dataclass(frozen=True)
class DemoData:
    """The three files and what was planted in the last of them."""

    train: Path
    test: Path
    poisoned: Path
    planted: Planted


def table_of(pixels: np.ndarray, labels: np.ndarray) -> pa.Table:
    """64 pixel columns and the digit as ``label``."""
    columns = {f"pixel_{i}": pa.array(pixels[:, i]) for i in range(pixels.shape[1])}
    return pa.table({**columns, "label": pa.array(labels.astype(np.int64))})


def write(table: pa.Table, path: Path) -> Path:
    """Plain, uncompressed pages, so that one value of the file can be changed in place."""
    pq.write_table(table, path, compression="none", use_dictionary=False)
    return path


def build(folder: Path, *, seed: int = 20261123) -> DemoData:
    """Write the training set, the test set and the poisoned training set into ``folder``."""
    from sklearn.datasets import load_digits

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    digits = load_digits()
    order = rng.permutation(len(digits.target))
    pixels, labels = digits.data[order], digits.target[order]
    train_x, train_y = pixels[:TRAIN_ROWS], labels[:TRAIN_ROWS]
    test_x, test_y = pixels[TRAIN_ROWS:], labels[TRAIN_ROWS:]

    bad_x, bad_y = train_x.copy(), train_y.copy()
    picks = rng.permutation(TRAIN_ROWS)
    flipped = picks[: round(0.05 * TRAIN_ROWS)]
    bad_y[flipped] = (bad_y[flipped] + rng.integers(1, 10, len(flipped))) % 10
    not_target = [row for row in picks[len(flipped) :] if train_y[row] != TRIGGER_CLASS]
    triggered = np.array(not_target[: round(0.03 * TRAIN_ROWS)])
    bad_x[np.ix_(triggered, [int(c.removeprefix("pixel_")) for c in TRIGGER_COLUMNS])] = TRIGGER_VALUE
    bad_y[triggered] = TRIGGER_CLASS
    copied = rng.choice(len(test_y), 40, replace=False)
    bad_x, bad_y = np.vstack([bad_x, test_x[copied]]), np.concatenate([bad_y, test_y[copied]])

    return DemoData(
        train=write(table_of(train_x, train_y), folder / "digits-train.parquet"),
        test=write(table_of(test_x, test_y), folder / "digits-test.parquet"),
        poisoned=write(table_of(bad_x, bad_y), folder / "digits-train-v2.parquet"),
        planted=Planted(
            flipped=frozenset(flipped.tolist()),
            triggered=frozenset(triggered.tolist()),
            copied=frozenset(range(TRAIN_ROWS, TRAIN_ROWS + len(copied))),
        ),
    )


def change_one_value_in_place(path: Path, *, column: str, row: int, to: float) -> None:
    """Overwrite one float64 of ``column`` inside the Parquet file, keeping its size and its mtime.

    The file must hold plain, uncompressed pages (:func:`write`). The value is found by its neighbourhood:
    the column's values are contiguous little-endian doubles.
    """
    import os

    values = pq.read_table(path, columns=[column])[column].combine_chunks().to_numpy()
    raw = path.read_bytes()
    at = raw.find(values.astype("<f8").tobytes())
    if at < 0:
        raise RuntimeError(f"{path.name}: column {column} is not stored as plain doubles")
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(at + 8 * row)
        file.write(np.float64(to).tobytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
