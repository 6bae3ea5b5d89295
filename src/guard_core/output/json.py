"""The documented JSON, indented, one document on stdout and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def render(report: Mapping[str, Any]) -> str:
    """``report`` as it is. Raises ValueError for NaN and infinities, which JSON does not have."""
    return json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
