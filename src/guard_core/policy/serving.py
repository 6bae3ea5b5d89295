"""The command line of an OPA server that serves one bundle, and nothing it should not."""

from __future__ import annotations

import hashlib
import json
import shutil
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from guard_core.config import Settings
from guard_core.errors import UserError
from guard_core.files import write_atomic
from guard_core.policy.bundle import Bundle, write_bundle
from guard_core.policy.server import token_from

_AUTHORISATION = """package system.authz

default allow := false

# Health says nothing about policy or data.
allow if {
	input.method == "GET"
	input.path == ["health"]
}

# One kind of request: a question about a rule of the bundle, with the token.
allow if {
	input.method == "POST"
	array.slice(input.path, 0, 3) == ["v1", "data", "guard"]
	crypto.sha256(input.identity) == data.system.trainguard.token_sha256
}
"""


def server_command(settings: Settings, bundle: Bundle, opa: str) -> list[str]:
    """Write the bundle below the home and return the command that serves it at ``policy.server_url``.

    Raises UserError when the address is reachable from other machines and no token protects it.
    """
    parts = urlsplit(settings.policy.server_url)
    host = parts.hostname or ""
    token = token_from(settings.policy.server_token_file)
    if parts.scheme != "http":
        raise UserError("serve-opa serves plain http; put a TLS proxy before it, or run opa yourself")
    if token is None and not _loopback(host):
        raise UserError(
            f"{host} is reachable from other machines; set policy.server_token_file, or serve on 127.0.0.1"
        )
    folder = settings.home / "opa"
    directory = folder / bundle.revision.replace(":", "-")
    if not directory.is_dir():
        write_bundle(bundle, directory)
    address = f"[{host}]" if ":" in host else host
    command = [
        str(shutil.which(opa) or opa),
        "run",
        "--server",
        "--skip-version-check",
        "--log-level=error",
        f"--addr={address}:{parts.port or 80}",
    ]
    if token is None:
        return [*command, "--bundle", str(directory)]
    guarded = ["--authentication=token", "--authorization=basic"]
    return [*command, *guarded, "--bundle", str(directory), str(_authorisation(folder, token))]


def _authorisation(folder: Path, token: str) -> Path:
    """A second bundle, for OPA's own door. It holds the token's digest, not the token."""
    directory = folder / "authorisation"
    directory.mkdir(mode=0o700, exist_ok=True)
    digest = hashlib.sha256(token.encode()).hexdigest()
    data = {"system": {"trainguard": {"token_sha256": digest}}}
    manifest = {"revision": "", "roots": ["system"], "rego_version": 1}
    write_atomic(directory / "authorisation.rego", _AUTHORISATION.encode(), mode=0o600)
    write_atomic(directory / "data.json", json.dumps(data).encode(), mode=0o600)
    write_atomic(directory / ".manifest", json.dumps(manifest).encode(), mode=0o600)
    return directory


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
