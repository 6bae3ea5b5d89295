"""Verification: is this still the data that was registered? If not, where does it differ?

Fast path: every file has the bytes of the manifest, so nothing needs decoding. Otherwise the leaves of the
blocks that touch changed files are computed again and compared with the signed ones: equal leaves in other
bytes are the same content, re-encoded; unequal leaves name block and column, and the keyed row hashes of
the sidecar name the rows.
Times of modification and sizes are never taken as a sign that nothing changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dataset_guard.hashing.fingerprint import BLOCK_ROWS, Fingerprint
from dataset_guard.hashing.rowhash import RowHasher
from dataset_guard.hashing.rowkeys import tenant_row_key
from dataset_guard.reading import Place, Source, open_source, place_of
from dataset_guard.registry import record as records
from dataset_guard.registry.caller import opened_home
from dataset_guard.registry.reference import Reference
from dataset_guard.scanning.identity import Progress, identify
from dataset_guard.sidecars.file_tags import FileTags
from dataset_guard.sidecars.known import KnownBlocks, known_blocks
from dataset_guard.sidecars.manifest import FileChanges, FileEntry, compare, file_of_row
from guard_core.counting import counted
from guard_core.errors import UserError
from guard_core.findings import Enforcement, RowSet

if TYPE_CHECKING:
    from dataset_guard.registry.store import Version
    from guard_core.home import Home


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One place where data differs. None means: not in a file, not in one block, not in one column."""

    file: str | None
    block: int | None = None
    column: str | None = None
    rows: RowSet = field(default_factory=RowSet)

    def to_json(self) -> dict[str, Any]:
        """``{file, block, column, rows}``; rows are 0-based over the whole table."""
        return {"file": self.file, "block": self.block, "column": self.column, "rows": self.rows.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What verification found. ``notes`` are harmless, ``problems`` are sentences about ``changes``."""

    ref: str
    ok: bool
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    decoded: bool = False
    """Whether the data had to be decoded (some file had other bytes)."""
    grown: bool = False
    """Whether files were added and nothing else changed: the version can be read as it was registered."""
    keyed: bool = False
    """Whether some file was recognised by its tags, so that no BLAKE3 was computed of it."""

    def to_json(self) -> dict[str, Any]:
        """The documented shape, with reference, notes and problems beside it."""
        return {
            "ok": self.ok,
            "grown": self.grown,
            "keyed": self.keyed,
            "changes": [change.to_json() for change in self.changes],
            "ref": self.ref,
            "notes": list(self.notes),
            "problems": list(self.problems),
        }


def verify(
    ref: str | Reference,
    *,
    path: str | Place | None = None,
    tenant: str | None = None,
    home: Home | None = None,
    progress: Progress | None = None,
    keyless: bool = False,
) -> Verification:
    """Compare a registered version with its data, or with what lies at ``path``.

    Large files are recognised by tags under the tenant's key (:mod:`dataset_guard.sidecars.file_tags`), and
    with ``keyless`` by the signed BLAKE3 alone: slower, and who has stolen the key gains nothing by it.
    A platform admin may name any tenant's version, anybody else only their own (Denied).
    Raises Tampered when the record or a sidecar itself was changed, UserError when there is no such
    version or no data to look at, or ``path`` is neither path nor URL. What was found is an audit event
    ``dataset.verified``.
    """
    try:
        place = None if path is None else place_of(path)
    except TypeError:
        raise UserError("verify looks at a path or a URL; compare a table with dataset_guard.diff") from None
    with opened_home(home) as opened:
        if isinstance(ref, Reference):
            reference = ref
        else:
            from dataset_guard.registry.caller import caller_of
            from dataset_guard.registry.store import Registry

            owner = caller_of(opened, ref, tenant=tenant).tenant
            reference = Registry(opened).reference(ref, tenant=owner)
        always = (records.LEAVES, records.ROWS, records.FINDINGS, records.MANIFEST)
        for name in dict.fromkeys((*always, *reference.record["sidecars"])):
            records.checked_sidecar(reference.version.folder, name, reference.record)
        tags = None if keyless else _tags(opened, reference)
        found = _verified(opened, reference, place, progress, tags)
        opened.audit.event(
            "dataset.verified",
            subject=reference.ref,
            data={
                "ok": found.ok,
                "changes": len(found.changes),
                "problems": list(found.problems[:20]),
                "keyed": found.keyed,
            },
            enforcement=Enforcement.DETECTIVE,
        )
        return found


def _verified(
    home: Home,
    reference: Reference,
    given: Place | None,
    progress: Progress | None,
    tags: FileTags | None,
) -> Verification:
    path = given or reference.data_path()
    if path is None:
        raise UserError(f"the data of {reference.ref} was in no file; name what to compare with --path")
    if not path.exists():
        if given is not None:
            raise UserError(f"there is no file or folder {path}; check the path")
        gone = tuple(Change(file=entry.path) for entry in reference.manifest)
        return Verification(ref=reference.ref, ok=False, changes=gone, problems=(f"{path} is missing",))
    files = compare(reference.manifest, path, tags=tags) if reference.manifest else None
    if files is not None and not files:
        note = "every file has the bytes it was registered with"
        return Verification(ref=reference.ref, ok=True, notes=(note,), keyed=bool(files.by_tag))
    try:
        source = open_source(path)
        known = None if files is None else _known(reference, source, files)
        found = identify(source, set_root=False, known=known, progress=progress).fingerprint
    except UserError as error:
        return _unreadable(reference, files, error)
    if found.fingerprint == reference.version.fingerprint:
        note = "re-encoded, same content: other bytes, the same rows"
        return Verification(ref=reference.ref, ok=True, notes=(note,), decoded=True)
    return _compared(home, reference, source, found, files)


def _tags(home: Home, reference: Reference) -> FileTags | None:
    """The tags of the version's files, if it has some and the key is here: looking makes no key."""
    tenant = reference.version.tenant
    if records.TAGS not in reference.record["sidecars"] or not home.path("keys", f"{tenant}.rowkey").exists():
        return None
    tags = FileTags(tenant_row_key(home, tenant))
    reference.load_tags(tags)
    return tags


def _known(reference: Reference, source: Source, files: FileChanges) -> KnownBlocks | None:
    """The blocks of ``source`` that lie in unchanged files alone: they are not read again."""
    same = {e.path: e for e in reference.manifest if e.path not in (*files.missing, *files.different)}
    entries = [
        same.get(source.name_of(file)) or FileEntry(source.name_of(file), "", 0, rows)
        for file, rows in zip(source.files, source.file_rows, strict=True)
    ]
    return known_blocks(reference, source, entries)


def _unreadable(reference: Reference, files: FileChanges | None, error: UserError) -> Verification:
    names = [] if files is None else [*files.missing, *files.different, *files.extra]
    return Verification(
        ref=reference.ref,
        ok=False,
        changes=tuple(Change(file=name) for name in names) or (Change(file=None),),
        problems=(str(error), *([] if files is None else files.sentences())),
    )


def _compared(
    home: Home, reference: Reference, source: Source, found: Fingerprint, files: FileChanges | None
) -> Verification:
    """Both tables are readable and differ: say where."""
    grown = files is not None and not files.missing and not files.different
    others = _same_data(home, reference, found)
    problems = _rolled_back(reference, others)
    if files is not None:
        problems = [_grown_sentence(reference, files, others)] if grown else [*problems, *files.sentences()]
    changes = [Change(file=name) for name in (() if files is None else (*files.missing, *files.extra))]
    signed_types = dict(reference.columns)
    found_types = {c.name: c.type for c in found.columns}
    for name in sorted({*signed_types, *found_types}):
        if signed_types.get(name) != found_types.get(name):
            changes.append(Change(file=None, column=name))
            problems.append(_column_sentence(name, signed_types.get(name), found_types.get(name)))
    same = [name for name in signed_types if signed_types[name] == found_types.get(name)]
    signed_rows = int(reference.record["content"]["rows"])
    if found.rows != signed_rows and not grown:
        problems.append(f"{found.rows:,} rows where {signed_rows:,} were registered")
    changes += _changed_blocks(home, reference, source, found, same)
    return Verification(
        ref=reference.ref,
        ok=False,
        changes=tuple(changes),
        problems=tuple(problems),
        decoded=True,
        grown=grown,
        keyed=files is not None and bool(files.by_tag),
    )


def _same_data(home: Home, reference: Reference, found: Fingerprint) -> list[Version]:
    """The other versions of the same dataset that hold just what was ``found``."""
    from dataset_guard.registry.store import Registry

    mine = reference.version
    versions = Registry(home).versions(mine.name, tenant=mine.tenant, deleted=True)
    return [v for v in versions if v.fingerprint == found.fingerprint and v.version != mine.version]


def _rolled_back(reference: Reference, others: Sequence[Version]) -> list[str]:
    """A sentence when the data is that of another version of the same dataset."""
    if not others:
        return []
    how = "rolled back to" if others[-1].version < reference.version.version else "replaced by"
    return [f"the data was {how} that of {others[-1].ref}"]


def _grown_sentence(reference: Reference, files: FileChanges, others: Sequence[Version]) -> str:
    """All there is to say about a folder that was only added to."""
    more = len(files.extra) - 1
    of = dict(files.moved).get(files.extra[0])
    added = files.extra[0] + (f" (the bytes of {of} again)" if of else "")
    added += f" and {counted(more, 'more file')}" if more else ""
    now = f"; all together it is {others[-1].ref} now" if others else ""
    return (
        f"the folder grew by {added}{now}; the files of {reference.ref} have the bytes they were registered "
        "with, and it can be read as before"
    )


def _column_sentence(name: str, signed: str | None, found: str | None) -> str:
    if found is None:
        return f"column {name!r} is missing"
    if signed is None:
        return f"column {name!r} was added"
    return f"column {name!r} is {found} where {signed} was registered"


def _changed_blocks(
    home: Home, reference: Reference, source: Source, found: Fingerprint, same: Sequence[str]
) -> Iterator[Change]:
    """Blocks and columns whose leaves differ, over the columns ``same`` that both tables have."""
    signed = reference.leaves()
    signed_at = {name: i for i, (name, _) in enumerate(reference.columns)}
    found_at = {c.name: i for i, c in enumerate(found.columns)}
    common = min(len(signed), len(found.leaves))
    files = _Files(reference, source)
    comparable = len(same) == len(signed_at) == len(found_at)
    for block in range(max(len(signed), len(found.leaves))):
        columns = [
            name
            for name in same
            if block >= common
            or (signed[block, signed_at[name]] != found.leaves[block, found_at[name]]).any()
        ]
        if not columns:
            continue
        rows = _changed_rows(home, reference, source, block) if comparable else _all_rows(block, found.rows)
        for file, part in files.of(rows, block):
            for name in columns:
                yield Change(file=file, block=block, column=name, rows=part)


def _changed_rows(home: Home, reference: Reference, source: Source, block: int) -> RowSet:
    """The rows of ``block`` whose hash is not the signed one at the same place."""
    first = block * BLOCK_ROWS
    key = tenant_row_key(home, reference.version.tenant)
    signed = reference.row_window(first, BLOCK_ROWS)
    hasher = RowHasher(source.schema, key=key)
    parts = [hasher.hash(batch).keyed for batch in source.batches(first_row=first, rows=BLOCK_ROWS)]
    known = [part for part in parts if part is not None]
    found = np.concatenate(known) if known else np.empty((0, 2), np.uint64)
    shared = min(len(signed), len(found))
    different = np.flatnonzero((signed[:shared] != found[:shared]).any(axis=1))
    beyond = range(shared, max(len(signed), len(found)))
    return RowSet.of([first + int(row) for row in (*different, *beyond)])


def _all_rows(block: int, rows: int) -> RowSet:
    first = block * BLOCK_ROWS
    last = min(first + BLOCK_ROWS, rows) - 1
    return RowSet(((first, last),)) if last >= first else RowSet()


class _Files:
    """The file of a row: the registered one; past the registered end, the one that holds it now."""

    def __init__(self, reference: Reference, source: Source) -> None:
        self._registered = reference.manifest
        self._rows = int(reference.record["content"]["rows"])
        names = [source.name_of(file) for file in source.files]
        self._now = [FileEntry(n, "", 0, rows) for n, rows in zip(names, source.file_rows, strict=True)]

    def of(self, rows: RowSet, block: int) -> Iterator[tuple[str | None, RowSet]]:
        """``rows`` by file; the first file of ``block`` when no row is known."""
        if not rows.ranges:
            yield self._file(block * BLOCK_ROWS), rows
            return
        grouped: dict[str | None, list[int]] = {}
        for row in rows:
            grouped.setdefault(self._file(row), []).append(row)
        for file, members in grouped.items():
            yield file, RowSet.of(members)

    def _file(self, row: int) -> str | None:
        past_the_end = row >= self._rows and self._registered and self._now
        return file_of_row(self._now if past_the_end else self._registered, row)
