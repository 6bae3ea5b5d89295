"""Registering: look at a dataset once, ask policy, and keep a signed record of the answer.

``scan`` does everything but the keeping. ``register`` makes a version appear whole or not at all:

1. sidecars, findings and kept data are written to a staging folder that dies with this process;
2. policy decides, and the decision is in the audit log before anything is kept;
3. under the dataset's lock: the record gets its version number and is signed, the folder is renamed into
   place, ``dataset.registered`` is recorded, and one database commit makes the version exist.

Whatever is found without a row in the database is a leftover and is swept by the next registration.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_guard import record as records
from dataset_guard.caller import opened_home
from dataset_guard.keeping import keep
from dataset_guard.learnt import FILE as LEARNT
from dataset_guard.leaves import write_leaves
from dataset_guard.manifest import FileEntry, manifest_of
from dataset_guard.question import registration_input
from dataset_guard.reading import Source, open_source
from dataset_guard.refs import check_dataset_name, parse_ref
from dataset_guard.registry import Reference, Registry
from dataset_guard.report import Report, digest_of
from dataset_guard.rowkeys import tenant_row_key
from dataset_guard.rowstore import write_sidecar
from dataset_guard.rowtree import sidecar_root
from dataset_guard.sealed_rows import seal
from dataset_guard.suites import suite_of
from guard_core.clock import rfc3339
from guard_core.errors import Denied, Tampered, Undecidable, UserError
from guard_core.files import write_atomic
from guard_core.findings import Enforcement, Verdict
from guard_core.version import __version__

if TYPE_CHECKING:
    from dataset_guard.checks.base import CheckContext, Suite
    from dataset_guard.known import KnownHashes
    from dataset_guard.scan import Progress, ScanResult
    from dataset_guard.staging import Staging
    from guard_core.home import Home
    from guard_core.identity import Principal
    from guard_core.policy.decision import Decision

POLICY = "guard/dataset/registration/decision"
SPLITS = ("train", "validation", "test")
ENFORCEMENT = Enforcement.COOPERATIVE
"""Whoever owns the machine can leave a dataset unregistered; what is registered is recorded."""

_ATTEMPTS = 50
"""Hosts that register one dataset at once each win in turn, so this many need not be exceeded."""

Step = Callable[[str], None]
"""Told the name of each step when it is done; tests end the process there."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """What a version was made from: the parents' references, and how (JSON, signed with the record)."""

    parents: tuple[str, ...]
    transform: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, resolved: everything that is known before the data is read."""

    home: Home
    principal: Principal
    name: str
    label: str | None
    split: str | None
    against: tuple[Reference, ...]
    evaluation: tuple[Suite, ...]
    trusted: Reference | None
    checks: tuple[str, ...] | None
    parameters: dict[str, dict[str, Any]]
    budget: float | None
    ray: str | None
    derived: Derivation | None = None

    @property
    def tenant(self) -> str:
        """The tenant that the version will belong to."""
        return self.principal.tenant


def scan(
    data: Any,
    *,
    name: str = "scan",
    tenant: str | None = None,
    label: str | None = None,
    split: str | None = None,
    against: Sequence[str] = (),
    evaluation: Sequence[str] = (),
    trusted: str | None = None,
    home: Home | None = None,
    suite: Any = None,
    checks: Sequence[str] | None = None,
    budget: float | None = None,
    ray: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Check ``data`` and ask policy, as :func:`register` does, but keep nothing.

    The decision is in the audit log. Raises as :func:`register`, except that a refusal by policy is a
    Report with the verdict ``deny``.
    """
    with opened_home(home) as opened:
        request = _request(
            opened, name, tenant, label, split, against, evaluation, trusted, suite, checks, budget, ray
        )
        source, result, _ = _look(request, data, progress, keep=False)
        decision = _decide(request, result, version=None)
        return _report(request, source, result, decision)


def register(
    data: Any,
    *,
    name: str,
    tenant: str | None = None,
    label: str | None = None,
    split: str | None = None,
    against: Sequence[str] = (),
    evaluation: Sequence[str] = (),
    trusted: str | None = None,
    home: Home | None = None,
    suite: Any = None,
    checks: Sequence[str] | None = None,
    budget: float | None = None,
    ray: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    steps: Step | None = None,
    parents: Sequence[str] = (),
    transform: str | Path | Callable[..., Any] | None = None,
    transform_parameters: Mapping[str, Any] | None = None,
    derived: Derivation | None = None,
) -> Report:
    """Register ``data`` as the next version of ``name``.

    ``data`` is a path or URL, a table of pyarrow, pandas or polars, or a Ray or Hugging Face dataset (what is
    in memory is then kept in the home).
    ``against`` are versions that must not share rows with it, ``trusted`` one to compare it with;
    ``evaluation`` names suites (versions, or files) whose items must not be in its texts.
    ``suite`` is a suite of expectations, ``checks`` limits the checks by name, ``budget`` their CPU-seconds
    while rows are read. ``ray`` is the address of a Ray cluster that reads them (``auto``: the running one).
    ``parents`` are versions it was made from, ``transform`` the code that made it (a file or a function) with
    its parameters: their digests are signed (:mod:`dataset_guard.lineage`). ``derived`` gives both as such.

    Raises UserError for what the user can mend (also a full disk), Denied when policy refuses, Undecidable
    when it cannot be asked, Tampered when a reference was changed. In each case nothing is stored.
    """
    step = steps or (lambda _: None)
    with opened_home(home) as opened:
        request = _request(
            opened, name, tenant, label, split, against, evaluation, trusted, suite, checks, budget, ray
        )
        request = replace(
            request, derived=derived or _derivation(request, parents, transform, transform_parameters)
        )
        source, result, entries = _look(request, data, progress, keep=True)
        step("scanned")
        with _disk_trouble(opened.path("datasets")):
            staging = Registry(opened).stage()
            try:
                kept = keep(source, staging.folder / records.DATA) if not source.files else None
                _write_sidecars(staging.folder, result, tenant_row_key(opened, request.tenant))
                step("staged")
                commit = _Commit(request, source, result, manifest_of(kept) if kept else entries, staging)
                return commit.run(step)
            finally:
                staging.release()


def _derivation(
    request: Request,
    parents: Sequence[str],
    transform: str | Path | Callable[..., Any] | None,
    parameters: Mapping[str, Any] | None,
) -> Derivation | None:
    """Raises UserError for a transform without parents, and for parents that are not there or another's."""
    from dataset_guard.lineage import transform_of

    if not parents:
        if transform is not None or parameters:
            raise UserError(
                "a transform is told together with the versions it was run on; name them as parents"
            )
        return None
    found = []
    for text in parents:
        if parse_ref(text, tenant=request.tenant).tenant != request.tenant:
            raise Denied(f"{text} belongs to another tenant, so it cannot be a parent; name one of your own")
        found.append(Registry(request.home).reference(text, tenant=request.tenant))
    names = tuple(reference.ref for reference in found)
    return Derivation(names, transform_of(found, transform, parameters))


@contextmanager
def _disk_trouble(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"the dataset cannot be stored under {place} ({error.strerror or error}); nothing was stored: "
            "free space or mend the permissions, and try again"
        ) from error


def _request(
    home: Home,
    name: str,
    tenant: str | None,
    label: str | None,
    split: str | None,
    against: Sequence[str],
    evaluation: Sequence[str],
    trusted: str | None,
    suite: Any,
    checks: Sequence[str] | None,
    budget: float | None,
    ray: str | None,
) -> Request:
    check_dataset_name(name)
    if split is not None and split not in SPLITS:
        raise UserError(f"split {split!r} is none of {', '.join(SPLITS)}")
    principal = home.principal(tenant=tenant)
    _ = home.policy  # a broken policy directory is found before hours of reading, not after
    registry = Registry(home)

    def reference(text: str) -> Reference:
        if parse_ref(text, tenant=principal.tenant).tenant != principal.tenant:
            raise Denied(
                f"{text} belongs to another tenant: rows of two tenants are never compared; "
                f"name a dataset of {principal.tenant}"
            )
        return registry.reference(text, tenant=principal.tenant)

    baseline = None if trusted is None else reference(trusted)
    if baseline is not None and baseline.version.verdict in ("quarantine", "deny"):
        raise UserError(
            f"{baseline.ref} has the verdict {baseline.version.verdict}, so it cannot be the trusted "
            "version; name another with --trusted"
        )
    return Request(
        home=home,
        principal=principal,
        name=name,
        label=label,
        split=split,
        against=tuple(reference(text) for text in against),
        evaluation=tuple(suite_of(text, reference) for text in evaluation),
        trusted=baseline,
        checks=None if checks is None else tuple(checks),
        parameters={} if suite is None else {"expectations": {"suite": load_suite(suite)}},
        budget=budget,
        ray=ray,
    )


def load_suite(suite: Any) -> Any:
    """A suite of expectations: as given, or read from the JSON file at ``suite``. Raises UserError."""
    if not isinstance(suite, str | os.PathLike):
        return suite
    try:
        return json.loads(Path(suite).read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"there is no suite file {suite}; check the path") from error
    except (OSError, ValueError) as error:
        raise UserError(f"the suite file {suite} is not readable JSON ({error}); repair it") from error


def _look(
    request: Request, data: Any, progress: Callable[[Progress], None] | None, *, keep: bool
) -> tuple[Source, ScanResult, tuple[FileEntry, ...]]:
    """Read the data once. Raises UserError for bad data, and when its files change meanwhile.

    With ``keep`` the result has what the next registration of a set in files need not read again.
    """
    from dataset_guard.checks.base import CheckContext

    source = open_source(data)
    if source.num_rows == 0:
        raise UserError(f"{_said(source)} has no rows; a dataset needs at least one")
    _check_label(source, request.label)
    before = _signs(source)
    entries = manifest_of(source)
    context = CheckContext(
        schema=source.schema,
        name=request.name,
        tenant=request.tenant,
        label=request.label,
        split=request.split,
        baseline=request.trusted,
        against=request.against,
        suites=request.evaluation,
        parameters=request.parameters,
    )
    result = _scanned(request, source, entries, context, progress, keep=keep and bool(entries))
    if result.fingerprint.rows == 0:
        raise UserError(f"{_said(source)} has no rows; a dataset needs at least one")
    if _signs(source) != before:
        raise UserError(f"{source.uri} changed while it was read; try again when nothing writes to it")
    return source, result, entries


def _scanned(
    request: Request,
    source: Source,
    entries: Sequence[FileEntry],
    context: CheckContext,
    progress: Callable[[Progress], None] | None,
    *,
    keep: bool,
) -> ScanResult:
    from dataset_guard.scan import scan_source

    key = tenant_row_key(request.home, request.tenant)
    if request.ray is None:
        return scan_source(
            source,
            context,
            row_key=key,
            checks=request.checks,
            progress=progress,
            budget=request.budget,
            known=_grown_from(request, source, entries, key),
            keep=keep,
        )
    from dataset_guard.ray_data import connected
    from dataset_guard.scan_ray import scan_on_ray

    with connected(request.ray):
        return scan_on_ray(
            source, context, row_key=key, checks=request.checks, progress=progress, budget=request.budget
        )


def _grown_from(
    request: Request, source: Source, entries: Sequence[FileEntry], key: bytes
) -> KnownHashes | None:
    """What the newest version knows of its rows, when all its files are in ``source``; else None.

    A version that cannot be believed any more is no help, and no obstacle either: all rows are hashed then.
    """
    from dataset_guard.known import known_hashes

    registry = Registry(request.home)
    if not entries or registry.find(request.name, tenant=request.tenant) is None:
        return None
    try:
        newest = registry.reference(request.name, tenant=request.tenant)
        return known_hashes(newest, source, entries, key=key, label=request.label)
    except Tampered:
        return None


def _said(source: Source) -> str:
    """The data as its owner would call it: its path, or what kind of table it is."""
    kind = source.uri.removeprefix("memory:")
    return source.uri if kind == source.uri else f"the {kind} data"


def _check_label(source: Source, label: str | None) -> None:
    if label is None:
        return
    if label not in source.schema.names:
        known = ", ".join(source.schema.names[:20]) + (", ..." if len(source.schema.names) > 20 else "")
        raise UserError(f"{_said(source)} has no label column {label!r}; its columns are: {known}")
    import pyarrow as pa

    kind = source.schema.field(label).type
    if pa.types.is_nested(kind):
        raise UserError(
            f"{_said(source)}: the label column {label!r} holds nested values ({kind}); "
            "name a column with one value per row"
        )
    if all(b.column(0).null_count == b.num_rows for b in source.stream(columns=[label])):
        raise UserError(f"{_said(source)}: the label column {label!r} holds only nulls; name another column")


def _signs(source: Source) -> list[tuple[int, int, int]]:
    """What shows that a file was written to while it was read (a hint for now, never evidence later)."""
    stats = [file.stat() for file in source.files]
    return [(s.st_size, s.st_mtime_ns, s.st_ino) for s in stats]


def _decide(request: Request, result: ScanResult, *, version: int | None) -> Decision:
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


def _report(
    request: Request, source: Source, result: ScanResult, decision: Decision, *, version: int | None = None
) -> Report:
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


def _write_sidecars(folder: Path, result: ScanResult, key: bytes) -> None:
    write_leaves(folder / records.LEAVES, result.fingerprint.leaves)
    seal(folder / records.SEALED, [result.rowhashes.public], key=key)
    write_sidecar(folder / records.ROWS, result.rowhashes.rows, result.rowhashes.features)
    if result.learnt is not None:
        with result.learnt, (folder / LEARNT).open("wb") as file:
            shutil.copyfileobj(result.learnt, file, 1 << 20)


@dataclass(frozen=True, slots=True)
class _Commit:
    """The last part of a registration: from a staging folder to a version that exists."""

    request: Request
    source: Source
    result: ScanResult
    entries: tuple[FileEntry, ...]
    staging: Staging

    def run(self, step: Step) -> Report:
        """Make the next version. Raises Denied, Undecidable, OSError; nothing exists then.

        Another host that shares the database may take the number first: then the next one is tried.
        """
        from dataset_guard.versions import VersionTaken

        for _ in range(_ATTEMPTS - 1):
            try:
                return self._try(step)
            except VersionTaken:
                continue
        return self._try(step)

    def _try(self, step: Step) -> Report:
        from dataset_guard.versions import VersionTaken, add_version, highest_version

        home, name, tenant = self.request.home, self.request.name, self.request.tenant
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
            decision = _decide(self.request, self.result, version=version)
            if not decision.allow:
                raise Denied(f"{name} was not registered: {decision.explain()}", decision.decision_id)
            step("decided")
            target = registry.folder(tenant, name, version)
            report = self._written(decision, version, target)
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
                add_version(home, record, record_path=path.as_posix(), created_by=self.request.principal.user)
            except VersionTaken:
                self.staging.take_back(target)
                data = {"folders": [report.ref], "reason": "another host took the number first"}
                home.audit.event("dataset.swept", subject=report.ref, data=data, enforcement=ENFORCEMENT)
                raise
            step("committed")
            if version > 1:  # of use with the newest version only
                (registry.folder(tenant, name, version - 1) / LEARNT).unlink(missing_ok=True)
        return report

    def _written(self, decision: Decision, version: int, target: Path) -> Report:
        """Complete the staging folder: findings, page, manifest, record, signature."""
        folder, home = self.staging.folder, self.request.home
        kept = not self.source.files
        uri = str(target / records.DATA) if kept else self.source.uri
        now = rfc3339(home.clock())
        report = replace(
            _report(self.request, self.source, self.result, decision, version=version),
            source_uri=uri,
            report_path=target / records.REPORT,
            created_at=now,
            key_id=home.signer.key_id,
        )
        _dump(folder / records.FINDINGS, report.document())
        _dump(folder / records.MANIFEST, [entry.to_json() for entry in self.entries])
        report.save_html(folder / records.REPORT)
        sidecars = (
            records.LEAVES,
            records.ROWS,
            records.SEALED,
            records.FINDINGS,
            records.MANIFEST,
        )
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
            "rows_root": sidecar_root(self.staging.folder / records.ROWS).hex(),
            "tool": {"name": "trainguard", "version": __version__},
        }

    def _parents(self, report: Report) -> list[str]:
        derived = self.request.derived
        parents = [*(() if derived is None else derived.parents), report.trusted]
        return list(dict.fromkeys(p for p in parents if p is not None))


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


def _dump(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")
