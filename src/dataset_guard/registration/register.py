"""Registering: look at a dataset once, ask policy, and keep a signed record of the answer.

``scan`` does everything but the keeping. ``register`` makes a version appear whole or not at all:

1. the data is read; sidecars, findings and kept data are written to a staging folder that dies with this
   process;
2. policy decides, and the decision is in the audit log before anything is kept;
3. under the dataset's lock: the record gets its version number and is signed, the folder is renamed into
   place, ``dataset.registered`` is recorded, and one database commit makes the version exist.

Whatever is found without a row in the database is a leftover and is swept by the next registration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_guard.hashing.rowkeys import tenant_row_key
from dataset_guard.registration.commit import Commit, Step
from dataset_guard.registration.examine import Kept, examine
from dataset_guard.registration.keeping import keep
from dataset_guard.registration.request import Derivation, derivation, requested
from dataset_guard.registration.verdict import decide, report_of
from dataset_guard.registration.version_folder import VersionFolder, write_sidecars
from dataset_guard.registry import record as records
from dataset_guard.registry.caller import opened_home
from dataset_guard.registry.store import Registry
from dataset_guard.scanning.collecting import collecting_seldom
from dataset_guard.sidecars.file_tags import FileTags
from dataset_guard.sidecars.manifest import manifest_of
from guard_core.errors import UserError

if TYPE_CHECKING:
    from dataset_guard.registration.report import Report
    from dataset_guard.scanning.result import Progress
    from guard_core.home import Home


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
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Check ``data`` and ask policy, as :func:`register` does, but keep nothing.

    The decision is in the audit log. Raises as :func:`register`, except that a refusal by policy is a
    Report with the verdict ``deny``.
    """
    with collecting_seldom(), opened_home(home) as opened:
        request = requested(
            opened,
            name,
            tenant,
            label,
            split,
            against,
            evaluation,
            trusted,
            suite,
            checks,
            budget,
            ray,
            settings,
        )
        source, result, _ = examine(request, data, progress)
        decision = decide(request, result, version=None)
        return report_of(request, source, result, decision)


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
    settings: Mapping[str, Mapping[str, Any]] | None = None,
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
    while rows are read. ``settings`` are parameters of checks, as their rule pages list them
    (``{"label_errors": {"row_budget": 5000}}``). ``ray`` is the address of a Ray cluster that reads the rows
    (``auto``: the running one). ``parents`` are versions it was made from, ``transform`` the code that made
    it (a file or a function) with its parameters: their digests are signed.
    ``derived`` gives both as such.

    Raises UserError for what the user can mend (also a full disk), Denied when policy refuses, Undecidable
    when it cannot be asked, Tampered when a reference was changed. In each case nothing is stored.
    """
    step = steps or (lambda _: None)
    with collecting_seldom(), opened_home(home) as opened:
        request = requested(
            opened,
            name,
            tenant,
            label,
            split,
            against,
            evaluation,
            trusted,
            suite,
            checks,
            budget,
            ray,
            settings,
        )
        request = replace(
            request, derived=derived or derivation(request, parents, transform, transform_parameters)
        )
        key = tenant_row_key(opened, request.tenant)
        tags = FileTags(key)
        place = opened.path("datasets")
        with _disk_trouble(place):
            staging = Registry(opened).stage()
        try:
            source, result, entries = examine(request, data, progress, keep=Kept(tags, staging.folder))
            step("scanned")
            with _disk_trouble(place):
                kept = keep(source, staging.folder / records.DATA) if not source.files else None
                write_sidecars(staging.folder, result, key)
                step("staged")
                listed = manifest_of(kept, tags=tags) if kept else entries
                tags.write(staging.folder / records.TAGS, [entry.blake3 for entry in listed])
                contents = VersionFolder(request, source, result, listed, staging.folder)
                return Commit(contents, staging).run(step)
        finally:
            staging.release()


@contextmanager
def _disk_trouble(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"the dataset cannot be stored under {place} ({error.strerror or error}); nothing was stored: "
            "free space or mend the permissions, and try again"
        ) from error
