"""A log of its own, in a folder as a home has it: `audit` beside `keys`."""

from __future__ import annotations

from pathlib import Path

import pytest

from guard_core.attestation import Signer
from guard_core.audit.head import ANCHOR_FILE
from guard_core.audit.log import AuditLog
from guard_core.testing import FrozenClock


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer.open(tmp_path / "keys")


@pytest.fixture
def log(tmp_path: Path, signer: Signer, clock: FrozenClock) -> AuditLog:
    anchor = tmp_path / "keys" / ANCHOR_FILE
    return AuditLog(tmp_path / "audit", signer=lambda: signer, clock=clock, anchor=anchor)


@pytest.fixture
def ten(log: AuditLog) -> AuditLog:
    """A log of ten records."""
    for number in range(10):
        log.append([{"kind": "test.counted", "number": number, "timestamp": "2026-01-01T00:00:00.000000Z"}])
    return log
