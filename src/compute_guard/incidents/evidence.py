"""Evidence of an incident: files whose order and content are chained and signed.

A bundle is a folder, ``<home>/incidents/<id>/``. Files are added in phases (``before`` an action, ``after``
it, ``notices``) and never changed. ``manifest.json`` lists them; each entry holds its file's SHA-256 and is
chained to the entry before (``link`` = SHA-256 of the canonical entry, ``prev`` included), so neither a file
nor their order can change unnoticed. ``manifest.dsse.json`` signs the last link as an in-toto statement.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from compute_guard.usage.history import write
from guard_core.attestation import Signer, Verifier, canonical_json, statement
from guard_core.clock import Clock, rfc3339
from guard_core.errors import Tampered, UserError
from guard_core.files import locked

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.dsse.json"
PREDICATE_TYPE: Final = "https://trainguard.dev/attestation/incident-evidence/v1"
GENESIS: Final = "0" * 64
LARGEST: Final = 1 << 30
_NAME = re.compile(r"(?:[a-z0-9-]+/)?[a-z0-9][a-z0-9_.-]*")
_MEMBER = re.compile(rf"[a-z0-9-]+/{_NAME.pattern}")


@dataclass(frozen=True, slots=True)
class Bundle:
    """The evidence folder of one incident."""

    folder: Path
    clock: Clock

    def add(self, name: str, content: bytes, *, synthetic: bool = False) -> str:
        """Add a file; returns the name it got. The same name and content again changes nothing.

        A name that is taken by other content gets a number: evidence is never overwritten.
        Raises ValueError for a name that is not ``[folder/]file``, lower case.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a piece of evidence")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        digest = hashlib.sha256(content).hexdigest()
        with locked(self.folder / ".lock"):
            entries = self.entries()
            taken = {entry["name"]: entry["sha256"] for entry in entries}
            name = _free(name, digest, taken)
            if name in taken:
                return name
            write(self.folder / name, content)
            entry = {
                "seq": len(entries),
                "name": name,
                "bytes": len(content),
                "sha256": digest,
                "synthetic": synthetic,
                "added_at": rfc3339(self.clock()),
                "prev": entries[-1]["link"] if entries else GENESIS,
            }
            entries.append({**entry, "link": _link(entry)})
            body = json.dumps({"version": 1, "entries": entries}, indent=1, ensure_ascii=False)
            write(self.folder / MANIFEST, body.encode())
        return name

    def add_json(self, name: str, value: Any, *, synthetic: bool = False) -> str:
        """Add ``value`` as readable JSON with sorted keys."""
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, default=str)
        return self.add(name, text.encode(), synthetic=synthetic)

    def entries(self) -> list[dict[str, Any]]:
        """The manifest's entries in order; empty before the first file. Raises Tampered when unreadable."""
        return _entries(self.folder)

    def sign(self, signer: Signer, *, incident: str) -> None:
        """Sign the manifest as it is now; signing again after more files replaces the signature."""
        entries = self.entries()
        signed = statement(
            subjects={entry["name"]: {"sha256": entry["sha256"]} for entry in entries},
            predicate_type=PREDICATE_TYPE,
            predicate={
                "incident": incident,
                "files": len(entries),
                "head": entries[-1]["link"] if entries else GENESIS,
                "synthetic": any(entry["synthetic"] for entry in entries),
                "signed_at": rfc3339(self.clock()),
            },
        )
        write(self.folder / SIGNATURE, json.dumps(signer.sign(signed), indent=1).encode())

    def archive(self) -> bytes:
        """The bundle as a tar file with fixed times and owners: the same files give the same bytes.

        Raises UserError when there is no evidence.
        """
        names = [entry["name"] for entry in self.entries()]
        if not names:
            raise UserError(f"there is no evidence in {self.folder}; nothing was exported")
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in [MANIFEST, SIGNATURE, *names]:
                path = self.folder / name
                if path.is_file():
                    info = tarfile.TarInfo(f"{self.folder.name}/{name}")
                    content = path.read_bytes()
                    info.size, info.mode = len(content), 0o600
                    tar.addfile(info, io.BytesIO(content))
        return sink.getvalue()


def verify(folder: Path, verifier: Verifier) -> list[str]:
    """What is wrong with the bundle in ``folder``, one sentence each; empty when it is as signed."""
    problems: list[str] = []
    try:
        entries = _entries(folder)
    except Tampered as error:
        return [str(error)]
    if not entries:
        return [f"{folder} has no {MANIFEST}"]
    prev = GENESIS
    for number, entry in enumerate(entries):
        body = {key: value for key, value in entry.items() if key != "link"}
        if entry.get("seq") != number or entry.get("prev") != prev or entry.get("link") != _link(body):
            problems.append(f"entry {number} ({entry.get('name')}) does not continue the chain")
        prev = str(entry.get("link"))
        path = folder / str(entry.get("name"))
        if not path.is_file():
            problems.append(f"{entry.get('name')} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != entry.get("sha256"):
            problems.append(f"{entry.get('name')} was changed after it was added")
    return problems + _signature_problems(folder, entries, prev, verifier)


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """The bundle of an exported ``archive`` as a folder, for as long as it is looked at.

    Raises UserError for a file that is no such archive: one folder of plain files, at most 1 GiB in all.
    """
    with tempfile.TemporaryDirectory(prefix="evidence-") as place:
        try:
            with tarfile.open(archive) as tar:
                members = tar.getmembers()
                fine = all(m.isfile() and _MEMBER.fullmatch(m.name) for m in members)
                folders = {m.name.split("/", 1)[0] for m in members}
                if not fine or len(folders) != 1 or sum(m.size for m in members) > LARGEST:
                    raise UserError(f"{archive} is no exported evidence; see: trainguard incident export")
                tar.extractall(place, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise UserError(f"{archive} cannot be read as a tar file ({error})") from error
        yield Path(place) / folders.pop()


def _signature_problems(folder: Path, entries: list[dict[str, Any]], head: str, keys: Verifier) -> list[str]:
    try:
        signed = keys.verify(json.loads((folder / SIGNATURE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return ["the bundle is not signed"]
    except (Tampered, ValueError) as error:
        return [f"the signature does not verify: {error}"]
    subjects = {item["name"]: item["digest"].get("sha256") for item in signed.get("subject", [])}
    wrong = [
        f"{e['name']} is not in the signed list" for e in entries if subjects.get(e["name"]) != e["sha256"]
    ]
    if signed.get("predicate", {}).get("head") != head:
        wrong.append("the signature is for another manifest")
    return wrong


def _entries(folder: Path) -> list[dict[str, Any]]:
    path = folder / MANIFEST
    try:
        entries = list(json.loads(path.read_text(encoding="utf-8"))["entries"])
        names = [str(entry["name"]) for entry in entries]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise Tampered(f"{path} is not an evidence manifest: {error}") from error
    for name in names:
        if not _NAME.fullmatch(name):  # a manifest must not make us read outside its folder
            raise Tampered(f"{path} lists the file {name!r}, which cannot be one of a bundle")
    return entries


def _link(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(dict(entry))).hexdigest()


def _free(name: str, digest: str, taken: Mapping[str, str]) -> str:
    stem, dot, suffix = name.rpartition(".")
    candidate, number = name, 1
    while candidate in taken and taken[candidate] != digest:
        number += 1
        candidate = f"{stem}-{number}{dot}{suffix}" if dot else f"{name}-{number}"
    return candidate
