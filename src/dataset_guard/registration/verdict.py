"""What policy says of the findings, and the report of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataset_guard.registration.question import registration_input
from dataset_guard.registration.report import Report
from guard_core.errors import Undecidable
from guard_core.findings import Enforcement, Verdict

if TYPE_CHECKING:
    from dataset_guard.reading import Source
    from dataset_guard.registration.request import Request
    from dataset_guard.scanning.result import ScanResult
    from guard_core.policy.decision import Decision

POLICY = "guard/dataset/registration/decision"
ENFORCEMENT = Enforcement.COOPERATIVE
"""Whoever owns the machine can leave a dataset unregistered; what is registered is recorded."""


def decide(request: Request, result: ScanResult, *, version: int | None) -> Decision:
    """Policy's decision, in the audit log when this returns; ``version`` is None for a scan.

    Raises Undecidable when policy cannot be asked.
    """
    decision = request.home.decide(
        POLICY,
        registration_input(
            tenant=request.tenant,
            name=request.name,
            version=version,
            label=request.label,
            split=request.split,
            trusted=None if request.trusted is None else request.trusted.ref,
            fingerprint=result.fingerprint,
            findings=result.findings,
            scope=result.scope,
        ),
        principal=request.principal,
        enforcement=ENFORCEMENT,
        subject=f"{request.tenant}/{request.name}" + ("" if version is None else f"@{version}"),
    )
    if decision.undecidable:
        raise Undecidable(f"no decision on {request.name}: {decision.explain()}; nothing was stored")
    return decision


def _verdict(decision: Decision) -> Verdict:
    """The policy's verdict. Raises Undecidable for a policy that gives none."""
    said = decision.value.get("verdict") if isinstance(decision.value, dict) else None
    if said is None and not decision.allow:
        return Verdict.DENY
    try:
        return Verdict(str(said))
    except ValueError as error:
        raise Undecidable(f"policy {POLICY} gave no verdict (decision {decision.decision_id})") from error


def report_of(
    request: Request, source: Source, result: ScanResult, decision: Decision, *, version: int | None = None
) -> Report:
    """The report of ``result`` and ``decision``. Raises Undecidable for a decision without a verdict."""
    reasons = decision.reasons_of("deny") + decision.reasons_of("warn")
    return Report(
        name=request.name,
        tenant=request.tenant,
        version=version,
        fingerprint=result.fingerprint.fingerprint,
        rows=result.fingerprint.rows,
        columns=len(result.fingerprint.columns),
        verdict=_verdict(decision),
        decision_id=decision.decision_id,
        findings=result.findings,
        label=request.label,
        split=request.split,
        source_uri=source.uri,
        num_bytes=source.num_bytes,
        schema=tuple((c.name, c.type) for c in result.fingerprint.columns),
        profile=result.profile,
        checks=tuple(dict(check) for check in result.checks),
        seconds=dict(result.seconds),
        reasons=tuple(reason.to_json() for reason in reasons),
        waivers=tuple(r.to_json() for r in reasons if r.details.get("severity") == "waived"),
        against=tuple(r.ref for r in request.against),
        trusted=None if request.trusted is None else request.trusted.ref,
        policy_revision=decision.revision,
        policy_engine=decision.engine,
        enforcement=decision.enforcement,
        created_by=request.principal.user,
    )
