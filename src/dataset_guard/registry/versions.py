"""Writing versions to the database: the one commit that makes a version exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dataset_guard.registry import record as records
from guard_core.errors import Undecidable

if TYPE_CHECKING:
    from guard_core.home import Home


class VersionTaken(Undecidable):
    """Another host that shares the database has made this version number meanwhile."""


def highest_version(home: Home, tenant: str, name: str) -> int:
    """The highest version number of one dataset, deleted and destroyed ones included; 0 when it has none."""
    from sqlalchemy import func, select

    from guard_core.storage.tables import DatasetRow, DatasetVersionRow

    with home.storage.reading() as session:
        query = (
            select(func.max(DatasetVersionRow.version))
            .join(DatasetRow, DatasetRow.id == DatasetVersionRow.dataset_id)
            .where(DatasetRow.tenant == tenant, DatasetRow.name == name)
        )
        return session.scalar(query) or 0


def add_version(home: Home, record: Mapping[str, Any], *, record_path: str, created_by: str) -> None:
    """Commit the version of ``record``. ``record_path`` is relative to the home.

    Raises Undecidable when the database cannot be written, VersionTaken when another host was first.
    """
    from sqlalchemy import exc, select

    from guard_core.storage.tables import DatasetRow, DatasetVersionRow

    content = record["content"]
    now = home.clock()
    try:
        with home.storage.session() as session:
            dataset = session.scalar(
                select(DatasetRow).where(
                    DatasetRow.tenant == record["tenant"], DatasetRow.name == record["name"]
                )
            )
            if dataset is None:
                dataset = DatasetRow(
                    tenant=record["tenant"], name=record["name"], created_at=now, deleted_at=None
                )
                session.add(dataset)
                session.flush()
            session.add(
                DatasetVersionRow(
                    dataset_id=dataset.id,
                    version=record["version"],
                    fingerprint=content["fingerprint"],
                    set_root=content["set_root"],
                    schema_root=content["schema_root"],
                    digest=content["digest"],
                    rows=content["rows"],
                    columns=len(content["columns"]),
                    bytes=content["bytes"],
                    verdict=record["verdict"],
                    label=record["label"],
                    split=record["split"],
                    source_uri=record["source"]["uri"],
                    record_path=record_path,
                    record_digest=records.digest_of(record),
                    findings_digest=record["sidecars"][records.FINDINGS]["blake3"],
                    decision_id=record["decision"]["id"],
                    parents=list(record["parents"]),
                    created_at=now,
                    created_by=created_by,
                )
            )
    except exc.IntegrityError as error:
        raise VersionTaken(
            f"{record['ref']} was taken by another host that shares this database; register again"
        ) from error
