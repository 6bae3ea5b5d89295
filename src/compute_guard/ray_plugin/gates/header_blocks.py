"""Header blocks of HTTP/2 (RFC 7541), read with the `hpack` library and written without a table.

Decoding is the costly part, and callers repeat themselves: a block that a peer has sent before is looked up,
for as long as the peer's table stays what it was.
"""

from __future__ import annotations

from typing import Final

from hpack import Decoder, HPACKError
from hpack.table import HeaderTable

HEADER_BYTES: Final = 64 * 1024
_REMEMBERED: Final = 512
_COMPRESSION_ERROR: Final = 0x9

Headers = tuple[tuple[bytes, bytes], ...]


class Violation(Exception):
    """The peer broke the protocol; the connection ends with ``code``."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Table(HeaderTable):
    """Knows when it has changed."""

    changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return self._maxsize

    @maxsize.setter
    def maxsize(self, size: int) -> None:
        self.changes += 1
        HeaderTable.maxsize.fset(self, size)  # type: ignore[attr-defined]  # a property


class Blocks:
    """Decodes header blocks; one that came before, while the table is the same, is looked up."""

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=HEADER_BYTES)
        self._table = _Table()
        self._decoder.header_table = self._table
        self._known: dict[bytes, Headers] = {}
        self._known_at = 0

    def decode(self, block: bytes) -> Headers:
        """Raises Violation."""
        if self._known_at == self._table.changes:
            known = self._known.get(block)
            if known is not None:
                return known
        before = self._table.changes
        try:
            found: Headers = tuple((bytes(n), bytes(v)) for n, v in self._decoder.decode(block, raw=True))
        except HPACKError as error:
            raise Violation(_COMPRESSION_ERROR, str(error)) from error
        if self._table.changes != before or self._known_at != before:
            self._known = {}
            self._known_at = self._table.changes
        if self._table.changes == before and len(self._known) < _REMEMBERED:
            self._known[block] = found
        return found


def literal(headers: Headers) -> bytes:
    """A header block that neither uses nor changes the peer's table (RFC 7541, 6.2.2)."""
    parts = []
    for name, value in headers:
        parts += [b"\x00", _length(name), name, _length(value), value]
    return b"".join(parts)


def _length(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes((size,))
    size -= 127
    out = [127]
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes((*out, size))
