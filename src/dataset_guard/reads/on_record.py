"""Who read a version, as the audit log has it: for monitoring what leaves, and for *who must be told*.

Every verified read leaves one ``dataset.read``, every copy taken out one ``dataset.exported``, whoever made
them: people, jobs, other tenants that a version was shared with. Code that opened the file itself is not here
(`cooperative`); what it left is a run or a job without a read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dataset_guard.registry.caller import caller_of
from dataset_guard.registry.refs import parse_ref
from dataset_guard.registry.store import Registry
from guard_core.errors import Denied

if TYPE_CHECKING:
    from guard_core.home import Home

KINDS = ("dataset.read", "dataset.exported")
MASKED = "(masked)"
"""What a field says that the policy ``guard/audit/mask`` keeps back."""


@dataclass(frozen=True, slots=True)
class Read:
    """One read or copy of a version: who, when, how much, and how it ended.

    ``purpose`` is what policy was asked for; of a copy it is ``export``, and ``to`` says where it went.
    ``rows`` is unknown (None) for a copy, which takes files. ``problem`` is what stopped it, if anything did.
    """

    at: str
    ref: str
    tenant: str
    user: str
    workload: str | None
    purpose: str
    rows: int | None
    bytes: int
    columns: tuple[str, ...] | None
    complete: bool
    problem: str | None
    to: str | None
    decision_id: str

    @property
    def outcome(self) -> str:
        """``all``, ``part`` (a shard, or ended early) or ``stopped``. What was handed out was verified."""
        return "stopped" if self.problem else "all" if self.complete else "part"

    def to_json(self) -> dict[str, Any]:
        """For output."""
        return {**asdict(self), "outcome": self.outcome}


def reads_of(home: Home, ref: str, *, tenant: str | None = None, since: datetime | None = None) -> list[Read]:
    """Who read the version ``ref``, oldest first; without ``@``, any version of that dataset.

    Deleted and destroyed versions count. Fields that the mask policy keeps back are kept back here, too.
    Raises Denied for another tenant's dataset and for a job's credential, UserError when there is no such
    version, Undecidable when the policy does not say what to mask.
    """
    from guard_core.audit.masked import Masks

    principal = caller_of(home, ref, tenant=tenant)
    if principal.kind == "job":
        raise Denied("a job's credential cannot see who read what; use a person's credential")
    wanted = _wanted(home, ref, principal.tenant)
    # Chosen before masks hide what they are about.
    chosen = [
        record
        for record in home.audit.records(since=since, kind="dataset.")
        if record["kind"] in KINDS and record["subject"] in wanted
    ]
    kept = Masks(lambda: home.policy, home.clock).leaving(chosen)
    return [_read(str(record["subject"]), left) for record, left in zip(chosen, kept, strict=True)]


def _wanted(home: Home, text: str, tenant: str) -> set[str]:
    registry, ref = Registry(home), parse_ref(text, tenant=tenant)
    if ref.version is None and ref.alias is None:
        versions = registry.versions(ref.name, tenant=ref.tenant, deleted=True)
        if versions:
            return {version.ref for version in versions}
    return {registry.get_any(text, tenant=tenant).ref}


def _read(ref: str, record: Mapping[str, Any]) -> Read:
    data = record.get("data", {})
    copied = record["kind"] == "dataset.exported"
    columns = data.get("columns")
    return Read(
        at=record["timestamp"],
        ref=ref,
        tenant=ref.partition("/")[0] if copied else data.get("tenant", MASKED),
        user=data.get("by" if copied else "user", MASKED),
        workload=data.get("workload"),
        purpose="export" if copied else data.get("purpose", MASKED),
        rows=None if copied else data.get("rows"),
        bytes=data.get("bytes", 0),
        columns=None if columns is None else tuple(columns),
        complete=copied or bool(data.get("complete")),
        problem=data.get("problem"),
        to=data.get("to"),
        decision_id=record.get("decision_id", ""),
    )
