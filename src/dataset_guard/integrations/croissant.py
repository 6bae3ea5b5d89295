"""A registered version as Croissant 1.1 metadata (JSON-LD).

Specification: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html. Files carry the ``sha256``
that it requires, computed while their signed BLAKE3 is checked, so a changed file is never described. Beyond
the vocabulary there is one property, ``dg1``: the fingerprint, which still holds when the files are
re-encoded. No value of the data is in the document.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from dataset_guard.reading.images import IMAGE
from dataset_guard.registry.reference import Reference
from dataset_guard.sidecars.manifest import FileEntry, place_in, sha256_of
from guard_core.errors import UserError

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
DG1_TERM = "https://trainguard.dev/terms/dg1"

_TERMS = (
    *(
        "arrayShape",
        "citeAs",
        "column",
        "containedIn",
        "equivalentProperty",
        "extract",
        "field",
        "fileObject",
    ),
    *("fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5"),
    *("parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate"),
    *("separator", "source", "subField", "transform"),
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dg1": DG1_TERM,
    **{term: f"cr:{term}" for term in _TERMS},
}
"""The context that the specification prints, and ``dg1``."""

_ENCODINGS = {
    ".parquet": "application/x-parquet",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".jsonl": "application/jsonlines",
    ".ndjson": "application/jsonlines",
    ".json": "application/json",
    ".arrow": "application/vnd.apache.arrow.file",
    ".feather": "application/vnd.apache.arrow.file",
    ".orc": "application/vnd.apache.orc",
    **{f".{name}": f"image/{name}" for name in ("png", "jpeg", "gif", "bmp", "webp", "tiff")},
    ".jpg": "image/jpeg",
    ".tif": "image/tiff",
}
_NUMBERS = re.compile(r"u?int\d+|float(16|32|64)")


def croissant(reference: Reference) -> dict[str, Any]:
    """The JSON-LD document of ``reference``. Reads every file once, for its digests.

    Raises UserError when files are gone or the version has none, Tampered when one has other bytes.
    """
    record = reference.record
    root = reference.data_path()
    entries = reference.manifest
    if not isinstance(root, Path) or not entries:
        raise UserError(
            f"{reference.ref} has no local files, so Croissant cannot describe it; export openlineage instead"
        )
    files = [_file_object(reference.ref, entry, place_in(root, entry, entries)) for entry in entries]
    one = len(files) == 1
    document: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": record["name"],
        "description": f"{reference.ref}, registered by TrainGuard with the verdict {record['verdict']}",
        "version": f"{record['version']}.0.0",
        "datePublished": record["created_at"],
        "url": f"trainguard://{reference.ref}",
        "dg1": record["content"]["fingerprint"],
        "distribution": files,
    }
    source: dict[str, Any] = {"fileObject": {"@id": files[0]["@id"]}}
    if not one:
        document["distribution"] = [*files, _file_set(entries)]
        source = {"fileSet": {"@id": "files"}}
    document["recordSet"] = [
        {
            "@type": "cr:RecordSet",
            "@id": "rows",
            "name": "rows",
            "description": f"{record['content']['rows']} rows",
            "field": [
                _field(name, kind, {**source, **_extraction(name, entries[0].path)})
                for name, kind in reference.columns
            ],
        }
    ]
    return document


def _file_object(ref: str, entry: FileEntry, path: Path) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": f"file/{quote(entry.path)}",
        "name": entry.path,
        "contentUrl": quote(entry.path),
        "contentSize": f"{entry.bytes} B",
        "encodingFormat": _encoding(entry.path),
        "sha256": sha256_of(ref, entry, path),
    }


def _file_set(entries: Sequence[FileEntry]) -> dict[str, Any]:
    """All files together: a record set reads rows from the set."""
    return {
        "@type": "cr:FileSet",
        "@id": "files",
        "name": "files",
        "encodingFormat": _encoding(entries[0].path),
        "includes": [entry.path for entry in entries],
    }


def _extraction(name: str, path: str) -> dict[str, Any]:
    """Where in a file such as ``path`` the column is: a column of it, the file itself, or a folder's name."""
    folders = path.split("/")[:-1]
    partition = next((f.partition("=")[0] for f in folders if unquote(f.partition("=")[0]) == name), None)
    if partition is not None:
        pattern = f"(?:^|/){re.escape(partition)}=([^/]*)/"
    elif not _encoding(path).startswith("image/"):
        return {"extract": {"column": name}}
    elif name == IMAGE:
        return {"extract": {"fileProperty": "content"}}
    else:
        pattern = "([^/]+)/[^/]+$"
    return {"extract": {"fileProperty": "fullpath"}, "transform": {"regex": pattern}}


def _field(name: str, kind: str, source: dict[str, Any]) -> dict[str, Any]:
    repeated = kind.startswith(("list<", "fixed_size_list["))
    item = kind[kind.index("<") + 1 : -1] if repeated else kind
    is_file = source["extract"].get("fileProperty") == "content"
    field: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"rows/{quote(name)}",
        "name": name,
        "description": f"logical type {kind}",
        "dataType": "sc:ImageObject" if is_file else _data_type(item),
        "source": source,
    }
    if repeated:
        field |= {"isArray": True, "arrayShape": "-1"}
    return field


def _data_type(kind: str) -> str:
    """The Croissant type of a logical type; text for what Croissant has no type for."""
    if kind == "bool":
        return "sc:Boolean"
    if _NUMBERS.fullmatch(kind):
        return f"cr:{kind[0].upper()}{kind[1:]}" if not kind.startswith("uint") else f"cr:UInt{kind[4:]}"
    if kind.startswith("decimal"):
        return "sc:Number"
    if kind == "date":
        return "sc:Date"
    if kind.startswith("timestamp"):
        return "sc:DateTime"
    if kind.startswith("time["):
        return "sc:Time"
    return "sc:Text"


def _encoding(path: str) -> str:
    return _ENCODINGS.get(Path(path.removesuffix(".gz").lower()).suffix, "application/octet-stream")
