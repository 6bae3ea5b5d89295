"""The line format of the audit log, version 1.

One record is one line of UTF-8 JSON with sorted keys and no spaces::

    {"_hash":"<64 hex>","_prev":"<64 hex>","_seq":17,"kind":"decision",...}

``_hash`` is SHA-256 over the same line without its ``_hash`` member (``{"_prev":...}``), byte for byte as
written; ``_prev`` is the ``_hash`` of the record before (64 zeros in record 0); ``_seq`` counts from 0. All
other names begin with a lower-case letter, so these three sort first and stand at fixed places: a verifier
needs no JSON parser. Two parsers can read one text differently, but not its bytes.

The text is RFC 8785 with names sorted by code point, except for numbers: integers are written in full
(``now_ns`` is above 2**53, which RFC 8785 refuses), floats as Python's shortest form that reads back equal.
NaN and infinities are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

GENESIS = "0" * 64
"""``_prev`` of the first record."""

_encode, _encode_ascii = (
    json.JSONEncoder(sort_keys=True, ensure_ascii=ascii_only, allow_nan=False, separators=(",", ":")).encode
    for ascii_only in (False, True)
)

# {"_hash":"<64>","_prev":"<64>","_seq":
_HASH = slice(10, 74)
_PREV_AT = 85
_PREV = slice(85, 149)
_SEQ_AT = 158
_BODY_AT = 76


class BadRecord(ValueError):
    """A line that is no record: torn, changed in its frame, or not ours."""


def prepared(body: Mapping[str, Any]) -> bytes:
    """The text of ``body``, for :func:`encode`: all of a line but what its place in the log decides.

    Raises TypeError or ValueError for values JSON cannot carry, and for names that would stand in the frame.
    """
    if body and min(body)[:1] <= "_":
        raise ValueError(
            "a record's names begin with a lower-case letter, so that the frame sorts before them"
        )
    try:
        return _encode(body).encode()
    except UnicodeEncodeError:
        # Half a surrogate pair (a strange file name) has no UTF-8 form; as an escape it reads back equal.
        return _encode_ascii(body).encode()


def encode(body: Mapping[str, Any] | bytes, *, seq: int, prev: str) -> tuple[bytes, str]:
    """The line (with its newline) for ``body`` as record ``seq`` after ``prev``, and its hash.

    Bytes are a :func:`prepared` body. Raises as it.
    """
    text = body if isinstance(body, bytes) else prepared(body)
    rest = text[1:] if text == b"{}" else b"," + text[1:]
    hashed = b'{"_prev":"%s","_seq":%d%s' % (prev.encode(), seq, rest)
    digest = sha256(hashed).hexdigest()
    return b'{"_hash":"%s",%s\n' % (digest.encode(), hashed[1:]), digest


def frame(line: bytes) -> tuple[str, str, int]:
    """``(hash, prev, seq)`` as the line states them. Raises BadRecord."""
    if (
        line[:10] != b'{"_hash":"'
        or line[74:_PREV_AT] != b'","_prev":"'
        or line[149:_SEQ_AT] != b'","_seq":'
        or line[-2:] != b"}\n"
    ):
        raise BadRecord("the line is not an audit record")
    end = min(e for e in (line.find(b",", _SEQ_AT), line.find(b"}", _SEQ_AT)) if e > 0)
    number = line[_SEQ_AT:end]
    if not number.isdigit():
        raise BadRecord("the record's number is not a number")
    return line[_HASH].decode("latin-1"), line[_PREV].decode("latin-1"), int(number)


def content_hash(line: bytes) -> str:
    """The hash that the line's content has (to be compared with the one it states)."""
    return sha256(b"{" + line[_BODY_AT:-1]).hexdigest()


def entry(line: bytes) -> bytes:
    """What the Merkle tree hashes: the line without its newline."""
    return line[:-1]


def decode(line: bytes) -> dict[str, Any]:
    """The record as a dict, frame included. Raises BadRecord."""
    try:
        value = json.loads(line)
    except ValueError:
        raise BadRecord("the line is not JSON") from None
    if not isinstance(value, dict):
        raise BadRecord("the line is not a JSON object")
    return value


def chosen(value: Mapping[str, Any], *, earliest: str, kind: str | None) -> bool:
    """Whether a reader who asked for ``kind`` (or, with a final dot, an area) since ``earliest`` wants it."""
    found = str(value.get("kind", ""))
    if str(value.get("timestamp", "")) < earliest:
        return False
    return kind is None or found == kind or (kind.endswith(".") and found.startswith(kind))
