"""Where records go: a collector of OPA's decision logs over HTTP, or a file of JSON lines."""

from __future__ import annotations

import gzip
import http.client
import ipaddress
import json
import os
import socket
import ssl
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from guard_core.errors import Undecidable, UserError
from guard_core.files import sync_directory
from guard_core.policy.deadline import DeadlineCalls, TooLate

Event = Mapping[str, Any]
TAIL_BYTES = 1 << 16


class NotTaken(Undecidable):
    """The sink did not acknowledge a batch; it stays due."""


class TooLarge(NotTaken):
    """The collector takes no batch of this size (413)."""


class Sink(Protocol):
    """Takes events, or says in one sentence why not. What ``deliver`` returned for is never lost."""

    target: str

    def begin(self, size: int | None) -> int | None:
        """Get ready, mending what a killed delivery left; returns as ``deliver``. Raises UserError."""

    def deliver(self, events: Sequence[Event]) -> int | None:
        """Deliver all of them or raise NotTaken; returns the target's size where that says anything."""


class HttpSink:
    """POSTs ``<url>/logs`` as OPA's plugin does: a gzip JSON array, ``Authorization: Bearer`` with a token.

    With ``client_cert`` (and ``client_key``, unless the certificate's file holds it) the collector is shown
    who sends (mutual TLS). Every request has a connection and a hard deadline of its own. No
    proxies, no redirects: either would carry records and token elsewhere.
    """

    def __init__(
        self,
        url: str,
        *,
        token_file: Path | None = None,
        ca_file: Path | None = None,
        client_cert: Path | None = None,
        client_key: Path | None = None,
        deadline_s: float = 30.0,
    ) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.query
            or parts.fragment
            or port == -1
        ):
            raise UserError(f"--to {url!r} is not like https://collector.example/opa; correct it")
        if parts.username is not None:
            raise UserError(
                "--to must not hold a password; put the collector's token in a file: --token-file"
            )
        if token_file is not None and parts.scheme == "http" and not _is_this_machine(parts.hostname):
            raise UserError(f"a token is sent over https only, and {url} is not; correct --to")
        self.target = url.rstrip("/")
        self._host, self._port, self._path = parts.hostname, port, parts.path.rstrip("/") + "/logs"
        self._token_file = token_file
        self._deadline = deadline_s
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = _tls(ca_file, client_cert, client_key)
        elif (ca_file or client_cert or client_key) is not None:
            raise UserError(f"--ca-file, --client-cert and --client-key are for https, and {url} is not")
        self._calls = DeadlineCalls(4, "audit-ship")

    def begin(self, size: int | None) -> int | None:  # noqa: ARG002 - a collector has no size
        """Read the token once, so that a wrong path is told at the start."""
        self._headers()
        return None

    def deliver(self, events: Sequence[Event]) -> int | None:
        """One POST. Raises NotTaken for anything but a 2xx by the deadline."""
        headers = self._headers()
        # The same bytes for the same batch (no time in the gzip header): a repetition can be told as one.
        body = gzip.compress(b"[" + b",".join(map(_text, events)) + b"]", mtime=0)
        connection = self._connection()
        try:
            status = self._calls.run(lambda: self._post(connection, body, headers), self._deadline)
        except TooLate:
            raise NotTaken(f"{self.target} did not answer within {self._deadline:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise NotTaken(f"{self.target} cannot be reached: {error or type(error).__name__}") from None
        finally:
            _abort(connection)
        if status == 413:
            raise TooLarge(f"{self.target} refuses {len(events)} events as too large (413)")
        if not 200 <= status < 300:
            raise NotTaken(f"{self.target} answered {status}")
        return None

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._deadline, context=self._tls
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._deadline)

    def _post(self, connection: http.client.HTTPConnection, body: bytes, headers: Mapping[str, str]) -> int:
        connection.request("POST", self._path, body, dict(headers))
        return connection.getresponse().status  # the body says nothing that counts

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip", "User-Agent": "trainguard"}
        if self._token_file is not None:  # read for each request: tokens are changed while we run
            try:
                token = self._token_file.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError):
                raise UserError(
                    f"--token-file {self._token_file} cannot be read; check its path and permissions"
                ) from None
            if not token or any(c.isspace() for c in token):
                raise UserError(f"--token-file {self._token_file} does not hold one token on one line")
            headers["Authorization"] = f"Bearer {token}"
        return headers


def _tls(ca_file: Path | None, client_cert: Path | None, client_key: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise UserError(f"--ca-file {ca_file} cannot be used: {error}") from None
    if client_cert is None:
        if client_key is not None:
            raise UserError("--client-key belongs to a certificate; give it too: --client-cert")
        return context

    def no_password() -> str:  # openssl would otherwise ask for one on the terminal, and wait
        raise UserError(f"the key of --client-cert {client_cert} has a password; give one without")

    try:
        context.load_cert_chain(client_cert, client_key, password=no_password)
    except OSError as error:  # ssl.SSLError is one
        key = f" with --client-key {client_key}" if client_key is not None else ""
        raise UserError(
            f"--client-cert {client_cert}{key} cannot be used ({error.strerror or error}); "
            "give a PEM certificate and its private key"
        ) from None
    return context


def _abort(connection: http.client.HTTPConnection) -> None:
    """Close at once, freeing the thread that waits on it: a dripping server would hold it for ever."""
    found = connection.sock
    if found is not None:
        with suppress(OSError):
            found.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        connection.close()


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _text(event: Event) -> bytes:
    return json.dumps(event, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


class FileSink:
    """Appends JSON lines to a file (0600), forced to disk. ``forbidden`` is a folder it must not lie in."""

    def __init__(self, path: Path, *, forbidden: Path) -> None:
        self.path = path.absolute()
        self.target = str(self.path)
        if self.path.resolve().is_relative_to(forbidden.resolve()):
            raise UserError(
                f"--to {path} lies in the home {forbidden}, which is no place for a copy; choose another"
            )
        if not self.path.parent.is_dir():
            raise UserError(f"--to {path}: there is no folder {self.path.parent}; make it")
        if self.path.exists() and not self.path.is_file():
            raise UserError(f"--to {path} is not a file; name a file or a URL")

    def begin(self, size: int | None) -> int | None:
        """Cut off an unfinished last line behind ``size``: a delivery that was killed, and is due again."""
        try:
            with self._opened() as file:
                end = file.seek(0, os.SEEK_END)
                whole = _whole_lines(file, end)
                if whole != end:
                    if size is None or whole < size:
                        raise UserError(
                            f"{self.target} ends in the middle of a line that is not ours; choose another"
                        )
                    file.truncate(whole)
                return whole
        except OSError as error:
            raise UserError(f"{self.target} cannot be written: {error.strerror or error}") from None

    def deliver(self, events: Sequence[Event]) -> int | None:
        """Append and force to disk, or take back what was written. Raises NotTaken."""
        content = b"".join(_text(event) + b"\n" for event in events)
        try:
            with self._opened() as file:
                before: int = file.seek(0, os.SEEK_END)
                try:
                    view = memoryview(content)
                    while view:
                        view = view[file.write(view) :]
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), before)
                    raise
                if before == 0:
                    sync_directory(self.path.parent)
                return before + len(content)
        except OSError as error:
            raise NotTaken(f"{self.target} cannot be written: {error.strerror or error}") from None

    def _opened(self) -> Any:
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError("it is not a file")
        return os.fdopen(handle, "r+b", buffering=0)


def _whole_lines(file: Any, end: int) -> int:
    """Where the last line end before ``end`` stands."""
    while end:
        first = max(0, end - TAIL_BYTES)
        file.seek(first)
        newline = file.read(end - first).rfind(b"\n")
        if newline >= 0:
            return int(first + newline + 1)
        end = first
    return 0
