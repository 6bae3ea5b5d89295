"""Delta mode for every rule: which of a finding's rows the trusted version already had.

Poison, leaks and personal data arrive with an update. A check that looks at all rows names old and new ones
together; the row hashes of the trusted version tell them apart, whatever the check is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dataset_guard.checks.base import CheckContext, Hashes
from dataset_guard.checks.poisoning.changes import changed_rows, incomparable
from guard_core.findings import Finding, RowSet

_SHOWN_RANGES = 100


def with_novelty(
    findings: list[Finding], context: CheckContext, hashes: Callable[[], Hashes]
) -> list[Finding]:
    """``findings`` with ``new_since_trusted`` (how many of their rows) and ``new_rows`` (the first ranges).

    As they are without a trusted version, or with one of other columns, whose rows nobody can match.
    ``hashes`` gives the row hashes of the whole table.
    """
    if context.baseline is None or incomparable(context, context.baseline) is not None:
        return findings
    if not any(finding.rows.ranges for finding in findings):
        return findings
    whole = hashes()
    return [_told(finding, context, whole) if finding.rows.ranges else finding for finding in findings]


def _told(finding: Finding, context: CheckContext, hashes: Hashes) -> Finding:
    rows = np.concatenate([np.arange(first, last + 1) for first, last in finding.rows.ranges])
    new = RowSet.of(rows[changed_rows(context, hashes[rows])].tolist())
    shown = [list(r) for r in new.ranges[:_SHOWN_RANGES]]
    return replace(
        finding, evidence={**finding.evidence, "new_since_trusted": len(new), "new_rows": {"ranges": shown}}
    )
