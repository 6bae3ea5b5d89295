"""A registered version as checks and readers see it: its signed record, and what that vouches for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dataset_guard.registry import record as records
from guard_core.errors import Tampered

if TYPE_CHECKING:
    from dataset_guard.hashing.fingerprint import Leaves
    from dataset_guard.reading.places import Place
    from dataset_guard.reading.source import Source
    from dataset_guard.registry.store import Version
    from dataset_guard.sidecars.file_tags import FileTags
    from dataset_guard.sidecars.manifest import FileEntry
    from dataset_guard.sidecars.rowstore import Sidecar
    from dataset_guard.sidecars.sealed_rows import SealedRows


@dataclass(frozen=True, slots=True)
class Reference:
    """A registered version with its signed record: what checks compare new data with.

    Sidecars are checked against the record each time they are read, so each method may raise Tampered.
    """

    version: Version
    record: Mapping[str, Any]

    @property
    def ref(self) -> str:
        """``tenant/name@version``."""
        return self.version.ref

    @property
    def label(self) -> str | None:
        """The label column, if one was named."""
        label: str | None = self.record["label"]
        return label

    @property
    def split(self) -> str | None:
        """``train``, ``validation``, ``test`` or None."""
        split: str | None = self.record["split"]
        return split

    @property
    def manifest(self) -> tuple[FileEntry, ...]:
        """The files that held the data."""
        from dataset_guard.sidecars.manifest import FileEntry

        return tuple(FileEntry.from_json(entry) for entry in self.record["source"]["files"])

    @property
    def profile(self) -> Mapping[str, Any]:
        """The profile that was made when the version was registered."""
        path = records.checked_sidecar(self.version.folder, records.FINDINGS, self.record)
        document: dict[str, Any] = json.loads(path.read_bytes())
        profile: dict[str, Any] = document.get("profile", {})
        return profile

    def _rows(self) -> Sidecar:
        from dataset_guard.sidecars.rowstore import Sidecar

        return Sidecar(records.checked_sidecar(self.version.folder, records.ROWS, self.record))

    def row_hashes(self) -> npt.NDArray[np.uint64]:
        """Keyed row hashes in row order, shape (rows, 2)."""
        return self._rows().hashes()

    def sorted_row_hashes(self) -> npt.NDArray[np.uint64]:
        """Keyed row hashes in ascending order, shape (rows, 2)."""
        return self._rows().sorted_hashes()

    def feature_hashes(self) -> npt.NDArray[np.uint64] | None:
        """Keyed hashes of the rows without their label, in row order; None without a label."""
        return self._rows().features()

    def public_row_hashes(self, key: bytes) -> SealedRows | None:
        """Public row hashes in ascending order, to be read in pieces.

        None for a version of a release that did not keep them. ``key`` is the tenant's row key.
        """
        from dataset_guard.sidecars.sealed_rows import SealedRows

        if records.SEALED not in self.record["sidecars"]:
            return None
        return SealedRows.of(
            records.checked_sidecar(self.version.folder, records.SEALED, self.record), key=key
        )

    def row_window(self, first_row: int, rows: int) -> npt.NDArray[np.uint64]:
        """Keyed row hashes of some rows, in row order."""
        return self._rows().window(first_row, rows)

    def leaves(self) -> Leaves:
        """The leaves of the fingerprint, shape (blocks, columns, 32)."""
        from dataset_guard.sidecars.leaves import read_leaves

        return read_leaves(records.checked_sidecar(self.version.folder, records.LEAVES, self.record))

    def load_tags(self, tags: FileTags) -> bool:
        """Give ``tags`` those of the version's files; False for a version that has none."""
        if records.TAGS not in self.record["sidecars"]:
            return False
        tags.load(records.checked_sidecar(self.version.folder, records.TAGS, self.record))
        return True

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """(name, logical type) in canonical order."""
        return tuple((c["name"], c["type"]) for c in self.record["content"]["columns"])

    def data_path(self) -> Place | None:
        """Where the data was (or, for data from memory, is kept in the home); None when it had no file."""
        place = self.record["source"]["path"]
        if place is None:
            return None
        if self.record["source"]["kept"]:
            return self.version.folder / records.DATA
        from dataset_guard.reading.places import place_of

        return place_of(place)

    def open(self) -> Source | None:
        """The data, after its files were found unchanged; None when they are gone.

        Files that came to the folder later are not its data. Raises Tampered when a file has other bytes than
        were registered.
        """
        from dataset_guard.reading import open_source
        from dataset_guard.sidecars.manifest import compare

        path = self.data_path()
        if path is None or not path.exists():
            return None
        changes = compare(self.manifest, path)
        if changes.missing and len(changes.missing) == len(self.manifest):
            return None
        if changes.missing or changes.different:
            raise Tampered(
                f"{self.ref} was changed after it was registered: {'; '.join(changes.sentences())}"
            )
        return open_source(path, only=[entry.path for entry in self.manifest])
