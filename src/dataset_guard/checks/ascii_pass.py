"""One pass of RE2 over plain ASCII for the first stages of two checks, hidden text and secrets.

What RE2 costs does not depend on how many patterns it looks for, so the checks look for each other's too,
and then each for its own in the few texts found. Text with other bytes is left to each check: there the
patterns of hidden text are many, and together they cost more than apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from dataset_guard.checks.base import Rows
from dataset_guard.checks.poisoning.hidden_text_kinds import ANY_ASCII
from dataset_guard.checks.privacy.secret_kinds import ANY
from dataset_guard.checks.privacy.text_buffers import TextBuffer, text_buffers
from dataset_guard.checks.shared_work import OfBatch

_EITHER = b"(?:" + ANY_ASCII + b")|(?:" + ANY + b")"

Looked = tuple[TextBuffer, Rows | None]
"""Texts, and the items in which either check may find something; None when they are not all ASCII."""

_LOOKED: OfBatch[list[Looked]] = OfBatch()


def looked_at(batch: pa.RecordBatch, column: str) -> list[Looked]:
    """The texts of a column, looked at once for both checks."""
    return _LOOKED.get(batch, column, _look)


def proposed(buffer: TextBuffer, within: Rows | None, pattern: bytes) -> Rows:
    """The items in which ``pattern`` begins to match, of those ``within``."""
    if within is None:
        return buffer.proposed(pattern)
    return within[buffer.only(within).proposed(pattern)] if len(within) else within


def _look(column: Any) -> list[Looked]:
    return [
        (buffer, buffer.proposed(_EITHER) if _is_ascii(buffer) else None) for buffer in text_buffers(column)
    ]


def _is_ascii(buffer: TextBuffer) -> bool:
    low, high = int(buffer.offsets[0]), int(buffer.offsets[-1])
    return not (np.frombuffer(buffer.data, np.uint8)[low:high] & 0x80).any()
