"""Say that a file's text is not UTF-8: where, what it looks like, and how to convert it."""

from __future__ import annotations

import gzip
import re
import shlex
from contextlib import nullcontext

from dataset_guard.reading.places import Place
from guard_core.errors import UserError

_HAN_PAIRS = re.compile(rb"(?:[\x00-\x7f]|[\xb0-\xf7][\xa1-\xfe]|[\xa1-\xa9][\xa1-\xfe])*")
"""ASCII, and pairs of GB 2312: its characters (first byte B0 to F7) and punctuation (A1 to A9)."""


def not_utf8(path: Place, where: str) -> UserError:
    """The refusal of ``path``; ``where`` is said when the first wrong byte cannot be found."""
    found = first_bad_line(path)
    place, line = (where, b"") if found is None else found
    return refusal(path, place, line)


def refusal(path: Place, place: str, line: bytes) -> UserError:
    """The sentence, with a command when ``line``, the first one that is not UTF-8, tells its encoding."""
    known = encoding_of(line)
    remedy = "convert it to UTF-8"
    if known is not None:
        remedy += f" (it looks like {known}: iconv -f {known} -t UTF-8 {shlex.quote(path.name)} > utf8-copy)"
    return UserError(f"{path} is not UTF-8 {place}; {remedy}")


def first_bad_line(path: Place) -> tuple[str, bytes] | None:
    """``("at line 3 (byte 8)", the line)`` of the first byte that is not UTF-8; None when all are."""
    offset, number = 0, 1
    with path.open("rb") as raw, gzip.open(raw) if path.suffix.lower() == ".gz" else nullcontext(raw) as text:
        for line in text:
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"at line {number} (byte {offset + error.start})", line
            offset += len(line)
            number += 1
    return None


def encoding_of(line: bytes) -> str | None:
    """``UTF-16`` or ``GB18030`` when ``line`` shows it, else None: one-byte encodings look all alike."""
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    whole = _HAN_PAIRS.fullmatch(line.rstrip(b"\r\n")) is not None
    return "GB18030" if whole and not line.isascii() else None
