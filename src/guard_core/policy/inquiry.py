"""One question to policy with all that its record says, and what becomes of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from guard_core.findings import Enforcement
from guard_core.policy.decision import Answer, Decision


class Inquiry(NamedTuple):
    """``question`` is the policy's whole input; the decision will have the id ``decision_id``."""

    path: str
    question: Mapping[str, Any]
    requested_by: str
    subject: str
    moment: datetime
    decision_id: str
    enforcement: Enforcement

    def decided(self, answer: Answer, *, revision: str, engine: str) -> Decision:
        """The decision that ``answer`` is."""
        return Decision(
            decision_id=self.decision_id,
            path=self.path,
            value=answer.value,
            defined=answer.defined,
            error=answer.error,
            revision=revision,
            engine=engine,
            enforcement=self.enforcement,
            eval_ns=answer.eval_ns,
        )


class Answered(NamedTuple):
    """What an engine answered, without a fault; ``record`` is the decision's, `audit.record.prepared`."""

    decision_id: str
    value: Any
    defined: bool
    eval_ns: int
    revision: str
    record: bytes
