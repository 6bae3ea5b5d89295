"""Columns by their logical type, whatever the layout: what checks of splits and labels ask first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from dataset_guard.scanning.profile import plain


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without dictionary, run ends or extension."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def is_time(kind: pa.DataType) -> bool:
    """Whether a type is a date or a timestamp."""
    return bool(pt.is_timestamp(kind) or pt.is_date(kind))


def microseconds(array: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Times as microseconds since 1970, and which are known."""
    ticks = plain(array).cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    return np.asarray(ticks.fill_null(0)), np.asarray(ticks.is_valid())
