"""Tenants from an identity provider: which tokens count, and which never do."""

from __future__ import annotations

import json

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from guard_core.config import OidcSettings, load_settings
from guard_core.errors import Denied, Undecidable, UserError
from guard_core.home import Home
from guard_core.oidc import KeySet, OidcTokens
from guard_core.probes import identity

ISSUER, AUDIENCE = "https://login.example", "trainguard"


class Provider:
    """An identity provider with a key set in a file."""

    def __init__(self, file, clock):
        self.file, self.clock, self.keys = file, clock, {}
        self.rotate("first")

    def rotate(self, name):
        self.keys = {name: ec.generate_private_key(ec.SECP256R1())}
        rows = [
            {**json.loads(ECAlgorithm.to_jwk(key.public_key())), "kid": name, "alg": "ES256"}
            for name, key in self.keys.items()
        ]
        self.file.write_text(json.dumps({"keys": rows}))

    def token(self, key=None, algorithm="ES256", headers=(), **claims):
        now = int(self.clock().timestamp())
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "tenant": "acme", "exp": now + 300}
        name, own = next(iter(self.keys.items()))
        body = {k: v for k, v in {**usual, **claims}.items() if v is not None}
        return jwt.encode(
            body, own if key is None else key or None, algorithm, headers={"kid": name, **dict(headers)}
        )


@pytest.fixture
def provider(tmp_path, clock):
    return Provider(tmp_path / "jwks.json", clock)


@pytest.fixture
def tokens(provider, clock):
    return OidcTokens(settings(provider), clock)


def settings(provider, **more) -> OidcSettings:
    return OidcSettings(issuer=ISSUER, audience=AUDIENCE, jwks=str(provider.file), **more)


def test_a_token_says_tenant_and_user(tokens, provider):
    found = tokens.verify(provider.token())
    assert (found.tenant, found.user, found.roles, found.kind) == ("acme", "ada", (), "tenant")


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"aud": "another"}, "Audience"),
        ({"iss": "https://evil.example"}, "issuer"),
        ({"exp": None}, "exp"),
        ({"exp": 1}, "expired"),
        ({"nbf": 1 << 40}, "not valid yet"),
        ({"tenant": None}, "names no tenant"),
        ({"tenant": "../acme"}, "names no tenant"),
        ({"tenant": ["acme"]}, "names no tenant"),
        ({"sub": " "}, "names no user"),
    ],
)
def test_a_wrong_claim_is_named(tokens, provider, claims, words):
    with pytest.raises(Denied, match=words):
        tokens.verify(provider.token(**claims))


def test_a_foreign_key_under_a_known_name_does_not_count(tokens, provider):
    with pytest.raises(Denied, match="Signature"):
        tokens.verify(provider.token(key=ec.generate_private_key(ec.SECP256R1())))


def test_no_signature_and_the_public_key_as_a_secret_do_not_count(tokens, provider):
    public = next(iter(provider.keys.values())).public_key()
    secret = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    ).hex()
    for forged in (provider.token(key=secret, algorithm="HS256"), provider.token(key="", algorithm="none")):
        with pytest.raises(Denied, match="algorithm"):
            tokens.verify(forged)


def test_keys_rotate_without_a_restart(tokens, provider):
    old = provider.token()
    tokens.verify(old)
    provider.rotate("second")
    assert tokens.verify(provider.token()).tenant == "acme"
    with pytest.raises(Denied, match="'first'"):
        tokens.verify(old)


def test_the_clock_that_counts_is_ours(tokens, provider, clock):
    token = provider.token()
    clock.advance(seconds=400)
    with pytest.raises(Denied, match="expired"):
        tokens.verify(token)


def test_tenants_are_mapped_and_only_the_named_role_makes_an_admin(provider, clock):
    rules = settings(provider, tenant_map={"cn=acme": "acme"}, roles_claim="groups", admin_role="ml-platform")
    tokens = OidcTokens(rules, clock)
    claimed = tokens.verify(provider.token(tenant="cn=acme", groups=["platform-admin", "curator"]))
    assert claimed.tenant == "acme"
    assert claimed.roles == ("curator",)
    assert tokens.verify(provider.token(groups=["ml-platform"])).is_platform_admin


def test_a_key_set_that_cannot_be_read_is_no_decision(provider, clock):
    provider.file.write_text("no keys")
    with pytest.raises(Undecidable, match="key set"):
        OidcTokens(settings(provider), clock).verify(provider.token())


def test_doctor_tells_the_keys_of_the_provider_and_what_is_wrong_with_them(provider, home_dir):
    def found(oidc: OidcSettings) -> tuple[str, str]:
        (one,) = identity(load_settings(home=home_dir, oidc=oidc))
        return one.status, one.message

    assert found(settings(provider)) == ("ok", f"{ISSUER}: 1 key at {provider.file}")
    provider.file.unlink()
    status, message = found(settings(provider))
    assert (status, "cannot be" in message) == ("broken", True)
    assert list(identity(load_settings(home=home_dir))) == []


def test_a_key_set_over_plain_http_is_refused():
    with pytest.raises(UserError, match="https"):
        KeySet("http://login.example/jwks")


def test_a_home_takes_both_kinds_of_credential(home_dir, provider, clock, monkeypatch):
    for name in ("issuer", "audience", "jwks"):
        monkeypatch.setenv(f"TRAINGUARD_OIDC_{name.upper()}", str(getattr(settings(provider), name)))
    with Home.open(load_settings(home=home_dir), clock=clock) as home:
        assert home.credentials.verify(provider.token()).tenant == "acme"
        assert home.credentials.verify(home.credentials.issue(tenant="beta", user="b")).tenant == "beta"


def test_without_a_provider_such_a_token_is_nobodys(home, provider):
    with pytest.raises(Denied, match="not known here"):
        home.credentials.verify(provider.token())
