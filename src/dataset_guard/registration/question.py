"""What policy is asked about a registration. Whole numbers only: shares are parts per million."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from guard_core.findings import Finding

if TYPE_CHECKING:
    from dataset_guard.hashing.fingerprint import Fingerprint
    from dataset_guard.scanning.plan import Scope


def registration_input(
    *,
    tenant: str,
    name: str,
    version: int | None,
    label: str | None,
    split: str | None,
    trusted: str | None,
    fingerprint: Fingerprint,
    findings: Sequence[Finding],
    scope: Scope,
) -> dict[str, Any]:
    """``{dataset, findings, checks, baseline}`` for ``guard/dataset/registration/decision``."""
    return {
        "dataset": {
            "tenant": tenant,
            "name": name,
            "version": version,
            "rows": fingerprint.rows,
            "columns": len(fingerprint.columns),
            "fingerprint": fingerprint.fingerprint,
            "label": label,
            "split": split,
            "trusted": trusted,
        },
        "findings": [_finding(finding, fingerprint.rows) for finding in findings],
        "checks": {name: list(checks) for name, checks in asdict(scope).items()},
        "baseline": {"present": trusted is not None},
    }


def _finding(finding: Finding, rows: int) -> dict[str, Any]:
    count = len(finding.rows) if finding.count is None else finding.count
    return {
        "rule_id": finding.rule_id,
        "severity": finding.severity.value,
        "check": finding.check,
        "count": count,
        "rows_ppm": count * 1_000_000 // rows if rows else 0,
        "fdr_ppm": None if finding.fdr is None else round(finding.fdr * 1_000_000),
    }
