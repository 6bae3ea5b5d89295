"""The promotion gate: what a candidate must show on recorded decisions before it may be put in force."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from guard_core.policy.lifecycle.outcome import ERROR, UNDECIDABLE
from guard_core.policy.lifecycle.replay import Change, Replay

NEW_DENIALS = ("allow->deny", "allow->hold")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the gate asks. ``expected`` names rules (or ``tenant:rule``) whose new denials are the aim."""

    min_allows: int = 100
    p99_ms: int = 10
    expected: tuple[str, ...] = ()

    def expects(self, change: Change) -> bool:
        """Whether every rule that now refuses was announced."""
        return bool(change.rules) and all(
            rule in self.expected or f"{change.tenant}:{rule}" in self.expected for rule in change.rules
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """The gate's answer for the bundle ``digest``. ``failures`` are sentences; empty when it passed."""

    digest: str
    limits: Limits
    decisions: int
    allows: int
    new_denials: int
    expected_denials: int
    errors: int
    undecidable: int
    p99_us: int
    failures: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether the candidate may be promoted as far as the gate is concerned."""
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        """What policy and the audit log see: whole numbers and text only."""
        return {
            "ok": self.passed,
            "failures": list(self.failures),
            "decisions": self.decisions,
            "allows": self.allows,
            "min_allows": self.limits.min_allows,
            "new_denials": self.new_denials,
            "expected_denials": self.expected_denials,
            "expected": list(self.limits.expected),
            "errors": self.errors,
            "undecidable": self.undecidable,
            "p99_us": self.p99_us,
            "p99_limit_us": self.limits.p99_ms * 1000,
        }


def judged(replay: Replay, limits: Limits, *, digest: str, tenants: tuple[str, ...] = ()) -> GateReport:
    """Hold a replay against the limits. With ``tenants``, new denials of others do not count."""
    refusing = [
        change
        for change in replay.changes
        if change.kind in NEW_DENIALS and (not tenants or change.tenant in tenants)
    ]
    unexpected = [change for change in refusing if not limits.expects(change)]
    new = sum(change.count for change in unexpected)
    errors, undecidable = replay.count(ERROR), replay.count(UNDECIDABLE)
    p99_us = replay.eval_cpu_ns.get("p99", 0) // 1000
    failures = []
    if replay.allows < limits.min_allows:
        failures.append(
            f"only {replay.allows} recorded allows to try it on, {limits.min_allows} wanted: "
            "leave it in shadow longer, look further back (--since), or lower --min-allows"
        )
    if new:
        worst = unexpected[0]
        rules = ", ".join(worst.rules) or "no rule"
        failures.append(
            f"{new} recorded allows would be refused, most by {rules} for tenant {worst.tenant} "
            f"(e.g. {worst.examples[0]}): mend it, or announce the rule with --expect"
        )
    if errors:
        failures.append(f"it fails on {errors} recorded decisions: mend it")
    if undecidable:
        failures.append(
            f"{undecidable} recorded decisions cannot be tried, because a field it reads was masked"
        )
    if replay.unreadable:
        failures.append(f"{replay.unreadable} records cannot be read: run trainguard audit verify")
    if p99_us > limits.p99_ms * 1000:
        failures.append(f"its 99th percentile takes {p99_us / 1000:.1f} ms of CPU, {limits.p99_ms} allowed")
    return GateReport(
        digest=digest,
        limits=limits,
        decisions=replay.decisions,
        allows=replay.allows,
        new_denials=new,
        expected_denials=sum(c.count for c in refusing) - new,
        errors=errors,
        undecidable=undecidable,
        p99_us=p99_us,
        failures=tuple(failures),
    )
