"""Copies of pictures are found whatever was done to them lightly; different pictures are not."""

import io

import numpy as np
import pyarrow as pa
import pytest
from check_kit import Registered, only, rules, scan

from dataset_guard.checks.leakage.near_duplicate_image import CHECK
from guard_core.findings import Severity

SIDE = 24


def pictures(number, seed):
    """Generated: a few soft blobs each, so that no two are alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    out = np.zeros((number, SIDE, SIDE))
    for picture in out:
        for _ in range(6):
            cy, cx, size, light = (
                rng.uniform(0, SIDE),
                rng.uniform(0, SIDE),
                rng.uniform(1.5, 5),
                rng.uniform(-1, 1),
            )
            picture += light * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size**2))
    return (out - out.min()) / (out.max() - out.min()) * 255


def pixel_table(images) -> pa.Table:
    flat = np.asarray(images).reshape(len(images), -1)
    return pa.table({f"pixel_{i}": flat[:, i] for i in range(flat.shape[1])})


def bigger(image):
    return np.kron(image, np.ones((2, 2)))


CHANGES = {
    "brightness": lambda i: 0.6 * i + 40,
    "noise": lambda i: i + np.random.default_rng(0).normal(0, 1, i.shape),
    "mirrored": lambda i: i[:, ::-1],
    "shifted": lambda i: np.hstack([i[:, :1], i[:, :-1]]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(change):
    originals = pictures(300, 1)
    finding = only(scan(pixel_table([*originals, CHANGES[change](originals[41])]), CHECK), "LEAK005")
    assert list(finding.rows) == [300]
    assert finding.evidence["mirrored_pairs"] == (change == "mirrored")


def test_copies_in_a_test_set_are_critical_and_told_by_pairs():
    originals = pictures(300, 1)
    copies = [CHANGES["brightness"](i) for i in originals[:20]]
    test = Registered("acme/test@1", pixel_table([*pictures(80, 2), *copies]), split="test")
    finding = only(scan(pixel_table(originals), CHECK, against=(test,), split="train"), "LEAK005")
    assert finding.severity is Severity.CRITICAL
    assert finding.evidence["pairs"] == [[i, 80 + i] for i in range(20)]


def test_encoded_pictures_of_any_format_and_size_are_compared():
    image = pytest.importorskip("PIL.Image")

    def file(pixels, form):
        out = io.BytesIO()
        image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, form)
        return out.getvalue()

    originals = pictures(60, 3)
    files = [file(i, "PNG") for i in originals] + [file(bigger(originals[7]), "JPEG"), b"no picture", None]
    finding = only(scan(pa.table({"image": pa.array(files, pa.binary())}), CHECK), "LEAK005")
    assert list(finding.rows) == [60]


def test_different_pictures_and_tables_without_any_say_nothing():
    assert rules(scan(pixel_table(pictures(400, 4)), CHECK)) == []
    assert scan(pa.table({"x": [1.0]}), CHECK).checks[0]["skipped"].startswith("no columns look like pixels")
