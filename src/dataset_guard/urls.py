"""Which texts are URLs of an object store or a server, and not paths. Light, for the command line."""

from __future__ import annotations

import re

_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_url(text: object) -> bool:
    """Whether ``text`` names a place by URL (``s3://bucket/key``)."""
    return isinstance(text, str) and _URL.match(text) is not None
