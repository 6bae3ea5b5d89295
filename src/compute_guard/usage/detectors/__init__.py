"""Detectors: one file each. Add one by adding a file with a class named in its ``DETECTOR``.

Start with ``base`` (what a detector sees and says), then read one sibling.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from compute_guard.usage.detectors.base import Detector, Signal, View
from guard_core.errors import UserError

__all__ = ["Detector", "Signal", "View", "load_detectors"]


def load_detectors(config: Mapping[str, Mapping[str, Any]] | None = None) -> tuple[Detector, ...]:
    """Every detector of this package, with its parameters from ``config[<module name>]``.

    ``enabled: false`` leaves one out. Raises UserError naming an unknown detector or parameter.
    """
    wanted = dict(config or {})
    found: list[Detector] = []
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name != "base"):
        kind = importlib.import_module(f"{__name__}.{module}").DETECTOR
        parameters = dict(wanted.pop(module, {}))
        if parameters.pop("enabled", True) is False:
            continue
        known = {field.name for field in dataclasses.fields(kind)}
        if unknown := sorted(set(parameters) - known):
            raise UserError(
                f"detector {module} has no parameter {unknown[0]!r}; it has {', '.join(sorted(known))}"
            )
        found.append(kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in parameters.items()}))
    if wanted:
        raise UserError(f"there is no detector {min(wanted)!r}; correct the usage data of the policies")
    return tuple(found)
