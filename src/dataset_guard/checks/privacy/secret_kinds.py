"""Kinds of secrets: how each begins, what it must look like in full, and what tells a real one.

The first stage searches all text for ``begins`` of all kinds at once: short patterns, so RE2's automaton
stays small. The second stage looks at the few hits: ``full`` must match there, and ``valid`` must agree.
Shapes are those their issuers document; documented example keys are no secrets (:data:`EXAMPLES`).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

Valid = Callable[[bytes], bool]

EXAMPLES = frozenset(
    {
        b"AKIAIOSFODNN7EXAMPLE",  # AWS documentation
        b"AKIAI44QH8DHBEXAMPLE",
        b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0Ijox"
        b"NTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",  # jwt.io
    }
)
_PLACEHOLDERS = (
    b"example",
    b"changeme",
    b"your",
    b"placeholder",
    b"dummy",
    b"redacted",
    b"xxxx",
    b"1234567890",
)


def entropy(text: bytes) -> float:
    """Shannon entropy in bits per character."""
    if not text:
        return 0.0
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def random_looking(text: bytes) -> bool:
    """Too mixed to be a word or a placeholder."""
    return text not in EXAMPLES and entropy(text) >= 3.0 and not _is_placeholder(text)


def _is_placeholder(text: bytes) -> bool:
    low = text.lower()
    return any(word in low for word in _PLACEHOLDERS)


def is_jwt(text: bytes) -> bool:
    """The first part decodes to JSON with an algorithm, the second to JSON; the third signs."""
    if text in EXAMPLES:
        return False
    try:
        head, body = (json.loads(_unpadded(part)) for part in text.split(b".")[:2])
    except (ValueError, binascii.Error):
        return False
    return isinstance(head, dict) and "alg" in head and isinstance(body, dict)


def _unpadded(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def is_key_block(text: bytes) -> bool:
    """Key material follows the header: a header alone is documentation."""
    body = text.split(b"-----", 3)[2] if text.count(b"-----") >= 2 else b""
    material = b"".join(body.replace(b"\\n", b"\n").split())
    return len(material) >= 40


def assigned_secret(text: bytes) -> bool:
    """Letters and digits mixed, long and random: not a word, a path or a placeholder."""
    value = text.lstrip(b"\"' \t:=>")
    if _is_placeholder(value) or value in EXAMPLES or not any(c in b"0123456789" for c in value):
        return False
    hexadecimal = all(c in b"0123456789abcdefABCDEF" for c in value)
    if not hexadecimal and (value.islower() or value.isupper()) and entropy(value) < 4.0:
        return False
    return entropy(value) >= (3.0 if hexadecimal else 3.5)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. ``begins`` and ``full`` are RE2 patterns; ``certain`` kinds are PRIV001, others PRIV002."""

    name: str
    begins: str
    full: str
    valid: Valid = random_looking
    certain: bool = True


def password_in_url(text: bytes) -> bool:
    """The part between the user's name and the host is no placeholder."""
    return random_looking(text.split(b":", 2)[2].rsplit(b"@", 1)[0])


KINDS: tuple[Kind, ...] = (
    Kind("AWS access key", "A(?:KIA|SIA|BIA|CCA)[A-Z2-7]", "A(?:KIA|SIA|BIA|CCA)[A-Z2-7]{16}"),
    Kind("GitHub token", "gh[pousr]_[A-Za-z0-9]", "gh[pousr]_[A-Za-z0-9]{36}"),
    Kind("GitHub token", "github_pat_", "github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    Kind("GitLab token", "glpat-", "glpat-[A-Za-z0-9_-]{20,64}"),
    Kind("Slack token", "xox[abeoprs]-", "xox[abeoprs]-[0-9]{8,14}-[0-9A-Za-z-]{10,200}"),
    Kind(
        "Slack webhook",
        r"hooks\.slack\.com/",
        r"hooks\.slack\.com/services/T[0-9A-Z]{8,}/B[0-9A-Z]{8,}/[0-9A-Za-z]{20,}",
    ),
    Kind(
        "private key",
        "-----BEGIN [A-Z ]*PRIVATE KEY",
        "-----BEGIN [A-Z ]{0,20}PRIVATE KEY(?: BLOCK)?-----(?s:.{40,400})",
        is_key_block,
    ),
    Kind(
        "JSON web token",
        "eyJ[A-Za-z0-9_-]{4}",
        r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{10,}",
        is_jwt,
    ),
    Kind("Google API key", "AIza[0-9A-Za-z_-]", "AIza[0-9A-Za-z_-]{35}"),
    Kind("Stripe key", "[rs]k_live_", "[rs]k_live_[0-9A-Za-z]{24,99}"),
    Kind("npm token", "npm_[A-Za-z0-9]", "npm_[A-Za-z0-9]{36}"),
    Kind("PyPI token", "pypi-AgE", "pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}"),
    Kind("Hugging Face token", "hf_[A-Za-z]", "hf_[A-Za-z]{34}"),
    Kind("OpenAI or Anthropic key", "sk-[A-Za-z0-9]", "sk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9_-]{40,200}"),
    Kind("SendGrid key", r"SG\.[A-Za-z0-9_-]", r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    Kind("Azure storage key", "AccountKey=", "AccountKey=[A-Za-z0-9+/]{86}=="),
    Kind("Alibaba Cloud access key", "LTAI[A-Za-z0-9]", "LTAI[A-Za-z0-9]{12,26}"),
    Kind("Tencent Cloud secret id", "AKID[A-Za-z0-9]", "AKID[A-Za-z0-9]{32}"),
    Kind(
        "password in a URL",
        r"://[^\s/:@]{1,64}:",
        r"://[^\s/:@]{1,64}:[^\s/@]{8,128}@[A-Za-z0-9.-]{3,}",
        password_in_url,
    ),
    Kind(
        "secret in an assignment",
        "(?i:api_?-?key|secret(?:_?-?(?:access_?-?)?key)?|passw(?:or)?d|token|access_?-?key)"
        r"[\"']?[ \t]{0,3}[:=]",
        r"(?i:[a-z_-]+)[\"']?[ \t]{0,3}(?::=|=>|[:=])[ \t]{0,3}[\"']?([A-Za-z0-9+/_=.~-]{16,128})",
        assigned_secret,
        certain=False,
    ),
)


@cache
def compiled() -> tuple[Any, tuple[tuple[Any, Any], ...]]:
    """The first stage over all kinds, and for each kind its (``begins``, ``full``), over bytes."""
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # bytes as they are: cells may be any text
    options.never_capture = True
    every = re2.compile("|".join(f"(?:{k.begins})" for k in KINDS).encode(), options)
    second = re2.Options()
    second.encoding = re2.Options.Encoding.LATIN1
    return every, tuple(
        (re2.compile(k.begins.encode(), second), re2.compile(k.full.encode(), second)) for k in KINDS
    )


def kind_at(text: bytes, start: int, stop: int) -> int | None:
    """Index of the kind of secret that begins at ``start`` of ``text`` and ends before ``stop``, if any."""
    window = text[start : min(stop, start + 2_048)]
    alone = start == 0 or not (text[start - 1 : start].isalnum() or text[start - 1] == 0x5F)
    for i, (begins, full) in enumerate(compiled()[1]):
        kind = KINDS[i]
        if (kind.certain and not alone and not kind.begins.startswith("://")) or not begins.match(window):
            continue
        found = full.match(window)
        if found is None:
            continue
        value = found.group(1) if found.re.groups else found.group(0)
        after = window[found.end() : found.end() + 1]
        if kind.certain and kind.valid is random_looking and (after.isalnum() or after == b"_"):
            continue  # longer than such a key ever is
        if kind.valid(value):
            return i
    return None
