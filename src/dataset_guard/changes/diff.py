"""What changed between two tables: columns, and rows as a multiset, or row by row along a key.

Registered versions are compared by the row hashes kept with them, without reading their data; anything
else (a path, a frame) is hashed on the spot under the same tenant's key. Rows are told by their numbers,
never by their values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dataset_guard.changes.changed_columns import changed_columns
from dataset_guard.hashing.canonical import canonical_schema
from dataset_guard.hashing.rowhash import RowHasher
from dataset_guard.hashing.rowkeys import tenant_row_key
from dataset_guard.hashing.rowset import sort_hashes
from dataset_guard.reading import Source, open_source
from dataset_guard.registry.caller import opened_home
from dataset_guard.registry.reference import Reference
from dataset_guard.scanning.identity import identify
from dataset_guard.urls import is_url
from guard_core.errors import Tampered, UserError
from guard_core.findings import RowSet

if TYPE_CHECKING:
    from guard_core.home import Home

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
_READS = (
    "this comparison has to read it: compare without --key (by the row hashes kept with versions), "
    "or give the path of a copy"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """``added`` are row numbers of B, ``removed`` of A; ``changed`` (with a key) are of B.

    Without a key a changed row is one removed and one added row.
    """

    a: str
    b: str
    rows_a: int
    rows_b: int
    added_columns: tuple[str, ...]
    removed_columns: tuple[str, ...]
    retyped_columns: tuple[str, ...]
    """Columns whose logical type differs; their values may be equal all the same (int32 and int64)."""
    types: tuple[tuple[str, str, str], ...]
    """(column, type in A, type in B) of the retyped columns."""
    added: RowSet
    removed: RowSet
    changed: RowSet
    reordered: bool
    key: str | None = None
    changed_columns: tuple[tuple[str, int], ...] = ()
    """(column, in how many of the changed rows it differs), of the first 100,000 changed rows."""

    @property
    def same(self) -> bool:
        """Whether nothing differs but perhaps the order of rows."""
        columns = self.added_columns or self.removed_columns or self.retyped_columns
        return not (columns or len(self.added) or len(self.removed) or len(self.changed))

    @property
    def same_content(self) -> bool:
        """Whether A and B are one table, however each is stored: columns, types, values and row order."""
        return self.same and not self.reordered

    def to_json(self) -> dict[str, Any]:
        """Counts and row numbers."""
        return {
            "a": self.a,
            "b": self.b,
            "same": self.same,
            "same_content": self.same_content,
            "reordered": self.reordered,
            "key": self.key,
            "rows": {"a": self.rows_a, "b": self.rows_b},
            "columns": {
                "added": list(self.added_columns),
                "removed": list(self.removed_columns),
                "retyped": list(self.retyped_columns),
                "types": {name: {"a": a, "b": b} for name, a, b in self.types},
            },
            "added": {"count": len(self.added), "rows": self.added.to_json()},
            "removed": {"count": len(self.removed), "rows": self.removed.to_json()},
            "changed": {
                "count": len(self.changed),
                "rows": self.changed.to_json(),
                "columns": dict(self.changed_columns),
            },
        }


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two tables: its columns, its hashes when they are kept, its data when it can be read."""

    name: str
    columns: dict[str, str]
    reference: Reference | None
    source: Source | None

    def readable(self) -> Source:
        try:
            source = self.source if self.reference is None else self.reference.open()
        except Tampered as error:
            raise Tampered(f"{error}; {_READS}") from None
        if source is None:
            raise UserError(f"the data of {self.name} is gone, and {_READS}")
        return source

    def hashes(self, key: bytes, columns: list[str]) -> Hashes:
        """Keyed hashes over ``columns`` in row order; the kept ones when they are over just these."""
        if self.reference is not None and set(columns) == set(self.columns):
            return self.reference.row_hashes()
        source = self.readable()
        dropped = [name for name in source.schema.names if name not in columns]
        if not dropped:
            rows = identify(source, row_key=key, set_root=False).rows
            return np.empty((0, 2), np.uint64) if rows is None else rows
        hasher = RowHasher(source.schema, key=key, exclude=dropped)
        parts = [hasher.hash(batch).keyed for batch in source.stream()]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if known else np.empty((0, 2), np.uint64)


def diff(
    a: Any, b: Any, *, key: str | None = None, tenant: str | None = None, home: Home | None = None
) -> Difference:
    """Compare ``a`` with ``b``: references of registered versions, paths, or tables.

    Rows are compared over the columns both have. With ``key``, a column whose values name the rows, rows
    of one key are told as changed. Raises UserError when a side cannot be had or the key is not unique.
    """
    with opened_home(home) as opened:
        owner = _owner(opened, (a, b), tenant)
        for side in (a, b):  # both before either is looked up: what another tenant has is not told by order
            _check_tenant(side, owner)
        left, right = _side(opened, a, owner), _side(opened, b, owner)
        common = sorted(left.columns.keys() & right.columns.keys())
        secret = tenant_row_key(opened, owner)
        hashes_a, hashes_b = left.hashes(secret, common), right.hashes(secret, common)
        removed, added = _only_in(hashes_a, hashes_b), _only_in(hashes_b, hashes_a)
        before = changed = np.empty(0, np.int64)
        in_columns: tuple[tuple[str, int], ...] = ()
        if key is not None:
            keys_a, keys_b = (_keys(side, secret, key) for side in (left, right))
            before, changed, removed, added = _paired(keys_a, keys_b, removed, added)
        if len(changed):
            others = [name for name in common if name != key]
            sides = (left.readable(), before, right.readable(), changed)
            in_columns = changed_columns(*sides, names=others, key=secret)
        clean = not len(removed) and not len(added) and not len(changed)
        return Difference(
            a=left.name,
            b=right.name,
            rows_a=len(hashes_a),
            rows_b=len(hashes_b),
            added_columns=tuple(sorted(right.columns.keys() - left.columns.keys())),
            removed_columns=tuple(sorted(left.columns.keys() - right.columns.keys())),
            retyped_columns=tuple(n for n in common if left.columns[n] != right.columns[n]),
            types=tuple(
                (n, left.columns[n], right.columns[n]) for n in common if left.columns[n] != right.columns[n]
            ),
            added=RowSet.of(added.tolist()),
            removed=RowSet.of(removed.tolist()),
            changed=RowSet.of(changed.tolist()),
            reordered=clean and not np.array_equal(hashes_a, hashes_b),
            key=key,
            changed_columns=in_columns,
        )


def _owner(home: Home, sides: tuple[Any, Any], tenant: str | None) -> str:
    """The tenant whose rows are compared: that of the first registered version, else the caller's."""
    from dataset_guard.registry.caller import caller_of

    for side in sides:
        if isinstance(side, Reference):
            return side.version.tenant
        if _is_ref(side) and "/" in side and "@" in side:
            return caller_of(home, side, tenant=tenant).tenant
    return home.principal(tenant=tenant).tenant


def _check_tenant(what: Any, tenant: str) -> None:
    """Raise UserError for a reference that cannot be read, or that is another tenant's."""
    from dataset_guard.registry.refs import parse_ref

    if not _is_ref(what):
        return
    try:
        owner = parse_ref(what, tenant=tenant).tenant
    except UserError as error:
        raise UserError(f"{what!r} is neither a registered dataset nor a file") from error
    if owner != tenant:
        raise UserError(f"{what} belongs to another tenant; rows of two tenants are never compared")


def _is_ref(what: Any) -> bool:
    """Whether ``what`` must be the reference of a version: a text that is no URL and no existing path."""
    return isinstance(what, str) and not is_url(what) and not Path(what).exists()


def _side(home: Home, what: Any, tenant: str) -> _Side:
    from dataset_guard.registry.store import Registry

    if isinstance(what, Reference):
        return _Side(what.ref, dict(what.columns), what, None)
    if _is_ref(what):
        reference = Registry(home).reference(what, tenant=tenant)
        return _Side(reference.ref, dict(reference.columns), reference, None)
    source = open_source(what)
    columns = {c.name: c.type for c in canonical_schema(source.schema)}
    return _Side(source.uri, columns, None, source)


def _only_in(mine: Hashes, other: Hashes) -> Rows:
    """Rows of ``mine`` that ``other`` does not have, duplicates counted: of n to m equal rows, n - m."""
    both = np.concatenate([mine, other])
    owner = np.concatenate([np.zeros(len(mine), np.int64), np.ones(len(other), np.int64)])
    order = sort_hashes(both)
    ordered = both[order]
    starts = np.ones(len(ordered), np.bool_)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    group = np.cumsum(starts) - 1
    theirs = np.bincount(group, weights=owner[order]).astype(np.int64) if len(order) else owner
    is_mine = owner[order] == 0
    groups, rows = group[is_mine], order[is_mine]
    # The position of each of my rows among my rows of its group; the first `theirs` of them have a partner.
    first = np.searchsorted(groups, groups, side="left")
    place = np.arange(len(groups)) - first
    return np.sort(rows[place >= theirs[groups]]) if len(groups) else np.empty(0, np.int64)


def _keys(side: _Side, secret: bytes, key: str) -> Hashes:
    if key not in side.columns:
        raise UserError(f"{side.name} has no key column {key!r}")
    hashes = side.hashes(secret, [key])
    order = sort_hashes(hashes)
    if (hashes[order][1:] == hashes[order][:-1]).all(axis=1).any():
        raise UserError(f"the key column {key!r} of {side.name} repeats values; name a column that does not")
    return hashes


def _paired(keys_a: Hashes, keys_b: Hashes, removed: Rows, added: Rows) -> tuple[Rows, Rows, Rows, Rows]:
    """(changed rows of A, what became of them in B, only in A, only in B).

    A removed and an added row of one key are one change.
    """
    lone_a, lone_b = _only_in(keys_a[removed], keys_b[added]), _only_in(keys_b[added], keys_a[removed])
    before, after = np.delete(removed, lone_a), np.delete(added, lone_b)
    # Both have the same keys, each once, so ordered by key they are pairs.
    before, after = before[sort_hashes(keys_a[before])], after[sort_hashes(keys_b[after])]
    first = np.argsort(after)
    return before[first], after[first], removed[lone_a], added[lone_b]
