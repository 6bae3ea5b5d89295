"""A stream of bytes that only a tenant's key can read or write, a piece at a time.

Each piece of up to 1 MiB is sealed with AES-256-GCM (NIST SP 800-38D) under a key derived from the tenant's
row key. Its nonce counts the pieces and marks the last one (the STREAM construction of Hoang, Reyhanitabar,
Rogaway and Vizár, CRYPTO 2015), so pieces cannot be changed, reordered, left out or cut off unseen. ``about``
is bound to all of them: a stream about one thing is not taken for a stream about another.

Layout: 7 random bytes, then the pieces, each with its 16-byte tag.
"""

from __future__ import annotations

import secrets
from typing import IO, Any, Protocol

from blake3 import blake3

from guard_core.errors import Tampered

_PIECE = 1 << 20
_TAG = 16
_PREFIX = 7


class Sink(Protocol):
    """What bytes can be written to."""

    def write(self, data: bytes, /) -> int:
        """Take all of ``data``."""


class SealedWriter:
    """A binary file to write to; :meth:`close` seals the last piece. Raises OSError."""

    def __init__(self, file: Sink, *, key: bytes, context: str, about: bytes) -> None:
        self._file, self._about = file, about
        self._cipher = _cipher(key, context)
        self._prefix = secrets.token_bytes(_PREFIX)
        self._pending = bytearray()
        self._pieces = 0
        file.write(self._prefix)

    def write(self, data: Any) -> int:
        """Take bytes of any number."""
        view = memoryview(data).cast("B")
        self._pending += view
        while len(self._pending) > _PIECE:  # never the last one, which close() marks
            self._seal(bytes(self._pending[:_PIECE]), last=False)
            del self._pending[:_PIECE]
        return view.nbytes

    def close(self) -> None:
        """Seal what is left; the file stays open."""
        self._seal(bytes(self._pending), last=True)
        self._pending.clear()

    def _seal(self, piece: bytes, *, last: bool) -> None:
        nonce = _nonce(self._prefix, self._pieces, last)
        self._file.write(self._cipher.encrypt(nonce, piece, self._about))
        self._pieces += 1


class SealedReader:
    """The inverse of :class:`SealedWriter`: hands out nothing that it has not authenticated.

    Raises Tampered for a stream that was changed or cut off, is about something else, or has another key.
    """

    def __init__(self, file: IO[bytes], *, key: bytes, context: str, about: bytes) -> None:
        self._file, self._about = file, about
        self._cipher = _cipher(key, context)
        self._prefix = file.read(_PREFIX)
        self._next = file.read(_PIECE + _TAG)
        self._pieces = 0
        self._open = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; fewer only at the end."""
        found = bytearray()
        while size < 0 or len(found) < size:
            if not len(self._open) and not self._more():
                break
            part = self._open if size < 0 else self._open[: size - len(found)]
            found += part
            self._open = self._open[len(part) :]
        return bytes(found)

    def readline(self) -> bytes:
        """Up to and with the next line feed; pickle asks for it."""
        found = bytearray()
        while piece := self.read(1):
            found += piece
            if piece == b"\n":
                break
        return bytes(found)

    def _more(self) -> bool:
        from cryptography.exceptions import InvalidTag

        if not self._next:
            return False
        piece, self._next = self._next, self._file.read(_PIECE + _TAG)
        nonce = _nonce(self._prefix, self._pieces, last=not self._next)
        self._pieces += 1
        try:
            self._open = memoryview(self._cipher.decrypt(nonce, piece, self._about))
        except (InvalidTag, ValueError):
            raise Tampered("a sealed stream was changed, cut off, or is about something else") from None
        return True


def _cipher(key: bytes, context: str) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(blake3(key, derive_key_context=context).digest())


def _nonce(prefix: bytes, number: int, last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + bytes([last])
