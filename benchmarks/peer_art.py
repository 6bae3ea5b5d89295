"""Adversarial Robustness Toolbox on given features, in an environment of its own (it pins much else).

``python peer_art.py in.npz out.npz``: ``features`` and ``labels`` in; ``clusters`` (1: activation clustering
says poisoned) and ``scores`` (spectral signatures) out. The classifier is a stand-in that hands the features
over as activations: the detectors are ART's, unchanged.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

REQUIREMENTS = ("adversarial-robustness-toolbox==1.20.1", "packaging==25.0", "scikit-learn==1.7.2")


def environment(cache: Path) -> Path:
    """The interpreter of ART's environment, made once."""
    folder = cache / "peers-art"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run(["uv", "venv", "-q", str(folder), "--python", sys.executable], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "--python", str(python), *REQUIREMENTS], check=True)
    return python


def run(python: Path, features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows called poisoned by activation clustering, spectral signature scores)."""
    with tempfile.TemporaryDirectory() as folder:
        given, told = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(given, features=features.astype(np.float32), labels=labels)
        subprocess.run([str(python), "-W", "ignore", __file__, str(given), str(told)], check=True)
        with np.load(told) as found:
            return found["clusters"].astype(bool), found["scores"]


class _Handed:
    """Gives the features back as the activations of its one layer."""

    layer_names = ("features",)

    def __init__(self, classes: int) -> None:
        self.nb_classes = classes

    def get_activations(self, x: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
        return x


def _main(given: str, told: str) -> None:
    from art.defences.detector.poison import ActivationDefence, SpectralSignatureDefense

    with np.load(given) as data:
        features, labels = data["features"], data["labels"]
    classes = int(labels.max()) + 1
    one_hot = np.eye(classes)[labels]
    clustering = ActivationDefence(_Handed(classes), features, one_hot)
    clean = clustering.detect_poison(nb_clusters=2, nb_dims=10, reduce="PCA", cluster_analysis="smaller")[1]
    signatures = SpectralSignatureDefense(_Handed(classes), features, one_hot)
    scores = np.zeros(len(labels))
    for c in range(classes):
        mine = np.flatnonzero(labels == c)
        centred = features[mine] - features[mine].mean(axis=0)
        scores[mine] = np.ravel(signatures.spectral_signature_scores(centred))
    np.savez(told, clusters=1 - np.array(clean), scores=scores)


if __name__ == "__main__":
    _main(*sys.argv[1:])
