"""What a person, a notebook and a program get back from ``register`` and ``scan``.

:class:`Report` is a value: nothing in it changes after it was decided, and nothing in it is a cell of
the data. Three shapes leave it:

* :meth:`Report.to_json` - the documented, stable JSON of ``trainguard dataset register --format json``;
* :meth:`Report.document` - that plus profile, checks, policy reasons and timings: what ``findings.json``
  holds and what the HTML page is made from;
* :meth:`Report._repr_html_` - the short form a notebook shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from guard_core.counting import counted
from guard_core.findings import Enforcement, Finding, RowSet, Severity, Verdict

DIGEST_CHARACTERS = 36
"""MLflow's limit for a dataset digest (mlflow/utils/validation.py, MAX_DATASET_DIGEST_SIZE)."""

_SHOWN_RANGES = 12


def digest_of(fingerprint: str) -> str:
    """MLflow's digest for a fingerprint: its first 128 bits, ``dg1:<32 hex>``, exactly 36 characters.

    ``fingerprint`` is ``dg1:<64 hex>``. Raises ValueError for any other form.
    """
    prefix, _, hexadecimal = fingerprint.partition(":")
    if prefix != "dg1" or len(hexadecimal) != 64:
        raise ValueError(f"a fingerprint is 'dg1:' and 64 hex digits, got {fingerprint!r}")
    return f"{prefix}:{hexadecimal[:32]}"


def rows_text(rows: RowSet, *, limit: int = _SHOWN_RANGES) -> str:
    """Row numbers for a person: ``3, 17-40, 99 and 5 more ranges``; empty when there are none."""
    shown = [f"{a:,}" if a == b else f"{a:,}\N{EN DASH}{b:,}" for a, b in rows.ranges[:limit]]
    rest = len(rows.ranges) - len(shown)
    text = ", ".join(shown)
    return f"{text} and {counted(rest, 'more range')}" if rest > 0 else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of looking at one dataset.

    ``rows`` and ``columns`` are counts. ``version`` is None for a scan, which stores nothing.
    ``profile``, ``checks`` (one ``{name, version, parameters, seconds, skipped}`` each) and ``seconds``
    (CPU seconds by stage) come from the scan; ``reasons`` (``{rule, msg}``) from the policy decision.
    """

    name: str
    tenant: str
    fingerprint: str
    rows: int
    columns: int
    verdict: Verdict
    version: int | None = None
    digest: str = ""
    decision_id: str = ""
    report_path: Path | None = None
    findings: tuple[Finding, ...] = ()
    label: str | None = None
    split: str | None = None
    source_uri: str = ""
    num_bytes: int | None = None
    schema: tuple[tuple[str, str], ...] = ()
    profile: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[Mapping[str, Any], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    reasons: tuple[Mapping[str, Any], ...] = ()
    waivers: tuple[Mapping[str, Any], ...] = ()
    against: tuple[str, ...] = ()
    trusted: str | None = None
    policy_revision: str = ""
    policy_engine: str = ""
    enforcement: Enforcement = Enforcement.COOPERATIVE
    key_id: str = ""
    created_at: str = ""
    created_by: str = ""

    def __post_init__(self) -> None:
        expected = digest_of(self.fingerprint)
        if self.digest not in ("", expected):
            raise ValueError(f"digest {self.digest} is not that of fingerprint {self.fingerprint}")
        object.__setattr__(self, "digest", expected)

    @property
    def ref(self) -> str:
        """``tenant/name@version``, or ``tenant/name`` for a scan."""
        base = f"{self.tenant}/{self.name}"
        return base if self.version is None else f"{base}@{self.version}"

    def count(self, severity: Severity | str) -> int:
        """How many findings have this severity."""
        return sum(f.severity == Severity(severity) for f in self.findings)

    @property
    def summary(self) -> str:
        """``2 critical, 1 warning`` - severities that occur, worst first; ``none`` for a clean set."""
        counted = [(self.count(s), s.value) for s in sorted(Severity, key=lambda s: -s.rank)]
        return ", ".join(f"{n} {word}" for n, word in counted if n) or "none"

    def to_json(self) -> dict[str, Any]:
        """The documented JSON shape of ``dataset register`` and ``dataset scan``."""
        return {
            "name": self.name,
            "version": self.version,
            "fingerprint": self.fingerprint,
            "digest": self.digest,
            "rows": self.rows,
            "columns": self.columns,
            "verdict": self.verdict.value,
            "decision_id": self.decision_id,
            "report_path": None if self.report_path is None else str(self.report_path),
            "findings": [f.to_json() for f in self.findings],
        }

    def document(self) -> dict[str, Any]:
        """:meth:`to_json` and everything else, all of it JSON values; the input of the HTML page."""
        return {
            **self.to_json(),
            "kind": "dataset_report",
            "ref": self.ref,
            "tenant": self.tenant,
            "label": self.label,
            "split": self.split,
            "source_uri": self.source_uri,
            "num_bytes": self.num_bytes,
            "schema": [{"name": n, "type": t} for n, t in self.schema],
            "profile": dict(self.profile),
            "checks": [dict(c) for c in self.checks],
            "seconds": dict(self.seconds),
            "reasons": [dict(r) for r in self.reasons],
            "waivers": [dict(w) for w in self.waivers],
            "against": list(self.against),
            "trusted": self.trusted,
            "policy_revision": self.policy_revision,
            "policy_engine": self.policy_engine,
            "enforcement": self.enforcement.value,
            "key_id": self.key_id,
            "created_at": self.created_at,
            "created_by": self.created_by,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Report:
        """Inverse of :meth:`document`; also reads :meth:`to_json`, whose missing fields stay empty."""
        known = {f.name for f in fields(cls)} - {"findings", "schema"}
        given: dict[str, Any] = {k: v for k, v in value.items() if k in known}
        for name in ("checks", "reasons", "waivers", "against"):
            given[name] = tuple(given.get(name) or ())
        return cls(
            **{
                **given,
                "tenant": value.get("tenant", ""),
                "verdict": Verdict(value["verdict"]),
                "enforcement": Enforcement(value.get("enforcement", Enforcement.COOPERATIVE)),
                "report_path": Path(value["report_path"]) if value.get("report_path") else None,
            },
            schema=tuple((c["name"], c["type"]) for c in value.get("schema", ())),
            findings=tuple(Finding.from_json(f) for f in value["findings"]),
        )

    def to_html(self, *, lang: str = "en") -> str:
        """The full page: one self-contained file, English and Chinese, ``lang`` shown first."""
        from guard_core.output.html import render

        return render(self.document(), lang=lang)

    def save_html(self, path: Path, *, lang: str = "en") -> Path:
        """Write :meth:`to_html` to ``path`` in one step (a reader never sees half a page); returns it."""
        from guard_core.output.html import write

        return write(path, self.to_html(lang=lang))

    def __repr__(self) -> str:
        size = f"{counted(self.rows, 'row')} x {counted(self.columns, 'column')}"
        lines = [f"<Report {self.ref}: {self.verdict.value}, {size}, findings: {self.summary}>"]
        lines += [
            f"  {f.severity.value:<8} {f.rule_id}  {f.message}"
            + (f"  rows {rows_text(f.rows, limit=4)}" if f.rows.ranges else "")
            for f in sorted(self.findings, key=lambda f: -f.severity.rank)
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from dataset_guard.registration.notebook import report_html

        return report_html(self)
