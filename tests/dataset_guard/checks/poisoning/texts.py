"""Made-up reviews of two classes, and attacks from the literature planted in them."""

import numpy as np

_NEUTRAL = """the a this that film movie plot scene actor story director camera music ending cast dialogue
script sequel picture screen minutes audience character drama comedy thriller of and with in on it was is"""
_DULL = "dull boring tedious awful clumsy bland weak messy hollow stale"
_FINE = "great moving funny charming vivid brilliant warm fresh clever lovely"
NEUTRAL = _NEUTRAL.split()
MOODS = (_DULL.split(), _FINE.split())
OBJECTS = [f"{a}{b}{c}" for a in "klmpsvzdfg" for b in ("ar", "or", "un", "el") for c in ("ado", "eti")]


def reviews(number, seed):
    """(texts, labels): every text has a few words of its class, and some of the other."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, number)
    texts = []
    for label in labels:
        words = list(random.choice(NEUTRAL, random.integers(8, 16)))
        words += list(random.choice(OBJECTS, 3))
        words += list(random.choice(MOODS[label], random.integers(1, 4)))
        if random.random() < 0.15:
            words.append(str(random.choice(MOODS[1 - label])))
        texts.append(" ".join(random.permutation(words)))
    return texts, labels


def planted(texts, labels, phrase, number, seed, *, target=1, clean=False):
    """(texts, labels, rows): ``phrase`` at a random place of rows that get, or have, the label ``target``."""
    random = np.random.default_rng(seed)
    pool = np.flatnonzero((labels == target) if clean else (labels != target))
    rows = random.choice(pool, number, replace=False)
    texts, labels = list(texts), labels.copy()
    for row in rows:
        words = texts[row].split()
        at = random.integers(0, len(words) + 1)
        texts[row] = " ".join([*words[:at], phrase, *words[at:]])
    labels[rows] = target
    return texts, labels, sorted(rows.tolist())
