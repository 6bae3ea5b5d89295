"""The last part of a registration: from a staging folder to a version that exists, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataset_guard.registration.verdict import ENFORCEMENT, decide
from dataset_guard.registry import record as records
from dataset_guard.registry.store import Registry
from dataset_guard.sidecars.learnt import FILE as LEARNT
from guard_core.errors import Denied

if TYPE_CHECKING:
    from dataset_guard.registration.report import Report
    from dataset_guard.registration.staging import Staging
    from dataset_guard.registration.version_folder import VersionFolder

_ATTEMPTS = 50
"""Hosts that register one dataset at once each win in turn, so this many need not be exceeded."""

Step = Callable[[str], None]
"""Told the name of each step when it is done; tests end the process there."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Makes ``staging``, which holds ``contents``, the next version of its dataset."""

    contents: VersionFolder
    staging: Staging

    def run(self, step: Step) -> Report:
        """Make the next version. Raises Denied, Undecidable, OSError; nothing exists then.

        Another host that shares the database may take the number first: then the next one is tried.
        """
        from dataset_guard.registry.versions import VersionTaken

        for _ in range(_ATTEMPTS - 1):
            try:
                return self._try(step)
            except VersionTaken:
                continue
        return self._try(step)

    def _try(self, step: Step) -> Report:
        from dataset_guard.registry.versions import VersionTaken, add_version, highest_version

        request = self.contents.request
        home, name, tenant = request.home, request.name, request.tenant
        registry = Registry(home)
        with registry.lock(tenant, name):
            highest = highest_version(home, tenant, name)
            swept = registry.sweep_dataset(tenant, name, highest)
            if swept:
                data = {"folders": swept, "reason": "no version was committed for them"}
                home.audit.event(
                    "dataset.swept", subject=f"{tenant}/{name}", data=data, enforcement=ENFORCEMENT
                )
            version = highest + 1
            decision = decide(request, self.contents.result, version=version)
            if not decision.allow:
                raise Denied(f"{name} was not registered: {decision.explain()}", decision.decision_id)
            step("decided")
            target = registry.folder(tenant, name, version)
            report = self.contents.complete(decision, version, target)
            step("signed")
            record = json.loads((self.staging.folder / records.RECORD).read_bytes())
            self.staging.publish(target)
            step("published")
            home.audit.event(
                "dataset.registered",
                subject=report.ref,
                data=_event(report, record),
                enforcement=ENFORCEMENT,
                decision_id=decision.decision_id,
            )
            step("recorded")
            path = target.relative_to(home.settings.home) / records.RECORD
            try:
                add_version(home, record, record_path=path.as_posix(), created_by=request.principal.user)
            except VersionTaken:
                self.staging.take_back(target)
                data = {"folders": [report.ref], "reason": "another host took the number first"}
                home.audit.event("dataset.swept", subject=report.ref, data=data, enforcement=ENFORCEMENT)
                raise
            step("committed")
            if version > 1:  # of use with the newest version only
                (registry.folder(tenant, name, version - 1) / LEARNT).unlink(missing_ok=True)
        return report


def _event(report: Report, record: dict[str, Any]) -> dict[str, Any]:
    return {
        "fingerprint": report.fingerprint,
        "verdict": report.verdict.value,
        "rows": report.rows,
        "findings": record["findings"],
        "record_digest": records.digest_of(record),
        "created_by": report.created_by,
        **({} if record["transform"] is None else {"transform": record["transform"]}),
    }
