"""One check at work in a pass over the rows.

A check that raises must not be mistaken for one that found nothing: its failure becomes a critical finding
QUAL099, which policy quarantines.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dataset_guard.checks.discover import parameters_of
from guard_core.errors import GuardError
from guard_core.findings import Finding, Severity

if TYPE_CHECKING:
    from dataset_guard.checks.base import Check, CheckContext, Hashes
    from dataset_guard.scanning.result import Timer


class CheckRun:
    """One check at work: its state, or why it has none."""

    def __init__(self, check: Check, context: CheckContext, timer: Timer) -> None:
        self.check = check
        self._timer = timer
        self._state: Any = None
        self.skipped: str | None = None
        self.cut_short = False
        self.failure: Finding | None = None
        self.details: Mapping[str, Any] | None = None
        with self._guarded():
            self.skipped = check.applies(context)
            if self.skipped is None:
                self._state = check.start(context)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """A failing check is a finding; its error may quote a cell, so only type and place are told."""
        try:
            with self._timer.stage(f"check:{self.check.name}"):
                yield
        except (GuardError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - a check may be anybody's code
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
            self._state = None
            self.skipped = f"failed: {type(error).__name__} at {place}"
            self.failure = Finding(
                rule_id="QUAL099",
                severity=Severity.CRITICAL,
                message=f"The check {self.check.name} failed, so its rules say nothing about this data.",
                action="Report the failure to the check's author, or leave the check out with --checks.",
                evidence={"error": type(error).__name__, "place": place, "rules": list(self.check.rule_ids)},
            )

    def update(self, batch: Any, first_row: int, hashes: Hashes | None, features: Hashes | None) -> None:
        """Show the check a batch, with the hashes of its rows that it needs."""
        if self._state is not None:
            needs = self.check.needs
            with self._guarded():
                self._state.update(
                    batch,
                    first_row,
                    hashes if "row_hashes" in needs else None,
                    features if "feature_hashes" in needs else None,
                )

    @property
    def seconds(self) -> float:
        """CPU seconds so far."""
        return self._timer.seconds[f"check:{self.check.name}"]

    def stop(self, reason: str) -> None:
        """Give up; what was seen so far says nothing about all rows."""
        if self._state is not None:
            self._state, self.skipped, self.cut_short = None, reason, True

    @property
    def running(self) -> bool:
        """Whether it is still looking at rows."""
        return self._state is not None

    @property
    def state(self) -> Any:
        """What it has seen; None when it does not run."""
        return self._state

    def merge(self, other: CheckRun) -> None:
        """Absorb what the check saw of other rows; trouble there is trouble here."""
        self.failure = self.failure or other.failure
        self.cut_short |= other.cut_short
        if other._state is None and self._state is not None:
            self._state, self.skipped = None, other.skipped
        elif self._state is not None:
            with self._guarded():
                self._state.merge(other._state)

    def finish(self) -> list[Finding]:
        """What it has found, also its own failure; called once."""
        found: list[Finding] = []
        if self._state is not None:
            with self._guarded():
                found = list(self._state.finish())
                self.skipped = getattr(self._state, "skipped", None)
                self.details = getattr(self._state, "details", None)
        if self.failure is not None:
            found.append(self.failure)
        return [replace(f, check=self.check.name, check_version=self.check.version) for f in found]

    def record(self) -> dict[str, Any]:
        """How it went, as the report and the signed record tell it."""
        return {
            "name": self.check.name,
            "version": self.check.version,
            "parameters": {k: v for k, v in parameters_of(self.check).items() if _is_json(v)},
            "seconds": round(self._timer.seconds[f"check:{self.check.name}"], 4),
            "skipped": self.skipped,
            **({} if self.details is None else {"details": dict(self.details)}),
        }


def _is_json(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_json(v) for v in value)
    return value is None or isinstance(value, str | int | float | bool)
