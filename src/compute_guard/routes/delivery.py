"""The edge: one letter handed to one receiver, over HTTP or SMTP. Nothing is remembered here."""

from __future__ import annotations

import ipaddress
import smtplib
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from compute_guard.routes import Letter, Route, Unsendable, alertmanager, cloudevents, email, ocsf
from guard_core.errors import Undecidable, UserError

FORMATS: Final[dict[str, Any]] = {"alertmanager": alertmanager, "cloudevents": cloudevents, "ocsf": ocsf}
REFUSED: Final = frozenset({400, 404, 405, 410, 413, 415, 422})
"""Answers that a repetition will not change."""


class NotTaken(Undecidable):
    """The receiver did not take the letter; it stays due."""


def deliver(letter: Letter, route: Route) -> None:
    """Hand the letter over. Raises NotTaken when it stays due, Unsendable when it never will be taken."""
    if route.kind == "email":
        _send(letter, route)
        return
    form = FORMATS[route.kind]
    _post(form.render(letter, route), form.CONTENT_TYPE, letter.id, route)


def _post(body: bytes, content_type: str, letter_id: str, route: Route) -> None:
    parts = urlsplit(route.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"route {route.name}: {route.url!r} is no http address; correct it in usage.yaml")
    headers = {"Content-Type": content_type, "User-Agent": "trainguard", "Idempotency-Key": letter_id}
    if route.token_file:
        if parts.scheme == "http" and not _is_this_machine(parts.hostname):
            raise UserError(f"route {route.name}: a token is sent over https only; correct its url")
        headers["Authorization"] = f"Bearer {_secret(route.token_file, route)}"
    request = urllib.request.Request(route.url, body, headers, method="POST")  # noqa: S310 - checked above
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=_tls(route)))
    try:
        with opener.open(request, timeout=route.timeout_seconds) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        if error.code in REFUSED:
            raise Unsendable(f"route {route.name}: the receiver refuses the letter ({error.code})") from error
        raise NotTaken(f"route {route.name}: the receiver answered {error.code}") from error
    except OSError as error:
        raise NotTaken(f"route {route.name}: the receiver cannot be reached ({error})") from error


def _send(letter: Letter, route: Route) -> None:
    found = email.message(letter, route)
    try:
        with smtplib.SMTP(route.host, route.port, timeout=route.timeout_seconds) as server:
            if route.starttls:
                server.starttls(context=_tls(route))
            if route.user:
                server.login(route.user, _secret(route.password_file, route))
            server.send_message(found)
    except smtplib.SMTPRecipientsRefused as error:
        codes = {code for code, _ in error.recipients.values()}
        if all(code >= 500 for code in codes):
            raise Unsendable(f"route {route.name}: no recipient is accepted ({sorted(codes)})") from error
        raise NotTaken(f"route {route.name}: no recipient is accepted now ({sorted(codes)})") from error
    except smtplib.SMTPResponseException as error:
        if error.smtp_code in (552, 554):
            raise Unsendable(f"route {route.name}: the letter is refused ({error.smtp_code})") from error
        raise NotTaken(f"route {route.name}: the server answered {error.smtp_code}") from error
    except (smtplib.SMTPException, OSError) as error:
        raise NotTaken(f"route {route.name}: the mail server cannot be used ({error})") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token elsewhere; it is an answer like any other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: the answer stays the redirect."""


def _tls(route: Route) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=route.ca_file or None)
    except OSError as error:
        raise UserError(f"route {route.name}: ca_file {route.ca_file} cannot be used ({error})") from error


def _secret(path: str, route: Route) -> str:
    try:
        text = Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"route {route.name}: {path} cannot be read; check path and permissions") from error
    if not text or any(c.isspace() for c in text):
        raise UserError(f"route {route.name}: {path} does not hold one secret on one line")
    return text


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
