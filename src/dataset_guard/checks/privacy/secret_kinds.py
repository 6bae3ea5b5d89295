"""What secrets look like: for each kind how it starts, its whole form, and what makes it genuine.

Forms are the issuers' published ones: GitHub's "authentication token formats" with CRC-32 check digits, AWS
"unique identifiers", RFC 7519 for JWT, RFC 7468 for PEM, RFC 3986 for user:password in URIs. Which kinds are
worth a form follows the rule lists of gitleaks and detect-secrets.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class Belief(IntEnum):
    """What the second stage thinks of a candidate."""

    NO = 0
    LIKELY = 1  # random-looking, or genuine in form but not verifiable
    VALID = 2  # form, and structure or check digits or issuer's prefix with random content


Judge = Callable[["re.Match[bytes]"], Belief]


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of secret.

    ``anchor``: what the first stage looks for, short. ``form``: the whole, matched where the anchor starts;
    group ``secret`` (or all of it) is what is counted. ``judge`` believes or not.
    """

    name: str
    anchor: bytes
    form: re.Pattern[bytes]
    judge: Judge


# A token must not be the tail of a longer word; an escaped newline or percent-encoded byte is no word.
_LEFT = rb"(?:(?<![A-Za-z0-9_])|(?<=\\[nrtb])|(?<=%[0-9A-Fa-f]{2}))"
_RIGHT = rb"(?![A-Za-z0-9_])"
_PLACEHOLDER = re.compile(rb"example|placeholder|changeme|redacted|x{6}|0{8}|1234567|abcdefg", re.IGNORECASE)
_PLACEHOLDER_VALUE = re.compile(
    rb"example|sample|placeholder|dummy|change_?me|your|x{4}|\*{3}|\.{3}|1234567|abcdefg|deadbeef|redacted"
    rb"|replace|insert|secret_?key|password|fake",
    re.IGNORECASE,
)
_BASE62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

DOCUMENTED = frozenset(
    {
        b"AKIAIOSFODNN7EXAMPLE",
        b"AKIAI44QH8DHBEXAMPLE",
        b"ASIAIOSFODNN7EXAMPLE",
        b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        b"je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY",
        b"sk_test_" + b"4eC39HqLyjWDarjtT1zdp7dc",
        b"sk_test_" + b"BQokikJOvBiI2HlWgH4olfQ2",
        # The well-known key of the Azurite and Cosmos DB emulators.
        b"Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
        b"C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw==",
    }
)
"""Keys that issuers print in their manuals: public, so no secrets."""


def entropy(value: bytes) -> float:
    """Shannon entropy of the bytes of ``value``, in bits per byte."""
    counts = Counter(value).values()
    return -sum(c / len(value) * math.log2(c / len(value)) for c in counts) if value else 0.0


def _secret(match: re.Match[bytes]) -> bytes:
    return match["secret"] if "secret" in match.re.groupindex else match[0]


def _random(bits: float, belief: Belief = Belief.VALID) -> Judge:
    """Believe a token whose last part has ``bits`` of entropy per byte and is no documented example."""

    def judge(match: re.Match[bytes]) -> Belief:
        value = _secret(match)
        body = match["body"] if "body" in match.re.groupindex else value
        if value in DOCUMENTED or _PLACEHOLDER.search(body) or entropy(body) < bits:
            return Belief.NO
        return belief

    return judge


def _check_digits(match: re.Match[bytes]) -> Belief:
    """GitHub and npm: the last six characters are the CRC-32 of the 30 before them, in base 62."""
    body = match["body"]
    if _PLACEHOLDER.search(body) or entropy(body) < 3.5:
        return Belief.NO
    number, digits = zlib.crc32(body[:30]), b""
    for _ in range(6):
        number, rest = divmod(number, 62)
        digits = _BASE62[rest : rest + 1] + digits
    return Belief.VALID if digits == body[30:] else Belief.LIKELY


def _unbase64(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


_DOCUMENTED_CLAIMS: tuple[dict[str, Any], ...] = (
    {"iss": "joe", "exp": 1300819380, "http://example.com/is_root": True},  # RFC 7519
    {"some": "payload"},  # PyJWT's manual
)


def _token(match: re.Match[bytes]) -> Belief:
    """RFC 7519: the header is a JSON object that names an algorithm, the claims are a JSON object."""
    try:
        header, claims = (json.loads(_unbase64(match[part])) for part in ("header", "claims"))
    except (binascii.Error, ValueError, RecursionError):
        return Belief.NO
    if not isinstance(header, dict) or not isinstance(header.get("alg"), str) or not isinstance(claims, dict):
        return Belief.NO
    documented = claims.get("sub") == "1234567890" or claims in _DOCUMENTED_CLAIMS
    return Belief.NO if documented else Belief.VALID


def _private_key(match: re.Match[bytes]) -> Belief:
    """A PEM header followed by base64 that starts like a key; a header that ends its row is only likely."""
    body = match["body"]
    if not re.sub(rb"\\[nrt]|\s", b"", body):
        return Belief.LIKELY
    plain = re.sub(_PEM_FIELD, b"", body)
    text = re.sub(rb"\\[nrt]|[\s\"'`,+>|]", b"", plain)[:256]
    if not _BASE64.match(text) or _PLACEHOLDER.search(text) or entropy(text) < 4.5:
        return Belief.NO
    return Belief.VALID if text.startswith(_KEY_STARTS) else Belief.LIKELY


_PEM_FIELD = re.compile(rb"(?:Proc-Type|DEK-Info|Version|Comment|Charset|Hash): ?[^\r\n\\]*")
_BASE64 = re.compile(rb"[A-Za-z0-9/+]{40}")
# DER SEQUENCE, OpenSSH's magic, and OpenPGP secret-key packets, all in base64.
_KEY_STARTS = (
    b"MI",
    b"MC",
    b"MF",
    b"MG",
    b"MH",
    b"b3BlbnNzaC1rZXkt",
    b"lQ",
    b"lF",
    b"lH",
    b"lI",
    b"xc",
    b"xV",
)
_NO_PASSWORD = re.compile(
    rb"^(?:.{1,3}|[$%#<{(\[].*|.*[>})\]]|.*%[sdr]|\*+|x+|\.+|-+|_+|[0-9]{1,5}|pass\w{0,4}|passw(?:or)?d.?|pwd|user\w*|token"
    rb"|root|postgres|mysql|admin|guest|test\w*|foo\w*|bar|example|changeme|repo|prefix|xyz.?|tiger|scott|redacted|hidden"
    rb"|(?:my|your|some|the|db|aws|api|auth|access)?[_-]?(?:\w*secret\w*|password|passwd|pw|pass|key|token)(?:[_-]?here)?)$",
    re.IGNORECASE,
)
_NO_HOST = re.compile(
    rb"^(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\]|host(?:name)?|server|example"
    rb"|(?:[\w.-]+\.)?example(?:\.(?:com|org|net))?|(?:[\w.-]+\.)?(?:test|invalid|localhost))$",
    re.IGNORECASE,
)


def _connection(match: re.Match[bytes]) -> Belief:
    """RFC 3986 userinfo with a password that is no placeholder; short or at an example's, only likely."""
    password, user = match["secret"], match["user"]
    if _NO_PASSWORD.match(password) or password.lower() == user.lower():
        return Belief.NO
    if not user and not match["scheme"].lower().startswith(b"redis"):
        return Belief.NO  # only Redis has a password without a user
    return Belief.LIKELY if len(password) < 6 or _NO_HOST.match(match["host"]) else Belief.VALID


_WORDS, _VOWELS = re.compile(rb"[A-Za-z][a-z]{3,}|[A-Z]{4,}"), re.compile(rb"[aeiouAEIOU]")
_DIGITS, _LETTERS = re.compile(rb"[0-9]+"), re.compile(rb"[A-Za-z]+")
_UUID = re.compile(rb"^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
_PLAIN = re.compile(rb"^[A-Za-z0-9+/=_-]+$")
_DOTTED = re.compile(rb"^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+$")
_HEX = re.compile(rb"^(?:0x)?[0-9a-fA-F]+$")


def _assigned(match: re.Match[bytes]) -> Belief:
    """A value that looks random beside a name that says secret: mixed, dense, and not made of words."""
    value = match["secret"]
    if value in DOCUMENTED or _PLACEHOLDER_VALUE.search(value) or _UUID.match(value):
        return Belief.NO
    if _DOTTED.match(value):
        return Belief.NO  # a name in code
    if _HEX.match(value):
        enough = len(value) >= 32 and entropy(value) >= 3.0 and not value.isdigit()
        return Belief.LIKELY if enough else Belief.NO
    digits = sum(map(len, _DIGITS.findall(value)))
    letters = sum(map(len, _LETTERS.findall(value)))
    in_words = sum(len(w) for w in _WORDS.findall(value) if len(_VOWELS.findall(w)) > len(w) / 4)
    changes = len(_DIGITS.findall(value)) + len(_LETTERS.findall(value))
    least = 1 if _PLAIN.match(value) else 2  # with stops and signs it may be code
    if digits < least or letters < 4 or changes < 3 or digits + letters < 0.75 * len(value):
        return Belief.NO
    if in_words > 0.4 * len(value):
        return Belief.NO
    # A random string of n symbols has about log2(n) bits per symbol, less some for repeats.
    return Belief.LIKELY if entropy(value) >= 0.75 * math.log2(min(len(value), 64)) else Belief.NO


def _aws_secret(match: re.Match[bytes]) -> Belief:
    value = match["secret"]
    if value in DOCUMENTED or _PLACEHOLDER.search(value) or _HEX.match(value) or entropy(value) < 4.2:
        return Belief.NO
    return Belief.VALID


def _kind(
    name: str, anchor: bytes, rest: bytes, judge: Judge, *, left: bytes = _LEFT, right: bytes = _RIGHT
) -> Kind:
    return Kind(name, anchor, re.compile(left + rest + right, re.DOTALL), judge)


_URL_SAFE = rb"[A-Za-z0-9_-]"

PREFIXED: tuple[Kind, ...] = (
    _kind("aws_access_key_id", rb"A[KS]IA[A-Z2-7]{16}", rb"A[KS]IA(?P<body>[A-Z2-7]{16})", _random(3.0)),
    _kind(
        "github_token",
        rb"gh[pousr]_[A-Za-z0-9]{36}",
        rb"gh[pousr]_(?P<body>[A-Za-z0-9]{36})",
        _check_digits,
    ),
    _kind(
        "github_fine_grained_token",
        rb"github_pat_[A-Za-z0-9]{22}_",
        rb"github_pat_(?P<body>[A-Za-z0-9]{22}_[A-Za-z0-9]{59})",
        _random(4.0),
    ),
    _kind("npm_token", rb"npm_[A-Za-z0-9]{36}", rb"npm_(?P<body>[A-Za-z0-9]{36})", _check_digits),
    _kind(
        "gitlab_token",
        rb"gl(?:pat|ptt|dt|rt|soat|cbt|ft|imt|agent)-[A-Za-z0-9_-]{20}",
        rb"gl(?:pat|ptt|dt|rt|soat|cbt|ft|imt|agent)-(?P<body>[A-Za-z0-9_-]{20,50}(?:\.[a-z0-9]{2}\.[a-z0-9]{9})?)",
        _random(3.3),
    ),
    _kind(
        "slack_token",
        rb"xox[abceoprs]-[0-9A-Za-z-]{10}",
        rb"xox[abceoprs]-(?P<body>(?:[0-9]+-){1,4}[0-9A-Za-z-]{8,150})",
        _random(2.8),
    ),
    _kind(
        "slack_token",
        rb"xapp-[0-9]-A",
        rb"xapp-[0-9]-(?P<body>A[A-Z0-9]+-[0-9]+-[a-f0-9]{32,})",
        _random(3.0),
    ),
    _kind(
        "slack_webhook",
        rb"hooks\.slack\.com/services/T",
        rb"hooks\.slack\.com/services/T[A-Z0-9]{6,12}/B[A-Z0-9]{6,12}/(?P<body>[A-Za-z0-9]{20,30})",
        _random(3.0),
    ),
    _kind(
        "stripe_key",
        rb"[sr]k_(?:live|test)_[0-9A-Za-z]{16}",
        rb"[sr]k_(?:live|test)_(?P<body>[0-9A-Za-z]{16,250})",
        _random(3.3),
    ),
    _kind(
        "stripe_webhook_secret",
        rb"whsec_[A-Za-z0-9+/]{24}",
        rb"whsec_(?P<body>[A-Za-z0-9+/]{24,100}={0,2})",
        _random(3.5),
    ),
    _kind(
        "anthropic_key",
        rb"sk-[A-Za-z0-9_-]{20}",
        rb"sk-ant-[a-z0-9]{3,10}-(?P<body>[A-Za-z0-9_-]{60,140})",
        _random(4.0),
    ),
    _kind(
        "openai_key",
        rb"sk-[A-Za-z0-9_-]{20}",
        rb"sk-(?P<body>(?:(?:proj|svcacct|admin)-)?[A-Za-z0-9_-]{20,120}T3BlbkFJ[A-Za-z0-9_-]{20,120})",
        _random(3.5),
    ),
    _kind(
        "llm_service_key",  # OpenRouter, and the services that copied OpenAI's older form
        rb"sk-[A-Za-z0-9_-]{20}",
        rb"sk-(?:or-v1-)?(?P<body>[A-Za-z0-9]{32,64})",
        _random(3.2),
    ),
    _kind("hugging_face_token", rb"hf_[A-Za-z0-9]{34}", rb"hf_(?P<body>[A-Za-z0-9]{34,40})", _random(3.8)),
    _kind(
        "google_api_key",
        rb"AIza[A-Za-z0-9_-]{35}",
        rb"AIza(?P<body>[A-Za-z0-9_-]{35})",
        _random(3.8),
        right=rb"(?![A-Za-z0-9_-])",
    ),
    _kind(
        "aliyun_access_key_id",
        rb"LTAI[A-Za-z0-9]{12}",
        rb"LTAI(?P<body>[A-Za-z0-9]{20}|[A-Za-z0-9]{12})",
        _random(3.0),
    ),
    _kind("tencent_secret_id", rb"AKID[A-Za-z0-9]{32}", rb"AKID(?P<body>[A-Za-z0-9]{32})", _random(3.8)),
    _kind(
        "pypi_token",
        rb"pypi-AgEIcHlwaS5vcmc",
        rb"pypi-AgEIcHlwaS5vcmc(?P<body>[A-Za-z0-9_-]{50,})",
        _random(4.0),
    ),
    _kind(
        "sendgrid_key",
        rb"SG\.[A-Za-z0-9_-]{22}\.",
        rb"SG\.(?P<body>[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})",
        _random(4.0),
    ),
    _kind(
        "digitalocean_token", rb"do[opr]_v1_[a-f0-9]{64}", rb"do[opr]_v1_(?P<body>[a-f0-9]{64})", _random(3.2)
    ),
    _kind("databricks_token", rb"dapi[a-f0-9]{32}", rb"dapi(?P<body>[a-f0-9]{32})(?:-[0-9])?", _random(3.0)),
    _kind(
        "age_secret_key",
        rb"AGE-SECRET-KEY-1",
        rb"AGE-SECRET-KEY-1(?P<body>[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58})",
        _random(3.8),
    ),
    _kind(
        "azure_account_key",
        rb"AccountKey=[A-Za-z0-9+/]{86}==",
        rb"AccountKey=(?P<secret>[A-Za-z0-9+/]{86}==)",
        _random(4.5),
        left=b"",
        right=b"",
    ),
    _kind(
        "json_web_token",
        rb"eyJ[A-Za-z0-9_-]{8}",
        rb"(?P<header>eyJ[A-Za-z0-9_-]{8,1024})\.(?P<claims>eyJ[A-Za-z0-9_-]{6,16000})\.[A-Za-z0-9_-]{20,}",
        _token,
        right=b"",
    ),
    _kind(
        "private_key",
        rb"-----BEGIN (?:[A-Z]{2,9} ){0,2}PRIVATE KEY(?: BLOCK)?-----",
        rb"-----BEGIN (?:[A-Z]{2,9} ){0,2}PRIVATE KEY(?: BLOCK)?-----(?P<body>.{0,4000}?)(?=-----END|\Z)",
        _private_key,
        left=b"",
        right=b"",
    ),
)
"""Secrets that carry their issuer's prefix."""

CONNECTION = Kind(
    "connection_password",
    rb"://[^\s/:@'\"<>`?#]*:[^\s/@'\"<>`]+@[A-Za-z0-9\[]",
    re.compile(
        rb"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{1,24})://(?P<user>[^\s/:@'\"<>`?#]{0,64}):(?P<secret>[^\s/@'\"<>`]{1,96})"
        rb"@(?P<host>[A-Za-z0-9_.-]{1,255}|\[[0-9A-Fa-f:.]+\])"
    ),
    _connection,
)
"""``scheme://user:password@host``; its anchor starts after the scheme, up to 25 bytes into the form."""

_NAMED = (
    rb"(?:passw(?:or)?d|passwd|passphrase|secret|token|api[_-]?key|apikey|access[_-]?key|auth[_-]?key"
    rb"|account[_-]?key|private[_-]?key|encryption[_-]?key|signing[_-]?key|credential)"
)
_ASSIGN = rb"[A-Za-z0-9_.-]{0,24}[\"'`]?\]?[ \t]{0,4}(?::=|=>|=|:)[ \t]{0,4}[\"'`]?"

ASSIGNED: tuple[Kind, ...] = (
    Kind(
        "aws_secret_access_key",
        b"",
        re.compile(
            rb"(?i:secret_?(?:access)?_?key)[\"'`]?\]?[ \t]{0,4}(?::=|=>|=|:)[ \t]{0,4}[\"'`]?"
            rb"(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
        ),
        _aws_secret,
    ),
    Kind(
        "assigned_random_value",
        rb"(?i:" + _NAMED + _ASSIGN + rb")[A-Za-z0-9+/=_.~!@#$%^&*-]{16}",
        re.compile(
            rb"(?i:" + _NAMED + _ASSIGN + rb")"
            rb"(?P<secret>[A-Za-z0-9+/=_.~!@#$%^&*-]{16,256})(?![A-Za-z0-9+/=_.~!@#$%^&*(\[{-])"
        ),
        _assigned,
    ),
)
"""Values without a form of their own, told by the name before them; the last kind's anchor serves both."""

ANCHOR = b"|".join(dict.fromkeys(k.anchor for k in PREFIXED)) + b"|" + CONNECTION.anchor
"""First-stage pattern of everything but assigned values."""

ANY = ANCHOR + b"|(?:" + ASSIGNED[-1].anchor + b")"
"""Both: one pass says which few texts to search."""
