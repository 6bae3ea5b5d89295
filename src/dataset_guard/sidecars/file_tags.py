"""``files.tags``: keyed tags by which a tenant's unchanged files are recognised, faster than by BLAKE3.

The tag of a segment of a file is AEGIS-128L (draft-irtf-cfrg-aegis-aead, by libsodium) of each 1 MiB of
it, as associated data without a message, and keyed BLAKE3 over those, both under keys derived from the
tenant's row key. Who lacks that key cannot make other bytes with the same tag (a try succeeds with a
chance of 2^-128), so an equal tag says that these are the bytes whose BLAKE3 is in the signed record. A
tag is never the last word on a difference: a file with another one is hashed with BLAKE3. Who has the key
could make such bytes; ``verify(keyless=True)`` looks at no tag.

Digest and tags of a file are of one read, and the signed record vouches for the file of tags. Files below
1 MiB have none: opening them costs more than hashing them.

Layout: JSON ``{"format", "segment_bytes", "piece_bytes", "files": {BLAKE3 of a file: base64 of 15 bytes of
nonce and 32 of tag for each of its segments, in order}, "gmac": {the same, 12 and 16 bytes}}``. AEGIS takes
the nonce and the piece's number, one byte. Nonces are random and never used for two contents. ``gmac`` has
files whose tags were made by an earlier release (GMAC, NIST SP 800-38D, of a whole segment) and taken over
unread; a file of the first version of the format has only such.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from guard_core.errors import Tampered
from guard_core.files import write_atomic

FORMAT = "trainguard.file-tags/v2"
FORMAT_1 = "trainguard.file-tags/v1"
SEGMENT_BYTES = 64 << 20
PIECE_BYTES = 1 << 20
"""What AEGIS takes at a time; at most 256 in a segment. Larger ones would not stay in the cache from reading
to hashing, and for smaller ones the reads cost more."""
LEAST_BYTES = 1 << 20
_GMAC_PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class Expected:
    """A local file, and the BLAKE3 that a record has of the file that it may be; sizes are equal."""

    path: Path
    blake3: str
    bytes: int


class _Scheme(Protocol):
    """A way to make the tag of a segment; a stored tag begins with its nonce."""

    nonce: int
    whole: int
    """Bytes of a nonce, and of a nonce and its tag."""
    piece: int
    """Bytes that are read at a time."""

    def tag(self, nonce: bytes, pieces: Iterable[bytes]) -> bytes:
        """The tag of a segment that comes in ``pieces``."""


class _Aegis:
    nonce, whole = 15, 15 + 32

    def __init__(self, key: bytes) -> None:
        self._key = blake3(key, derive_key_context="trainguard 2026-11 file tags aegis").digest(length=16)
        self._over = blake3(key, derive_key_context="trainguard 2026-11 file tags over pieces").digest()
        self.piece = PIECE_BYTES

    def tag(self, nonce: bytes, pieces: Iterable[bytes]) -> bytes:
        from nacl.bindings import crypto_aead_aegis128l_encrypt

        over = blake3(key=self._over)
        for number, piece in enumerate(pieces):
            over.update(crypto_aead_aegis128l_encrypt(b"", piece, nonce + bytes([number]), self._key))
        return over.digest()


class _Gmac:
    """As of an earlier release: its tags are still believed, and no more are made."""

    nonce, whole, piece = 12, 12 + 16, _GMAC_PIECE

    def __init__(self, key: bytes) -> None:
        self._key = blake3(key, derive_key_context="trainguard 2026-11 file tags").digest()

    def tag(self, nonce: bytes, pieces: Iterable[bytes]) -> bytes:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        code = Cipher(algorithms.AES256(self._key), modes.GCM(nonce)).encryptor()
        for piece in pieces:
            code.authenticate_additional_data(piece)
        code.finalize()
        return code.tag


def has_aes(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has AES instructions; yes where nothing says otherwise (no Linux)."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return True
    named = [line for line in lines if line.startswith(("flags", "Features"))]  # x86, Arm
    return not named or "aes" in named[0].split()


class FileTags:
    """Tags of a tenant's files by the BLAKE3 of their bytes. ``key`` is the tenant's row key.

    They are not ``fast`` where a processor has no AES instructions (GMAC was eight times slower than BLAKE3
    then): there none are made and none compared, and BLAKE3 decides about every file.
    """

    def __init__(self, key: bytes, *, fast: bool | None = None) -> None:
        self.fast = has_aes() if fast is None else fast
        self._aegis, self._gmac = _Aegis(key), _Gmac(key)
        self._tags: dict[str, bytes] = {}
        self._gmac_tags: dict[str, bytes] = {}

    def load(self, path: Path) -> None:
        """Take over the tags in ``path``, whose bytes somebody vouches for. Raises Tampered."""
        try:
            document = json.loads(path.read_bytes())
            form, sizes = document["format"], (document["segment_bytes"], document.get("piece_bytes"))
            if form == FORMAT and sizes == (SEGMENT_BYTES, PIECE_BYTES):
                self._tags |= _decoded(document["files"])
                self._gmac_tags |= _decoded(document.get("gmac", {}))
            elif form == FORMAT_1 and sizes == (SEGMENT_BYTES, None):
                self._gmac_tags |= _decoded(document["files"])
            else:
                raise ValueError("another format")
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            why = f"does not hold tags of files ({error}); restore it from a backup"
            raise Tampered(f"{path} {why}") from None

    def write(self, path: Path, digests: Iterable[str]) -> bool:
        """Write the tags of the files with ``digests``; False, and no file, when there is none."""
        wanted = {*digests}
        found = _encoded(self._tags, wanted)
        earlier = _encoded(self._gmac_tags, wanted - {*found})
        if not found and not earlier:
            return False
        document = {
            "format": FORMAT,
            "segment_bytes": SEGMENT_BYTES,
            "piece_bytes": PIECE_BYTES,
            "files": found,
            **({"gmac": earlier} if earlier else {}),
        }
        write_atomic(path, json.dumps(document, indent=1).encode() + b"\n")
        return True

    def digest(self, path: Path, *, threads: int = blake3.AUTO) -> str:
        """BLAKE3 of a file (64 hex), whose tags are made in the same read. Raises OSError."""
        whole, tags = blake3(max_threads=threads), bytearray()

        def hashed(pieces: Iterable[bytes]) -> Iterator[bytes]:
            for piece in pieces:
                whole.update(piece)
                yield piece

        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            for offset in range(0, size, SEGMENT_BYTES):
                nonce = secrets.token_bytes(self._aegis.nonce)
                length = min(SEGMENT_BYTES, size - offset)
                pieces = hashed(_pieces(file.fileno(), offset, length, self._aegis.piece))
                tags += nonce + self._aegis.tag(nonce, pieces)
        digest = whole.hexdigest()
        self._tags[digest] = bytes(tags)
        return digest

    def same(self, files: Sequence[Expected]) -> list[bool]:
        """Of each of ``files``, whether it has the tags of what it may be; False when those are not known.

        As many segments are read at a time as there are cores. A file that cannot be read is not the same.
        """
        if not self.fast:
            return [False] * len(files)
        segments = [(n, *segment) for n, file in enumerate(files) for segment in self._segments(file)]
        found = [False] * len(files)
        for number, *_ in segments:
            found[number] = True

        def look(segment: tuple[int, _Scheme, int, int, bytes]) -> None:
            number, scheme, offset, length, tag = segment
            if found[number] and not _is(scheme, files[number].path, offset, length, tag):
                found[number] = False

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for _ in pool.map(look, segments):
                pass
        return found

    def _segments(self, file: Expected) -> Iterator[tuple[_Scheme, int, int, bytes]]:
        """Scheme, offset, bytes and stored tag of each segment that ``file`` should have; none if unknown."""
        schemes: tuple[tuple[_Scheme, dict[str, bytes]], ...]
        schemes = ((self._aegis, self._tags), (self._gmac, self._gmac_tags))
        offsets = range(0, file.bytes, SEGMENT_BYTES)
        for scheme, known in schemes:
            tags = known.get(file.blake3, b"")
            if len(tags) == scheme.whole * len(offsets) > 0:
                for number, offset in enumerate(offsets):
                    tag = tags[number * scheme.whole : (number + 1) * scheme.whole]
                    yield scheme, offset, min(SEGMENT_BYTES, file.bytes - offset), tag
                return


def _is(scheme: _Scheme, path: Path, offset: int, length: int, tag: bytes) -> bool:
    """Whether the segment of ``length`` bytes at ``offset`` of ``path`` has the stored ``tag``."""
    nonce = tag[: scheme.nonce]
    try:
        with path.open("rb", buffering=0) as file:
            made = scheme.tag(nonce, _pieces(file.fileno(), offset, length, scheme.piece))
    except OSError:
        return False
    return hmac.compare_digest(nonce + made, tag)


def _pieces(descriptor: int, offset: int, length: int, piece: int) -> Iterator[bytes]:
    """``length`` bytes of a file, ``piece`` at a time, whatever reads return. Raises OSError when cut short.

    Read and not mapped: a mapped file that is cut short kills the process that looks at it.
    """
    end = offset + length
    while offset < end:
        raw = os.pread(descriptor, min(piece, end - offset), offset)
        while len(raw) < min(piece, end - offset):
            more = os.pread(descriptor, min(piece, end - offset) - len(raw), offset + len(raw))
            if not more:
                raise OSError(f"the file ends at byte {offset + len(raw)}")
            raw += more
        offset += len(raw)
        yield raw


def _encoded(tags: dict[str, bytes], digests: set[str]) -> dict[str, str]:
    return {digest: base64.b64encode(tags[digest]).decode() for digest in sorted(digests & {*tags})}


def _decoded(tags: dict[str, str]) -> dict[str, bytes]:
    return {digest: base64.b64decode(text) for digest, text in tags.items()}
