"""The registry: immutable versions of named datasets, per tenant, and movable aliases.

The database says which versions exist; the signed record in a version's folder says what each one is.
Whatever the database repeats from a record (verdict, fingerprint) is believed only while both agree
(:meth:`Registry.record`). A version appears by one database commit, after its folder is complete on disk;
folders without a row are leftovers of a crash and are swept.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_guard.registration.staging import Staging, sweep
from dataset_guard.registry import record as records
from dataset_guard.registry.reference import Reference
from dataset_guard.registry.refs import ALIAS, Ref, parse_ref
from guard_core.errors import Tampered, UserError
from guard_core.files import locked

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard_core.home import Home
    from guard_core.storage.tables import DatasetVersionRow

STAGING = ".staging"
"""No tenant can have this name: it begins with a dot."""


__all__ = ["Reference", "Registry", "Version"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One registered version, as the database has it. ``folder`` holds its record and sidecars."""

    tenant: str
    name: str
    version: int
    fingerprint: str
    set_root: str | None
    schema_root: str
    digest: str
    rows: int
    columns: int
    bytes: int | None
    verdict: str
    label: str | None
    split: str | None
    source_uri: str
    record_digest: str
    findings_digest: str
    decision_id: str
    parents: tuple[Any, ...]
    created_at: datetime
    created_by: str
    folder: Path
    deleted_at: datetime | None = None
    destroyed_at: datetime | None = None

    @property
    def ref(self) -> str:
        """``tenant/name@version``."""
        return f"{self.tenant}/{self.name}@{self.version}"


class Registry:
    """The versions kept in one home. Cheap to construct."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.root = home.path("datasets")

    # --- finding -------------------------------------------------------------------------------------

    def find(self, text: str, *, tenant: str, deleted: bool = False) -> Version | None:
        """The version that ``text`` names for ``tenant``; None when there is none. Raises UserError.

        Deleted and destroyed versions are found only when ``deleted`` asks for them.
        """
        ref = parse_ref(text, tenant=tenant)
        with self.home.storage.reading() as session:
            row = _select_version(session, ref, deleted=deleted)
            return None if row is None else self._version(ref.tenant, ref.name, row)

    def get(self, text: str, *, tenant: str) -> Version:
        """As :meth:`find`; raises UserError, with what there is, when there is none."""
        found = self.find(text, tenant=tenant)
        if found is not None:
            return found
        ref = parse_ref(text, tenant=tenant)
        gone = self.find(text, tenant=tenant, deleted=True)
        if gone is not None and ref.version is not None:
            raise UserError(_gone(gone))
        versions = self.versions(ref.name, tenant=ref.tenant)
        if versions:
            known = f"the newest version of {ref.name} is {versions[-1].version}"
            aliases = ", ".join(sorted(self.aliases(ref.name, tenant=ref.tenant)))
            known += f", its aliases are {aliases}" if aliases else ""
        else:
            names = self.names(tenant=ref.tenant)
            known = f"{ref.tenant} has {', '.join(names[:8]) or 'no datasets yet'}"
        raise UserError(f"there is no dataset {text!r}; {known}")

    def get_any(self, text: str, *, tenant: str) -> Version:
        """As :meth:`get`, of deleted and destroyed versions, too."""
        return self.find(text, tenant=tenant, deleted=True) or self.get(text, tenant=tenant)

    def versions(self, name: str, *, tenant: str, deleted: bool = False) -> list[Version]:
        """All versions of one dataset, oldest first; deleted and destroyed ones only when asked for."""
        from sqlalchemy import select, true

        from guard_core.storage.tables import DatasetRow, DatasetVersionRow

        with self.home.storage.reading() as session:
            rows = session.scalars(
                select(DatasetVersionRow)
                .join(DatasetRow, DatasetRow.id == DatasetVersionRow.dataset_id)
                .where(DatasetRow.tenant == tenant, DatasetRow.name == name)
                .where(true() if deleted else DatasetVersionRow.deleted_at.is_(None))
                .order_by(DatasetVersionRow.version)
            )
            return [self._version(tenant, name, row) for row in rows]

    def all_versions(self, *, tenant: str) -> list[Version]:
        """Every version of every dataset of a tenant, deleted and destroyed ones included."""
        from sqlalchemy import select

        from guard_core.storage.tables import DatasetRow, DatasetVersionRow

        with self.home.storage.reading() as session:
            rows = session.execute(
                select(DatasetRow.name, DatasetVersionRow)
                .join(DatasetVersionRow, DatasetRow.id == DatasetVersionRow.dataset_id)
                .where(DatasetRow.tenant == tenant)
                .order_by(DatasetRow.name, DatasetVersionRow.version)
            )
            return [self._version(tenant, name, row) for name, row in rows]

    def names(self, *, tenant: str) -> list[str]:
        """The names of a tenant's datasets, sorted."""
        from sqlalchemy import select

        from guard_core.storage.tables import DatasetRow

        with self.home.storage.reading() as session:
            return sorted(session.scalars(select(DatasetRow.name).where(DatasetRow.tenant == tenant)))

    def aliases(self, name: str, *, tenant: str) -> dict[str, int]:
        """``{alias: version}`` of one dataset."""
        from sqlalchemy import select

        from guard_core.storage.tables import DatasetAliasRow, DatasetRow

        with self.home.storage.reading() as session:
            rows = session.execute(
                select(DatasetAliasRow.alias, DatasetAliasRow.version)
                .join(DatasetRow, DatasetRow.id == DatasetAliasRow.dataset_id)
                .where(DatasetRow.tenant == tenant, DatasetRow.name == name)
            )
            return {row.alias: row.version for row in rows}

    def check_alias(self, alias: str) -> None:
        """Raises UserError for a name that no alias can have."""
        if not ALIAS.match(alias):
            raise UserError(f"alias {alias!r} cannot be used; begin it with a letter (64 characters at most)")

    def set_alias(self, version: Version, alias: str) -> None:
        """Point ``alias`` at ``version``, wherever it pointed before. Raises UserError for a bad name."""
        from guard_core.storage.tables import DatasetAliasRow

        self.check_alias(alias)
        with self.home.storage.session() as session:
            dataset = _dataset_row(session, version.tenant, version.name)
            if dataset is None:
                raise UserError(f"there is no dataset {version.tenant}/{version.name}")
            session.merge(DatasetAliasRow(dataset_id=dataset.id, alias=alias, version=version.version))

    def drop_alias(self, version: Version, alias: str) -> None:
        """Take ``alias`` away from ``version``; one that names another version by now stays."""
        from sqlalchemy import delete

        from guard_core.storage.tables import DatasetAliasRow

        with self.home.storage.session() as session:
            dataset = _dataset_row(session, version.tenant, version.name)
            if dataset is not None:
                row = DatasetAliasRow
                ours = (row.dataset_id == dataset.id, row.alias == alias, row.version == version.version)
                session.execute(delete(row).where(*ours))

    def _version(self, tenant: str, name: str, row: DatasetVersionRow) -> Version:
        return Version(
            tenant=tenant,
            name=name,
            version=row.version,
            fingerprint=row.fingerprint,
            set_root=row.set_root,
            schema_root=row.schema_root,
            digest=row.digest,
            rows=row.rows,
            columns=row.columns,
            bytes=row.bytes,
            verdict=row.verdict,
            label=row.label,
            split=row.split,
            source_uri=row.source_uri,
            record_digest=row.record_digest,
            findings_digest=row.findings_digest,
            decision_id=row.decision_id,
            parents=tuple(row.parents),
            created_at=row.created_at,
            created_by=row.created_by,
            folder=self.home.path(*Path(row.record_path).parent.parts),
            deleted_at=row.deleted_at,
            destroyed_at=row.destroyed_at,
        )

    # --- trusting ------------------------------------------------------------------------------------

    def record(self, version: Version) -> dict[str, Any]:
        """The signed record of ``version``, agreeing with the database. Raises Tampered."""
        return self.signed(version)[0]

    def signed(self, version: Version) -> tuple[dict[str, Any], str]:
        """As :meth:`record`, with the id of the key that signed it."""
        found, key_id = records.load_with_signer(version.folder, self.home.signer, ref=version.ref)
        content = found["content"]
        claims = {
            "fingerprint": (version.fingerprint, content["fingerprint"]),
            "verdict": (version.verdict, found["verdict"]),
            "rows": (version.rows, content["rows"]),
            "label": (version.label, found["label"]),
            "source": (version.source_uri, found["source"]["uri"]),
            "record digest": (version.record_digest, records.digest_of(found)),
        }
        for what, (stored, signed) in claims.items():
            if stored != signed:
                raise Tampered(
                    f"the database gives {version.ref} another {what} than its signed record; "
                    "restore the database from a backup"
                )
        return found, key_id

    def problem(self, version: Version) -> str | None:
        """Why the record of ``version`` is not to be trusted, so that no use is allowed; None when it is."""
        try:
            self.signed(version)
        except Tampered as error:
            return str(error)
        return None

    def reference(self, text: str, *, tenant: str) -> Reference:
        """A version as checks see it. Raises UserError when there is none, Tampered."""
        version = self.get(text, tenant=tenant)
        return Reference(version, self.record(version))

    # --- room for new versions -----------------------------------------------------------------------

    def folder(self, tenant: str, name: str, version: int) -> Path:
        """Where a version's record and sidecars lie."""
        return self.root / tenant / name / str(version)

    def stage(self) -> Staging:
        """A new folder to prepare a version in, after leftovers were swept. Raises OSError."""
        sweep(self.root / STAGING)
        return Staging.make(self.root / STAGING)

    def sweep_dataset(self, tenant: str, name: str, highest: int) -> list[str]:
        """Remove what was published beyond the ``highest`` version but never committed.

        Only under the dataset's lock. There is no gap: every registration begins with this.
        """
        removed: list[str] = []
        while (folder := self.folder(tenant, name, highest + 1 + len(removed))).exists():
            shutil.rmtree(folder)
            removed.append(f"{tenant}/{name}/{folder.name}")
        return removed

    def lock(self, tenant: str, name: str) -> Any:
        """Hold the dataset for making one version (a context manager). Raises OSError."""
        folder = self.root / tenant / name
        folder.mkdir(parents=True, exist_ok=True)
        return locked(folder / ".lock")


def _dataset_row(session: Session, tenant: str, name: str) -> Any:
    from sqlalchemy import select

    from guard_core.storage.tables import DatasetRow

    return session.scalar(select(DatasetRow).where(DatasetRow.tenant == tenant, DatasetRow.name == name))


def _gone(version: Version) -> str:
    if version.destroyed_at is not None:
        return (
            f"{version.ref} was destroyed on {version.destroyed_at:%Y-%m-%d}; the signed record of that is "
            "in its folder (to check it: trainguard dataset check-destruction)"
        )
    return f"{version.ref} was deleted; bring it back: trainguard dataset delete {version.ref} --restore"


def _select_version(session: Session, ref: Ref, *, deleted: bool = False) -> DatasetVersionRow | None:
    from sqlalchemy import select

    from guard_core.storage.tables import DatasetAliasRow, DatasetVersionRow

    dataset = _dataset_row(session, ref.tenant, ref.name)
    if dataset is None:
        return None
    number = ref.version
    if ref.alias is not None:
        alias = session.get(DatasetAliasRow, (dataset.id, ref.alias))
        if alias is None:
            return None
        number = alias.version
    query = select(DatasetVersionRow).where(DatasetVersionRow.dataset_id == dataset.id)
    if not deleted:
        query = query.where(DatasetVersionRow.deleted_at.is_(None))
    if number is not None:
        query = query.where(DatasetVersionRow.version == number)
    return session.scalar(query.order_by(DatasetVersionRow.version.desc()).limit(1))
