"""Which columns say where a row is from, by their names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from dataset_guard.checks.leakage.group_leakage import words
from dataset_guard.scanning.profile import plain

_NAMES = re.compile(
    r"(?:^|_)(?:source|origin|site|domain|host|publisher|provider|contributor|uploader|author|user|account"
    r"|annotator|crawler|feed|channel|sender)(?:_?(?:id|name|key))?$",
    re.IGNORECASE,
)


def source_columns(schema: pa.Schema, label: str | None, named: Collection[str] = ()) -> list[str]:
    """Columns of sources: those ``named``, or, when none is, those whose name says so."""
    held = [f.name for f in schema if f.name != label and _holds_names(f.type)]
    return [n for n in held if (n in named if named else _NAMES.search(n))]


def _holds_names(kind: pa.DataType) -> bool:
    kind = kind.value_type if pt.is_dictionary(kind) else kind
    return bool(pt.is_integer(kind) or pt.is_string(kind) or pt.is_large_string(kind))


def source_numbers(column: Any) -> npt.NDArray[np.uint64]:
    """A 64-bit number per source, equal in every batch; a missing one is a source of its own."""
    array = plain(column)
    numbers = np.zeros(len(array), np.uint64)
    numbers[np.asarray(array.is_valid())] = words(array)
    return numbers


def salted_source(number: int, tenant: str) -> str:
    """Tells one source from another within the tenant's data, and nothing else."""
    salt = hashlib.sha256(tenant.encode()).digest()[:16]
    return hashlib.blake2b(number.to_bytes(8, "little"), digest_size=6, salt=salt).hexdigest()
