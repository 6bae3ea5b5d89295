"""The token authority: answers Ray's token reviews in place of a Kubernetes API server.

With ``RAY_ENABLE_K8S_TOKEN_AUTH`` every process of Ray, before it accepts a caller, asks for a TokenReview
(whose token is this?) and a SubjectAccessReview (may that user reach the Ray cluster called
``RAY_CLUSTER_NAME``?); it believes a yes for 300 s. Each process has a cluster name of its own choosing
here, its *domain*: ``system`` for Ray's own processes, ``tenant-<name>`` for a tenant's workers. The system
reaches every domain, a tenant its own.

The same server answers jobs that read registered data without seeing the home (:mod:`.reads`): it is the one
place beside the home that all their processes reach and whose certificate they have.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from compute_guard.ray_plugin.gates.identity import tenant_of
from compute_guard.ray_plugin.gates.reads import PATH, Reads
from compute_guard.ray_plugin.gates.wire import Refusal
from guard_core.files import write_atomic

SYSTEM = "system"
REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
CA_FILE = "ca.crt"
_CERT, _KEY = "authority.crt", "authority.key"
AUTHORITY_FILES = (CA_FILE, _CERT, _KEY)
_DAYS = 3650
_REVIEW_BYTES = 64 * 1024
_READ_BYTES = 16 << 20
"""Of one question of a job: the counts of some 50,000 read tasks."""


def domain_of(tenant: str) -> str:
    """The ``RAY_CLUSTER_NAME`` of a tenant's processes."""
    return f"tenant-{tenant}"


def review(body: Mapping[str, Any], system: str, tenants: Mapping[str, str]) -> dict[str, Any]:
    """The answer to a TokenReview."""
    try:
        tenant = tenant_of(str(body["spec"]["token"]), system, tenants)
    except (Refusal, KeyError, TypeError):
        status: dict[str, Any] = {"authenticated": False}
    else:
        status = {
            "authenticated": True,
            "user": {"username": SYSTEM if tenant is None else domain_of(tenant)},
        }
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}


def access(body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a SubjectAccessReview."""
    try:
        user, name = str(body["spec"]["user"]), str(body["spec"]["resourceAttributes"]["name"])
        allowed = user == SYSTEM or (user.startswith(domain_of("")) and user == name)
    except (KeyError, TypeError):
        allowed = False
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "status": {"allowed": allowed},
    }


class Authority:
    """An HTTPS server with a certificate of its own CA, both in ``folder``."""

    def __init__(
        self,
        folder: Path,
        system: Callable[[], str],
        tenants: Callable[[], Mapping[str, str]],
        reads: Reads,
    ) -> None:
        self._folder = folder
        self._system = system
        self._tenants = tenants
        self._reads = reads
        self._runner: Any = None

    async def start(self, host: str, port: int) -> None:
        """Serve. Raises OSError when the port is taken."""
        from aiohttp import web

        app = web.Application(client_max_size=_READ_BYTES)
        app.router.add_post(REVIEWS, self._review)
        app.router.add_post(ACCESS, self._access)
        app.router.add_post(PATH + "/{operation}", self._read)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        make_certificate(self._folder, host)
        context.load_cert_chain(self._folder / _CERT, self._folder / _KEY)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=context).start()

    async def _review(self, request: Any) -> Any:
        from aiohttp import web

        body = await _small(request)
        return web.json_response(review(body, self._system(), self._tenants()), status=201)

    async def _access(self, request: Any) -> Any:
        from aiohttp import web

        return web.json_response(access(await _small(request)), status=201)

    async def _read(self, request: Any) -> Any:
        from aiohttp import web

        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            reader = await self._reads.reader(token)  # before a long body is taken in
        except Refusal as no:
            return web.json_response({"error": "denied", "message": no.text, "decision_id": ""}, status=401)
        operation = request.match_info["operation"]
        status, found = await self._reads.answer(reader, operation, await request.json())
        return web.FileResponse(found) if isinstance(found, Path) else web.json_response(found, status=status)


async def _small(request: Any) -> Any:
    """The JSON of a short body; anybody at all may send one."""
    from aiohttp import web

    raw = bytearray()
    async for chunk in request.content.iter_any():
        raw += chunk
        if len(raw) > _REVIEW_BYTES:
            raise web.HTTPRequestEntityTooLarge(max_size=_REVIEW_BYTES, actual_size=len(raw))
    return json.loads(raw)


def make_certificate(folder: Path, host: str) -> None:
    """Make the CA and the server's certificate for ``host``, unless they are there."""
    if (folder / _CERT).exists() and (folder / CA_FILE).exists():
        return
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)

    def named(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    def unsigned(common: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(named(common))
            .issuer_name(named("TrainGuard token authority"))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + dt.timedelta(days=_DAYS))
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = (
        unsigned("TrainGuard token authority", ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    certificate = (
        unsigned(host, key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_atomic(folder / _KEY, private, mode=0o600)
    write_atomic(folder / CA_FILE, ca.public_bytes(pem), mode=0o644)
    write_atomic(folder / _CERT, certificate.public_bytes(pem), mode=0o644)
