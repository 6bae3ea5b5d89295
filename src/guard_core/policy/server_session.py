"""The connection under opa-python-client: urllib3's pool, without what requests does around each question.

requests merges settings, looks for proxies in the environment, keeps cookies and a redirect history: a
millisecond of CPU for a question that takes OPA as long. The client needs one method of its session, so it
is given that one, on urllib3, which requests itself uses underneath. Nothing is retried, no redirect is
followed, and neither the environment's proxies nor ``~/.netrc`` (which would replace the token) are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import certifi
import urllib3


class AnsweredOtherwise(Exception):
    """A status that is no success; ``response`` is the reply."""

    def __init__(self, response: Reply) -> None:
        super().__init__(f"status {response.status_code}")
        self.response = response


class Reply:
    """What the client reads of a reply."""

    __slots__ = ("content", "status_code")

    def __init__(self, status_code: int, content: bytes) -> None:
        self.status_code = status_code
        self.content = content

    def raise_for_status(self) -> None:
        """Raises AnsweredOtherwise unless the status is 2xx."""
        if not 200 <= self.status_code < 300:
            raise AnsweredOtherwise(self)

    def json(self) -> Any:
        """The body. Raises ValueError when it is no JSON."""
        return json.loads(self.content)


class QuestionSession:
    """One server, up to ``connections`` kept open. Shareable by threads."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        connections: int,
        client_cert: tuple[str, str] | None = None,
        ca_file: str | None = None,
    ) -> None:
        secure: dict[str, Any] = {}
        if urlsplit(url).scheme == "https":
            secure = {"cert_reqs": "CERT_REQUIRED", "ca_certs": ca_file or certifi.where()}
            if client_cert:
                secure |= {"cert_file": client_cert[0], "key_file": client_cert[1]}
        self._pool = urllib3.connection_from_url(url, maxsize=connections, block=False, **secure)
        self._headers = {**headers, "Content-Type": "application/json"}

    def post(self, url: str, *, json: Any, timeout: float) -> Reply:
        """Send ``json`` to ``url`` on this server. Raises urllib3.exceptions.HTTPError."""
        found = self._pool.urlopen(
            "POST",
            urllib3.util.parse_url(url).request_uri,
            body=_encoded(json),
            headers=self._headers,
            retries=False,
            redirect=False,
            timeout=timeout,
        )
        return Reply(found.status, found.data)

    def close(self) -> None:
        """Close connections that are not in use."""
        self._pool.close()


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
