"""A signed bundle as one file: OPA's tarball, readable by ``opa run -b`` and by the embedded engine.

::

    .manifest                         {"revision", "roots": ["guard"], "rego_version": 1, "metadata": {...}}
    .signatures.json                  OPA's signature over everything else
    guard/<area>/<decision>/x.rego    policies, without their tests
    guard/config/<stem>/data.json     what data/<stem>.yaml holds: data.guard.config.<stem>

``metadata.trainguard.sequence`` counts the bundles of one store. It is signed with the rest, so an older
bundle cannot pass for a newer one. The same content under the same key and number gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from guard_core.errors import Tampered, UserError
from guard_core.files import write_atomic
from guard_core.policy.bundle import ROOTS, Bundle
from guard_core.policy.lifecycle.bundle_signature import (
    MANIFEST,
    SIGNATURES,
    BundleKey,
    BundleVerifier,
    go_json,
)

MAX_ARCHIVE_BYTES = 256 << 20
MAX_CONTENT_BYTES = 1 << 30
MAX_FILES = 10_000
_STEM = re.compile(r"^guard/config/([A-Za-z0-9_-]+)/data\.json$")
_MODULE = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_./-]*\.rego$")


@dataclass(frozen=True, slots=True)
class SignedBundle:
    """A bundle whose signature was checked. ``digest`` is the SHA-256 (hex) of the archive's bytes."""

    bundle: Bundle
    sequence: int
    digest: str
    key_id: str

    @property
    def revision(self) -> str:
        """Revision of the policies and data in it."""
        return self.bundle.revision


def build_archive(bundle: Bundle, *, sequence: int, key: BundleKey) -> bytes:
    """The signed archive of ``bundle`` as number ``sequence``. Tests are left out."""
    files = {name: text.encode() for name, text in bundle.modules.items()}
    for stem, value in bundle.config.items():
        files[f"guard/config/{stem}/data.json"] = go_json(value).encode()
    manifest = {
        "revision": bundle.revision,
        "roots": list(ROOTS),
        "rego_version": 1,
        "metadata": {"trainguard": {"sequence": sequence}},
    }
    files[MANIFEST] = json.dumps(manifest, sort_keys=True).encode()
    return _packed({**files, SIGNATURES: key.sign(files)})


def write_archive(path: Path, bundle: Bundle, *, sequence: int, key: BundleKey) -> str:
    """Write the archive atomically; returns its digest. Raises UserError when it cannot be written."""
    content = build_archive(bundle, sequence=sequence, key=key)
    try:
        write_atomic(path, content)
    except OSError as error:
        raise UserError(f"the bundle {path} cannot be written ({error.strerror or error})") from error
    return hashlib.sha256(content).hexdigest()


def read_archive(path: Path, verifier: BundleVerifier) -> SignedBundle:
    """The bundle in ``path``, its signature and every file checked.

    Raises UserError when there is no such file, Tampered for everything else, one sentence each.
    """
    try:
        if path.stat().st_size > MAX_ARCHIVE_BYTES:
            raise Tampered(f"the bundle {path} is larger than {MAX_ARCHIVE_BYTES >> 20} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"the bundle {path} cannot be read: {error.strerror or error}") from None
    try:
        return open_archive(content, verifier)
    except Tampered as error:
        raise Tampered(f"the bundle {path} is refused: {error}") from None


def open_archive(content: bytes, verifier: BundleVerifier) -> SignedBundle:
    """As :func:`read_archive`, from bytes. Nothing of the content is used before its signature holds."""
    files = _unpacked(content)
    signatures = files.pop(SIGNATURES, None)
    if signatures is None:
        raise Tampered("it is not signed; sign it: trainguard policy bundle")
    key_id = verifier.verify(signatures, files)
    manifest = _manifest(files)
    modules, documents = _content(files)
    bundle = Bundle(
        revision=manifest["revision"],  # signed with the rest; taking the content's hash again would parse it
        modules=MappingProxyType(modules),
        tests=MappingProxyType({}),
        config=Documents(documents),
        data_json=f'{{"guard":{{"config":{_joined(documents)}}}}}',
        source=f"bundle {manifest['sequence']}",
    )
    return SignedBundle(bundle, manifest["sequence"], hashlib.sha256(content).hexdigest(), key_id)


class Documents(Mapping[str, Any]):
    """Policy data by stem, each document parsed when it is first looked at. Pickles as a plain dict."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = dict(texts)
        self._parsed: dict[str, Any] = {}

    def __getitem__(self, stem: str) -> Any:
        if stem not in self._parsed:
            self._parsed[stem] = json.loads(self.texts[stem])
        return self._parsed[stem]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def __reduce__(self) -> tuple[Any, ...]:
        return (dict, (dict(self),))


def _joined(documents: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{json.dumps(stem)}:{documents[stem]}" for stem in sorted(documents)) + "}"


def _packed(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    # No times, owners or modes of this machine: the same content gives the same bytes.
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="", compresslevel=6) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(files[name]), 0o644
            archive.addfile(member, io.BytesIO(files[name]))
    return buffer.getvalue()


def _unpacked(content: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(_inflated(content)), mode="r:") as tar:
            for member in tar:
                name = member.name.removeprefix("./").removeprefix("/")
                if member.isdir():
                    continue
                if not member.isfile() or name in files or ".." in name.split("/"):
                    raise Tampered(f"{name!r} is a link, stands twice, or leads out of the bundle")
                if len(files) >= MAX_FILES:
                    raise Tampered(f"it holds more than {MAX_FILES} files")
                held = tar.extractfile(member)
                files[name] = held.read() if held is not None else b""
                if len(files[name]) != member.size:
                    raise EOFError
    except (EOFError, tarfile.TarError, zlib.error):
        raise Tampered("it is cut short or is no gzip tar file; copy it again") from None
    return files


def _inflated(content: bytes) -> bytes:
    """The tar file in a gzip file of one member, its checksum checked. Raises EOFError, zlib.error, Tampered.

    One call, which leaves Python's lock alone: in small reads each would wait for a turn among the decisions.
    """
    inflate = zlib.decompressobj(wbits=31)
    found = inflate.decompress(content, MAX_CONTENT_BYTES)
    if inflate.unconsumed_tail:
        raise Tampered(f"it unpacks to more than {MAX_CONTENT_BYTES >> 30} GiB")
    if not inflate.eof or inflate.unused_data:
        raise EOFError
    return found


def _manifest(files: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        value = json.loads(files[MANIFEST])
        sequence = value["metadata"]["trainguard"]["sequence"]
        usable = (
            type(sequence) is int
            and sequence > 0
            and value["roots"] == list(ROOTS)
            and value["rego_version"] == 1
            and isinstance(value["revision"], str)
        )
    except (KeyError, TypeError, ValueError):
        usable = False
    if not usable:
        raise Tampered(
            f"its {MANIFEST} does not say revision, roots {list(ROOTS)}, rego_version 1 and a sequence number"
        )
    return {"revision": value["revision"], "sequence": sequence}


def _content(files: Mapping[str, bytes]) -> tuple[dict[str, str], dict[str, str]]:
    modules: dict[str, str] = {}
    documents: dict[str, str] = {}
    for name in sorted(files):
        if name == MANIFEST:
            continue
        stem = _STEM.match(name)
        if not stem and (not _MODULE.match(name) or name.endswith("_test.rego")):
            raise Tampered(f"{name} is neither a policy nor guard/config/<name>/data.json")
        try:
            text = files[name].decode()
        except UnicodeDecodeError:
            raise Tampered(f"{name} is not UTF-8 text") from None
        if stem:
            documents[stem[1]] = text
        else:
            modules[name] = text
    if not modules:
        raise Tampered("it holds no policy")
    return modules, documents
