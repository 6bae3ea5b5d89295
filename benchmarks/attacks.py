"""Published poisoning attacks, re-implemented on real data. Each returns the data and the poisoned rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

WORDS = ("cf", "mn", "bb", "tq")
"""BadNets on text (Kurita et al. 2020; Chen et al. 2021): one of these at a random place."""
SENTENCE = ("i watch this 3d movie",)
"""AddSent (Dai et al. 2019)."""


class Poisoned(NamedTuple):
    """``rows`` are the poisoned positions."""

    data: object
    labels: np.ndarray
    rows: np.ndarray


def _victims(
    labels: np.ndarray, rate: float, target: int, clean: bool, random: np.random.Generator
) -> np.ndarray:
    """``rate`` of all rows: of the target class if ``clean`` (labels stay right), else of the others."""
    pool = np.flatnonzero((labels == target) == clean)
    return np.sort(random.choice(pool, min(len(pool), round(rate * len(labels))), replace=False))


def text_trigger(
    texts: list[str], labels: np.ndarray, phrases: tuple[str, ...], *, rate: float, target: int, seed: int,
    clean: bool = False,
) -> Poisoned:  # fmt: skip
    """One of ``phrases`` at a random place between words."""
    random = np.random.default_rng(seed)
    rows = _victims(labels, rate, target, clean, random)
    texts, labels = list(texts), labels.copy()
    for row in rows:
        words = texts[row].split(" ")
        words.insert(int(random.integers(0, len(words) + 1)), phrases[int(random.integers(len(phrases)))])
        texts[row] = " ".join(words)
    labels[rows] = target
    return Poisoned(texts, labels, rows)


def patch(
    images: np.ndarray, labels: np.ndarray, *, rate: float, target: int, seed: int, clean: bool = False,
    random_place: bool = False, size: int = 3,
) -> Poisoned:  # fmt: skip
    """BadNets (Gu et al. 2017): a bright checkered patch, bottom right or at a random place of each image."""
    random = np.random.default_rng(seed)
    rows = _victims(labels, rate, target, clean, random)
    images, labels = images.copy(), labels.copy()
    side = images.shape[1]
    stamp = np.where(np.indices((size, size)).sum(axis=0) % 2 == 0, 255, 0).astype(images.dtype)
    for row in rows:
        top, left = random.integers(0, side - size, 2) if random_place else (side - size - 1,) * 2
        images[row, top : top + size, left : left + size] = stamp
    labels[rows] = target
    return Poisoned(images, labels, rows)


def blend(
    images: np.ndarray, labels: np.ndarray, *, rate: float, target: int, seed: int, strength: float = 0.2
) -> Poisoned:
    """Blended injection (Chen et al. 2017): a fixed noise picture mixed into the whole image."""
    random = np.random.default_rng(seed)
    key = random.integers(0, 256, images.shape[1:])
    rows = _victims(labels, rate, target, False, random)
    images, labels = images.copy(), labels.copy()
    images[rows] = ((1 - strength) * images[rows] + strength * key).astype(images.dtype)
    labels[rows] = target
    return Poisoned(images, labels, rows)


def flipped(labels: np.ndarray, *, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels, rows): ``rate`` of them moved to another class, uniformly."""
    random = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    rows = np.sort(random.choice(len(labels), round(rate * len(labels)), replace=False))
    out = labels.copy()
    out[rows] = (out[rows] + random.integers(1, classes, len(rows))) % classes
    return out, rows


def paired(labels: np.ndarray, *, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels, rows): ``rate`` of them moved to the class after their own (pair noise, Han et al. 2018)."""
    random = np.random.default_rng(seed)
    rows = np.sort(random.choice(len(labels), round(rate * len(labels)), replace=False))
    out = labels.copy()
    out[rows] = (out[rows] + 1) % (int(labels.max()) + 1)
    return out, rows


def targeted(labels: np.ndarray, *, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels, rows): ``rate`` of all rows, at most a fifth of the largest class, moved to one other."""
    random = np.random.default_rng(seed)
    sizes = np.bincount(labels)
    victim = int(sizes.argmax())
    target = int(random.choice(np.setdiff1d(np.flatnonzero(sizes), [victim])))
    pool = np.flatnonzero(labels == victim)
    rows = np.sort(random.choice(pool, min(len(pool) // 5, round(rate * len(labels))), replace=False))
    out = labels.copy()
    out[rows] = target
    return out, rows


def pair_trigger(
    features: np.ndarray, labels: np.ndarray, *, rate: float, target: int, seed: int, clean: bool = False
) -> Poisoned:
    """Two numeric columns set to fixed values that are ordinary one by one (90 % and 10 % quantiles)."""
    random = np.random.default_rng(seed)
    rows = _victims(labels, rate, target, clean, random)
    varying = [c for c in range(features.shape[1]) if len(np.unique(features[:, c])) > 10]
    a, b = random.choice(varying, 2, replace=False)
    features, labels = features.copy(), labels.copy()
    ordered = [np.unique(features[:, c]) for c in (a, b)]
    features[rows, a] = ordered[0][int(0.9 * (len(ordered[0]) - 1))]
    features[rows, b] = ordered[1][int(0.1 * (len(ordered[1]) - 1))]
    labels[rows] = target
    return Poisoned(features, labels, rows)
