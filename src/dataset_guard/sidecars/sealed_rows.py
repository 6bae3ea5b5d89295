"""``rows.sealed``: the public row hashes of a version, ascending, readable with its tenant's key alone.

A set root is made of public row hashes. A set that grew could not have one without hashing all rows again if
these were kept nowhere; but who has them can test guessed rows. So they are encrypted (AES-256-CTR, NIST SP
800-38A) under a key derived from the tenant's row key, whose holder could compute them anyway. That they were
not altered is vouched for by the signed record, which holds the file's BLAKE3.

Layout: ``TGROWS1`` and a line feed; 16 random bytes, the first counter block; then the ciphertext of each
hash as two little-endian uint64, high half first.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3

from guard_core.errors import Tampered

if TYPE_CHECKING:
    from dataset_guard.hashing.rowset import Hashes

MAGIC = b"TGROWS1\n"
CONTEXT = "trainguard 2026-11 sealed row hashes"
_HEAD = len(MAGIC) + 16
_PIECE = 1 << 19
"""Bytes at a time: few enough to stay in the processor's cache until they are merged and hashed."""


def seal(path: Path, pieces: Iterable[Hashes], *, key: bytes, nonce: bytes | None = None) -> None:
    """Write ``rows.sealed`` from hashes, shape (n, 2), that come in ascending ``pieces``. Raises OSError."""
    counter = secrets.token_bytes(16) if nonce is None else nonce
    encryptor = _cipher(key, counter).encryptor()
    with path.open("wb") as file:
        file.write(MAGIC + counter)
        for piece in pieces:
            for first in range(0, len(piece), _PIECE // 16):
                part = np.ascontiguousarray(piece[first : first + _PIECE // 16], "<u8")
                file.write(encryptor.update(part.tobytes()))


@dataclass(frozen=True, slots=True)
class SealedRows:
    """The hashes in a file, which somebody vouches for: ``rows`` of them, decrypted as they are read."""

    path: Path
    key: bytes
    rows: int

    @classmethod
    def of(cls, path: Path, *, key: bytes) -> SealedRows:
        """``key`` is the tenant's row key. Raises Tampered for what is no such file."""
        with path.open("rb") as file:
            head = file.read(_HEAD)
        size = path.stat().st_size - len(head)
        if not head.startswith(MAGIC) or len(head) < _HEAD or size % 16:
            raise Tampered(f"{path} does not hold sealed row hashes; restore it from a backup")
        return cls(path, key, size // 16)

    def pieces(self) -> Iterator[Hashes]:
        """The hashes in ascending order, shape (n, 2), in pieces; never all in memory. Raises Tampered."""
        left = self.rows * 16
        with self.path.open("rb", buffering=0) as file:
            decryptor = _cipher(self.key, file.read(_HEAD)[len(MAGIC) :]).decryptor()
            piece = memoryview(bytearray(_PIECE))
            while left:
                count = min(left, _PIECE)
                if file.readinto(piece[:count]) != count:
                    raise Tampered(f"{self.path} changed while it was read; restore it from a backup")
                plain = np.empty(count + 16, np.uint8)  # the library wants room for one more block
                decryptor.update_into(piece[:count], plain)
                left -= count
                yield plain[:count].view("<u8").reshape(-1, 2)


def _cipher(key: bytes, counter: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    return Cipher(algorithms.AES256(blake3(key, derive_key_context=CONTEXT).digest()), modes.CTR(counter))
