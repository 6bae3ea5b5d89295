"""What the first look passes over holds nothing that it looks for."""

from __future__ import annotations

import numpy as np

from dataset_guard.checks.privacy import first_look


def test_no_interesting_byte_is_passed_over_whatever_stands_beside_it() -> None:
    dull = first_look._dull.py_func  # type: ignore[attr-defined]
    with np.errstate(over="ignore"):
        for byte in range(256):
            for beside in (0x00, 0x20, 0x61, 0x7F, 0x80, 0xFF):
                for at in range(8):
                    eight = bytearray([beside] * 8)
                    eight[at] = byte
                    word = np.frombuffer(bytes(eight), np.uint64)[0]
                    passed = bool(dull(word))
                    assert not (passed and first_look._INTERESTING[list(eight)].any())
                    if max(eight) < 0x80 and not any(0x2B <= b <= 0x40 for b in eight):
                        assert passed
