"""The folder of a version while it is staged: sidecars, findings, page, manifest, record and signature."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_guard.hashing.hash_store import windows
from dataset_guard.proofs.rowtree import sidecar_root
from dataset_guard.registration.report import Report, digest_of
from dataset_guard.registration.verdict import report_of
from dataset_guard.registry import record as records
from dataset_guard.sidecars.leaves import write_leaves
from dataset_guard.sidecars.manifest import FileEntry
from dataset_guard.sidecars.rowstore import write_sidecar
from dataset_guard.sidecars.sealed_rows import seal
from guard_core.clock import rfc3339
from guard_core.files import write_atomic
from guard_core.version import __version__

if TYPE_CHECKING:
    from dataset_guard.reading import Source
    from dataset_guard.registration.request import Request
    from dataset_guard.scanning.result import ScanResult
    from guard_core.policy.decision import Decision


def write_sidecars(folder: Path, result: ScanResult, key: bytes) -> None:
    """What holds whatever policy decides; ``key`` is the tenant's row key. Raises OSError."""
    write_leaves(folder / records.LEAVES, result.fingerprint.leaves)
    seal(folder / records.SEALED, (part for _, part in windows(result.rowhashes.public)), key=key)
    write_sidecar(folder / records.ROWS, result.rowhashes.rows, result.rowhashes.features)


@dataclass(frozen=True, slots=True)
class VersionFolder:
    """What a version's folder is completed from, once policy has decided."""

    request: Request
    source: Source
    result: ScanResult
    entries: tuple[FileEntry, ...]
    path: Path

    def complete(self, decision: Decision, version: int, target: Path) -> Report:
        """Add findings, page, manifest, record and signature; ``target`` is where the folder will lie."""
        folder, home = self.path, self.request.home
        kept = not self.source.files
        uri = str(target / records.DATA) if kept else self.source.uri
        now = rfc3339(home.clock())
        report = replace(
            report_of(self.request, self.source, self.result, decision, version=version),
            source_uri=uri,
            report_path=target / records.REPORT,
            created_at=now,
            key_id=home.signer.key_id,
        )
        _dump(folder / records.FINDINGS, report.document())
        _dump(folder / records.MANIFEST, [entry.to_json() for entry in self.entries])
        report.save_html(folder / records.REPORT)
        sidecars = [records.LEAVES, records.ROWS, records.SEALED, records.FINDINGS, records.MANIFEST]
        if (folder / records.TAGS).exists():
            sidecars.append(records.TAGS)
        record = self._record(report, uri, kept, {n: records.sidecar_entry(folder / n) for n in sidecars})
        _dump(folder / records.RECORD, record)
        _dump(folder / records.ENVELOPE, records.sign(record, home.signer))
        return report

    def _record(self, report: Report, uri: str, kept: bool, sidecars: dict[str, Any]) -> dict[str, Any]:
        found = self.result.fingerprint
        roots = zip(found.columns, found.column_roots, strict=True)
        return {
            "record_version": 1,
            "ref": report.ref,
            "tenant": report.tenant,
            "name": report.name,
            "version": report.version,
            "created_at": report.created_at,
            "created_by": report.created_by,
            "content": {
                **found.to_json(),
                "digest": digest_of(found.fingerprint),
                "columns": [{"name": c.name, "type": c.type, "root": root} for c, root in roots],
            },
            "source": {
                "uri": uri,
                "path": uri if self.entries else None,
                "kind": self.source.kind,
                "kept": kept,
                "files": [entry.to_json() for entry in self.entries],
            },
            "label": report.label,
            "split": report.split,
            "parents": self._parents(report),
            "transform": None if self.request.derived is None else dict(self.request.derived.transform),
            "against": list(report.against),
            "trusted": report.trusted,
            "checks": [
                {k: check[k] for k in ("name", "version", "parameters", "skipped")} for check in report.checks
            ],
            "findings": {s: report.count(s) for s in ("critical", "warning", "info")},
            "verdict": report.verdict.value,
            "waivers": [dict(w) for w in report.waivers],
            "decision": {
                "id": report.decision_id,
                "revision": report.policy_revision,
                "engine": report.policy_engine,
                "enforcement": report.enforcement.value,
            },
            "sidecars": sidecars,
            "rows_root": sidecar_root(self.path / records.ROWS).hex(),
            "tool": {"name": "trainguard", "version": __version__},
        }

    def _parents(self, report: Report) -> list[str]:
        derived = self.request.derived
        parents = [*(() if derived is None else derived.parents), report.trusted]
        return list(dict.fromkeys(p for p in parents if p is not None))


def _dump(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")
