"""Secrets made up on the spot, so that no file of this repository holds one."""

import base64
import json
import random
import string
import zlib

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
URL_SAFE = BASE62 + "_-"
HEX = "0123456789abcdef"


def pick(rng: random.Random, alphabet: str, number: int) -> str:
    """Random, but never accidentally a word that the check takes for a placeholder's."""
    return "".join(rng.choice(alphabet) for _ in range(number))


def with_check_digits(prefix: str, rng: random.Random) -> str:
    body = pick(rng, BASE62, 30)
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, rest = divmod(number, 62)
        digits = BASE62[rest] + digits
    return prefix + body + digits


def json_web_token(rng: random.Random, header=None, claims=None) -> str:
    def part(value) -> str:
        text = json.dumps(value, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

    header = {"alg": "HS256", "typ": "JWT"} if header is None else header
    claims = {"sub": pick(rng, HEX, 12), "iat": rng.randrange(10**9)} if claims is None else claims
    return f"{part(header)}.{part(claims)}.{pick(rng, URL_SAFE, 43)}"


def private_key(_rng: random.Random) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


MAKERS = {
    "aws_access_key_id": lambda r: "AKIA" + pick(r, string.ascii_uppercase + "234567", 16),
    "github_token": lambda r: with_check_digits("gh" + r.choice("pousr") + "_", r),
    "github_fine_grained_token": lambda r: f"github_pat_{pick(r, BASE62, 22)}_{pick(r, BASE62, 59)}",
    "npm_token": lambda r: with_check_digits("npm_", r),
    "gitlab_token": lambda r: "glpat-" + pick(r, BASE62, 20),
    "slack_token": lambda r: "-".join(
        ["xoxb", pick(r, string.digits, 12), pick(r, string.digits, 12), pick(r, BASE62, 24)]
    ),
    "stripe_key": lambda r: "sk_live_" + pick(r, BASE62, 24),
    "anthropic_key": lambda r: "sk-ant-api03-" + pick(r, BASE62, 93) + "AA",
    "openai_key": lambda r: "sk-proj-" + pick(r, URL_SAFE, 74) + "T3Blbk" + "FJ" + pick(r, BASE62, 74),
    "llm_service_key": lambda r: "sk-" + pick(r, HEX, 32),
    "hugging_face_token": lambda r: "hf_" + pick(r, string.ascii_letters, 34),
    "google_api_key": lambda r: "AIza" + pick(r, BASE62, 35),
    "aliyun_access_key_id": lambda r: "LTAI5t" + pick(r, BASE62, 18),
    "json_web_token": json_web_token,
    "private_key": private_key,
    "connection_password": lambda r: f"postgresql://app:{pick(r, BASE62, 12)}@db.internal:5432/orders",
    "azure_account_key": lambda r: f"AccountKey={pick(r, BASE62, 86)}==",
    "aws_secret_access_key": lambda r: "aws_secret_access_key = " + pick(r, BASE62 + "/+", 40),
}
"""Kind -> a maker of genuine ones."""
