"""Events in the real background: 63 serving pods of one production cluster (GenTD26), about one day at 57 s.

Three folds over the pods: each detector is calibrated or fitted on two thirds, judged on the third. Every
detector gets the lowest threshold at which it says nothing about the clean third (which flatters all alike);
ours is reported at its frozen threshold too. Pods rest two thirds of the time: it is serving, not training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from compute_guard.usage.attribution import LeaseBook
from compute_guard.usage.calibration import Calibration
from compute_guard.usage.rolling import Rolling
from compute_guard.usage.roster import roster
from compute_guard.usage.samples import Device, Frame
from compute_guard.usage.typicality import Typicality
from measure import Measure
from usage_parts.injectors import HELD_OUT, TUNING, Injector

Matrix = npt.NDArray[np.float64]
STEP_S, EVENT, FROZEN = 57, 190, 7.5
STEP_NS = STEP_S * 1_000_000_000
FOLDS, REPEATS = 3, 2


def background(folder: Path) -> tuple[Matrix, Matrix] | None:
    """Utilisation (%) and memory (GiB), each (pods, samples)."""
    path = folder / "gpu_series" / "gentd26_dev.parquet"
    if not path.is_file():
        return None
    table = pq.read_table(path).to_pandas()
    groups = [rows for _, rows in table.groupby("pod", observed=True)]
    return tuple(
        np.stack([g[name].to_numpy(dtype=np.float64) for g in groups])
        for name in ("gpu_utilization_percent", "gpu_memory_used")
    )  # type: ignore[return-value]


def with_events(
    util: Matrix, memory: Matrix, injector: Injector, seed: int
) -> tuple[Matrix, Matrix, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    util, memory, onsets = util.copy(), memory.copy(), []
    for pod in range(len(util)):
        onset = int(rng.integers(300, 1000))
        part = slice(onset, onset + EVENT)
        util[pod, part], memory[pod, part] = injector(rng, util[pod, part], memory[pod, part])
        onsets.append(onset)
    return np.round(np.clip(util, 0, 100), 2), np.clip(memory, 0, 80), np.asarray(onsets)


def ours(train: tuple[Matrix, Matrix]) -> Callable[[Matrix, Matrix], Matrix]:
    """The product's own path, cell by cell: window, features, calibrated tails. Scores (pods, samples)."""
    taught = Typicality(Calibration(float(STEP_S)))
    _run(taught, *train)

    def score(util: Matrix, memory: Matrix) -> Matrix:
        judge = Typicality(Calibration(float(STEP_S), frozen=True))
        judge.calibration.merge(taught.calibration)
        return _run(judge, util, memory)

    return score


def _run(judge: Typicality, util: Matrix, memory: Matrix) -> Matrix:
    pods, length = util.shape
    devices = tuple(Device("gentd26", f"pod-{i}", i, "serving") for i in range(pods))
    rolling, where, found = Rolling(STEP_NS, 48), np.arange(pods, dtype=np.int32), np.zeros((pods, length))
    for t in range(length):
        values = {
            "util_percent": util[:, t].astype(np.float32),
            "memory_used_bytes": (memory[:, t] * 2**30).astype(np.float32),
        }
        rolling.push(Frame(devices, np.full(pods, t * STEP_NS), where, values), now_ns=t * STEP_NS)
        window = rolling.snapshot()
        typical = judge.judge(window, roster(LeaseBook(), window.columns, len(window.devices)))
        judge.learn(window, ())
        if typical is not None:
            found[:, t] = typical.surprise.max(axis=0)
    return found


def ewma_z(_: tuple[Matrix, Matrix]) -> Callable[[Matrix, Matrix], Matrix]:
    def score(util: Matrix, memory: Matrix) -> Matrix:
        return np.maximum(_ewma_z(util), _ewma_z(memory))

    return score


def _ewma_z(x: Matrix, span: int = 288) -> Matrix:
    rate = 2 / (span + 1)
    mean, var, found = x[:, 0].copy(), np.ones(len(x)), np.zeros_like(x)
    for t in range(1, x.shape[1]):
        away = x[:, t] - mean
        if t > span // 4:
            found[:, t] = np.abs(away) / np.sqrt(var + 1.0)  # at least 1 %
        mean += rate * away
        var = (1 - rate) * (var + rate * away**2)
    return found


def cryptojacking_2024(_: tuple[Matrix, Matrix]) -> Callable[[Matrix, Matrix], Matrix]:
    """Tanana 2024 (arXiv 2408.14554): high load, deviation up to 3.1, memory flat, over 12 samples.

    Scored by the level, so that the lowest quiet threshold can be found for it as for the others.
    """

    def score(util: Matrix, memory: Matrix) -> Matrix:
        found = np.zeros_like(util)
        for t in range(12, util.shape[1]):
            last, held = util[:, t - 11 : t + 1], memory[:, t - 11 : t + 1]
            flat = (last.std(axis=1) <= 3.1) & (np.ptp(held, axis=1) <= 0.1)
            found[:, t] = np.where(flat, last.mean(axis=1), 0.0)
        return found

    return score


def _columns(util: Matrix, memory: Matrix) -> Matrix:
    """What a forest is given per sample: levels, differences, mean and deviation of the last 20."""
    pads = [np.pad(x, ((0, 0), (19, 0)), mode="edge") for x in (util, memory)]
    views = [np.lib.stride_tricks.sliding_window_view(p, 20, axis=1) for p in pads]
    parts = [util, memory, np.diff(util, axis=1, prepend=util[:, :1])]
    parts += [f(v) for v in views for f in (lambda v: v.mean(-1), lambda v: v.std(-1))]
    return np.stack([p.ravel() for p in parts], axis=1)


def isolation_forest(train: tuple[Matrix, Matrix]) -> Callable[[Matrix, Matrix], Matrix]:
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(n_estimators=100, random_state=0).fit(_columns(*train))
    return lambda util, memory: -forest.score_samples(_columns(util, memory)).reshape(util.shape)


def half_space_trees(_: tuple[Matrix, Matrix]) -> Callable[[Matrix, Matrix], Matrix]:
    from river.anomaly import HalfSpaceTrees

    def score(util: Matrix, memory: Matrix) -> Matrix:
        found = np.zeros_like(util)
        for pod in range(len(util)):
            trees = HalfSpaceTrees(seed=1, window_size=250)
            for t, (u, m) in enumerate(zip(util[pod] / 100, memory[pod] / 80, strict=True)):
                x = {"u": u, "m": m}
                found[pod, t] = trees.score_one(x)
                trees.learn_one(x)
        found[:, :300] = 0.0  # still learning
        return found

    return score


def lasting(scores: Matrix, samples: int = 2) -> Matrix:
    """The hysteresis of the incident book: the least of the last ``samples`` scores."""
    held = scores.copy()
    for back in range(1, samples):
        held[:, back:] = np.minimum(held[:, back:], scores[:, :-back])
    held[:, : samples - 1] = 0.0
    return held


def recall(
    util: Matrix,
    memory: Matrix,
    family: Mapping[str, Injector],
    make: Callable[[tuple[Matrix, Matrix]], Callable[[Matrix, Matrix], Matrix]],
    *,
    threshold: float | None = None,
    hold: int = 1,
    repeats: int = REPEATS,
) -> tuple[dict[str, float], dict[str, float], int]:
    """Recall and median delay by kind, and clean pods reported. ``threshold`` None: the quiet one."""
    fold_of = np.random.default_rng(3).permutation(len(util)) % FOLDS
    hits: dict[str, list[bool]] = {kind: [] for kind in family}
    delays: dict[str, list[int]] = {kind: [] for kind in family}
    false = 0
    for fold in range(FOLDS):
        train, test = fold_of != fold, np.flatnonzero(fold_of == fold)
        score = make((util[train], memory[train]))
        sets = [
            (kind, *with_events(util[test], memory[test], injector, 7919 * fold + 101 * number + repeat))
            for number, (kind, injector) in enumerate(family.items())
            for repeat in range(repeats)
        ]
        everything = lasting(
            score(
                np.vstack([util[test], *(s[1] for s in sets)]),
                np.vstack([memory[test], *(s[2] for s in sets)]),
            ),
            hold,
        )
        clean, injected = everything[: len(test)], everything[len(test) :].reshape(len(sets), len(test), -1)
        limit = np.nextafter(clean.max(), np.inf) if threshold is None else threshold
        false += int((clean >= limit).any(axis=1).sum())
        for (kind, _, _, onsets), scores in zip(sets, injected, strict=True):
            for onset, row in zip(onsets.tolist(), scores, strict=True):
                seen = np.flatnonzero(row[onset : onset + EVENT] >= limit)
                hits[kind].append(len(seen) > 0)
                delays[kind] += [int(seen[0]) + 1] if len(seen) else []
    return (
        {kind: float(np.mean(found)) for kind, found in hits.items()},
        {kind: float(np.median(found)) if found else float("inf") for kind, found in delays.items()},
        false,
    )


PEERS = {
    "EWMA-z, span 288": (ewma_z, REPEATS),
    "IsolationForest, fitted on the fleet": (isolation_forest, REPEATS),
    "cryptojacking rule of 2024": (cryptojacking_2024, REPEATS),
    "river HalfSpaceTrees": (half_space_trees, 1),
}


def measures(folder: Path, *, quick: bool = False) -> Iterator[Measure]:
    series = background(folder)
    if series is None:
        print(f"skipped: there is no gpu_series below {folder}")
        return
    util, memory = series
    days = util.size * STEP_S / 86_400
    best = 0.0
    for name, (make, repeats) in PEERS.items():
        if quick and make is half_space_trees:
            continue
        begun = time.process_time()
        found, _, _ = recall(util, memory, HELD_OUT, make, repeats=repeats)
        macro = float(np.mean(list(found.values())))
        best = max(best, macro)
        yield Measure(f"peer {name}: macro recall, quiet", macro, "share")
        print(f"  {name}: { {k: round(v, 2) for k, v in found.items()} } {time.process_time() - begun:.0f} s")
    for words, family in (("tuning", TUNING), ("held-out", HELD_OUT)):
        for hold, held in ((1, "signal"), (2, "incident")):
            found, delay, _ = recall(util, memory, family, ours, hold=hold)
            macro = float(np.mean(list(found.values())))
            goal = words == "held-out" and hold == 2
            yield Measure(
                f"{words} injectors: macro recall, quiet, {held}", macro, "share", "best peer", best,
                macro / best if best else None, ">= 0.94" if goal else "", macro >= 0.94 if goal else None,
            )  # fmt: skip
            print(f"  ours, {words}, {held}: { {k: (round(v, 3), delay[k]) for k, v in found.items()} }")
            if words == "held-out":
                capped = delay["mining capped"]
                yield Measure(
                    f"capped mining: median delay to the {held}",
                    capped,
                    "samples",
                    target="<= 6",
                    met=capped <= 6,
                )
    found, _, false = recall(util, memory, HELD_OUT, ours, threshold=FROZEN, hold=2)
    yield Measure(
        f"held-out injectors: macro recall at the frozen threshold {FROZEN}",
        float(np.mean(list(found.values()))),
        "share",
    )
    yield Measure(
        f"clean pods reported then, in {days:.0f} GPU-days", false, "pods", target="0", met=not false
    )
