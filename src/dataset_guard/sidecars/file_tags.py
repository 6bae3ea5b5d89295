"""``files.tags``: keyed tags by which a tenant's unchanged files are recognised, faster than by BLAKE3.

A tag is GMAC (AES-256-GCM without plaintext, NIST SP 800-38D) of a segment of a file, under a key derived
from the tenant's row key. Who lacks that key cannot make other bytes with the same tag (a try succeeds with
a chance of 2^-105), so an equal tag says that these are the bytes whose BLAKE3 is in the signed record. A tag
is never the last word on a difference: a file with another one is hashed with BLAKE3. Who has the key could
make such bytes; ``verify(keyless=True)`` looks at no tag.

Digest and tags of a file are of one read, and the signed record vouches for the file of tags. Files below
1 MiB have none: opening them costs more than hashing them.

Layout: JSON ``{"format", "segment_bytes", "files": {BLAKE3 of a file: base64 of 12 bytes of nonce and 16 of
tag for each of its segments, in order}}``. Nonces are random, so one key is good for 2^32 segments.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from guard_core.errors import Tampered
from guard_core.files import write_atomic

FORMAT = "trainguard.file-tags/v1"
CONTEXT = "trainguard 2026-11 file tags"
SEGMENT_BYTES = 64 << 20
LEAST_BYTES = 1 << 20
_PIECE = 1 << 18
"""Bytes read at a time: few enough to stay in the processor's cache until they are hashed."""
_DIGEST_PIECE = 8 << 20
"""The same where BLAKE3 works on it with several threads."""
_NONCE = 12
_WHOLE = _NONCE + 16


@dataclass(frozen=True, slots=True)
class Expected:
    """A local file, and the BLAKE3 that a record has of the file that it may be; sizes are equal."""

    path: Path
    blake3: str
    bytes: int


class FileTags:
    """Tags of a tenant's files by the BLAKE3 of their bytes. ``key`` is the tenant's row key."""

    def __init__(self, key: bytes) -> None:
        self._key = blake3(key, derive_key_context=CONTEXT).digest()
        self._tags: dict[str, bytes] = {}

    def load(self, path: Path) -> None:
        """Take over the tags in ``path``, whose bytes somebody vouches for. Raises Tampered."""
        try:
            document = json.loads(path.read_bytes())
            if (document["format"], document["segment_bytes"]) != (FORMAT, SEGMENT_BYTES):
                raise ValueError("another format")
            self._tags |= {digest: base64.b64decode(tags) for digest, tags in document["files"].items()}
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            why = f"does not hold tags of files ({error}); restore it from a backup"
            raise Tampered(f"{path} {why}") from None

    def write(self, path: Path, digests: Iterable[str]) -> bool:
        """Write the tags of the files with ``digests``; False, and no file, when there is none."""
        found = {d: base64.b64encode(self._tags[d]).decode() for d in sorted({*digests} & {*self._tags})}
        if found:
            document = {"format": FORMAT, "segment_bytes": SEGMENT_BYTES, "files": found}
            write_atomic(path, json.dumps(document, indent=1).encode() + b"\n")
        return bool(found)

    def digest(self, path: Path, *, threads: int = blake3.AUTO) -> str:
        """BLAKE3 of a file (64 hex), whose tags are made in the same read. Raises OSError."""
        whole, tags = blake3(max_threads=threads), bytearray()
        buffer = memoryview(bytearray(_DIGEST_PIECE))
        with path.open("rb", buffering=0) as file:
            while piece := buffer[: file.readinto(buffer)]:
                nonce, left = secrets.token_bytes(_NONCE), SEGMENT_BYTES
                code = self._code(nonce)
                while piece:
                    whole.update(piece)
                    code.authenticate_additional_data(piece)
                    left -= len(piece)
                    piece = buffer[: file.readinto(buffer[:left])]
                code.finalize()
                tags += nonce + code.tag
        digest = whole.hexdigest()
        self._tags[digest] = bytes(tags)
        return digest

    def same(self, files: Sequence[Expected]) -> list[bool]:
        """Of each of ``files``, whether it has the tags of what it may be; False when those are not known.

        As many segments are read at a time as there are cores. A file that cannot be read is not the same.
        """
        found = [
            len(self._tags.get(f.blake3, b"")) == _WHOLE * -(-f.bytes // SEGMENT_BYTES) > 0 for f in files
        ]
        known = [(n, file) for n, file in enumerate(files) if found[n]]
        segments = [(n, *segment) for n, file in known for segment in self._segments(file)]

        def look(segment: tuple[int, int, int, bytes]) -> None:
            number, offset, length, tag = segment
            if found[number] and not self._is(files[number].path, offset, length, tag):
                found[number] = False

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for _ in pool.map(look, segments):
                pass
        return found

    def _segments(self, file: Expected) -> Iterator[tuple[int, int, bytes]]:
        """Offset, bytes and tag (nonce before it) of each segment that ``file`` should have."""
        tags = self._tags[file.blake3]
        for number, offset in enumerate(range(0, file.bytes, SEGMENT_BYTES)):
            tag = tags[number * _WHOLE : (number + 1) * _WHOLE]
            yield offset, min(SEGMENT_BYTES, file.bytes - offset), tag

    def _is(self, path: Path, offset: int, length: int, tag: bytes) -> bool:
        code = self._code(tag[:_NONCE])
        buffer = memoryview(bytearray(min(_PIECE, length)))
        with suppress(OSError), path.open("rb", buffering=0) as file:
            file.seek(offset)
            while length and (piece := buffer[: file.readinto(buffer[:length])]):
                code.authenticate_additional_data(piece)
                length -= len(piece)
        code.finalize()
        return not length and hmac.compare_digest(code.tag, tag[_NONCE:])

    def _code(self, nonce: bytes) -> Any:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        return Cipher(algorithms.AES256(self._key), modes.GCM(nonce)).encryptor()
