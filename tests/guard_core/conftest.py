"""Running code in real processes of its own; certificates for servers that want to know who asks."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@pytest.fixture
def start_python() -> Callable[[str], subprocess.Popen[str]]:
    """Start a script in a new interpreter; its stdout is a pipe."""

    def start(script: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
        )

    return start


@pytest.fixture
def run_python() -> Callable[[str], str]:
    """Run a script in a new interpreter to its good end; returns what it printed."""

    def run(script: str) -> str:
        command = [sys.executable, "-c", textwrap.dedent(script)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """An authority, a server's and a client's certificate, and a client certificate of nobody's authority."""
    now = datetime.now(UTC)

    def key_of(name: str) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (tmp_path / f"{name}.key").write_bytes(pem)
        return key

    def issue(name: str, issuer: str, signer: ec.EllipticCurvePrivateKey | None = None) -> Any:
        key = key_of(name)
        built = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key((signer or key).public_key()),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(signer or key, hashes.SHA256())
        )
        (tmp_path / f"{name}.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
        return key

    authority = issue("authority", "authority")
    issue("server", "authority", authority)
    issue("client", "authority", authority)
    issue("stranger", "stranger")
    return tmp_path
