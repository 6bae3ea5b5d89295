"""gRPC's words on the wire: a call, a refusal, a failure, and how messages and statuses are written.

Bytes in, bytes out: nothing here parses what a call is about.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote_from_bytes

import grpc

from compute_guard.ray_plugin.gates.header_blocks import Headers, literal

PREFIX: Final = "TrainGuard: "
HOP_BY_HOP: Final = frozenset({"user-agent", "authorization", "te", "content-type", "grpc-timeout"})
REMEMBERED: Final = 1000
"""Different headers that one gate keeps the meaning of."""
DETAILS: Final = b"grpc-status-details-bin"
ANSWER: Final = b"\x88" + literal(((b"content-type", b"application/grpc"),))
"""``:status: 200`` (static table, 8) and the content type: the headers of every answer."""
DONE: Final = literal(((b"grpc-status", b"0"),))
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
Metadata = tuple[tuple[str, str], ...]


class Refusal(Exception):
    """The gate says no. ``text`` reaches the caller's error."""

    def __init__(self, text: str, code: grpc.StatusCode = grpc.StatusCode.PERMISSION_DENIED) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class Failed(Exception):
    """The server behind the gate answered with an error, or not at all."""

    def __init__(self, code: grpc.StatusCode, text: str, details: bytes = b"") -> None:
        super().__init__(f"{code.name}: {text}")
        self.code = code
        self.text = text
        self.details = details


@dataclass(frozen=True, slots=True)
class Call:
    """One call to be judged. ``tenant`` is None for Ray's own processes (the system)."""

    service: str
    name: str
    method: str
    tenant: str | None
    metadata: Metadata
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Passage:
    """A call that may be handed on at once, as ``request``; its reply is the caller's, as it is.

    ``done`` is told the reply, None when there was none.
    """

    request: bytes
    done: Callable[[bytes | None], None] = lambda _reply: None


@dataclass(frozen=True, slots=True)
class Heard:
    """What the headers of a call say."""

    method: str
    service: str
    name: str
    metadata: Metadata
    timeout: float | None


def heard(headers: Headers) -> Heard:
    """The meaning of a request's headers."""
    method, metadata, timeout = "", [], None
    for name, value in headers:
        if name == b":path":
            method = value.decode("ascii") if value.isascii() else ""  # no method of anybody's
        elif name == b"grpc-timeout":
            found = _TIMEOUT.fullmatch(value)
            timeout = None if found is None else int(found[1]) * _UNITS[found[2]]
        elif not name.startswith(b":"):
            metadata.append((name.decode("latin-1"), value.decode("latin-1")))
    _, service, name_ = method.split("/", 2) if method.count("/") == 2 else ("", "", method)
    return Heard(method, service, name_, tuple(metadata), timeout)


def refused(code: grpc.StatusCode, text: str, details: bytes = b"") -> bytes:
    """The whole answer, a header block, to a call that failed."""
    said = quote_from_bytes(text.encode(), safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()
    more = ((DETAILS, details),) if details else ()
    return ANSWER + literal(((b"grpc-status", b"%d" % code.value[0]), (b"grpc-message", said), *more))


def framed(message: bytes) -> bytes:
    """gRPC's message: not compressed, four bytes of length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def message_of(body: bytes) -> bytes | None:
    """The one message of a body; None when it is not one, whole and not compressed."""
    if len(body) < 5 or body[0] or int.from_bytes(body[1:5], "big") != len(body) - 5:
        return None
    return body[5:]
