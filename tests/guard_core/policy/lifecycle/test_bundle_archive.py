"""Signed bundles: one tarball, read by our loader and by the real OPA, refused alike when it was touched."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from guard_core.errors import Tampered, UserError
from guard_core.policy.bundle import load_bundle, make_bundle, shipped_policies
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.lifecycle.bundle_archive import (
    build_archive,
    open_archive,
    read_archive,
    write_archive,
)
from guard_core.policy.lifecycle.bundle_signature import (
    PRIVATE_KEY,
    SIGNATURES,
    BundleKey,
    BundleVerifier,
    file_hash,
)

SMALL = make_bundle(
    {"guard/t/t.rego": "package guard.t\n\ndecision := data.guard.config.words\n"},
    {"words": {"text": "<&> \u2028 é \U0001f600 \x7f \b\f\n\t\u0001", "numbers": [0, -1, 2**53 - 1]}},
    tests={"guard/t/t_test.rego": "package guard.t_test\n"},
)


def unpacked(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_a_bundle_comes_back_as_it_was_without_its_tests(key: BundleKey, verifier: BundleVerifier) -> None:
    bundle = load_bundle(shipped_policies())
    read = open_archive(build_archive(bundle, sequence=7, key=key), verifier)
    assert (read.bundle.revision, read.sequence, read.key_id) == (bundle.revision, 7, key.key_id)
    assert read.bundle.modules == bundle.modules
    assert dict(read.bundle.config) == dict(bundle.config)
    assert json.loads(read.bundle.data_json) == json.loads(bundle.data_json)
    assert not read.bundle.tests


def test_the_same_content_gives_the_same_bytes(key: BundleKey) -> None:
    assert build_archive(SMALL, sequence=1, key=key) == build_archive(SMALL, sequence=1, key=key)


def test_every_file_hashes_as_opa_sign_hashes_it(opa: str, key: BundleKey, tmp_path: Path) -> None:
    files = unpacked(build_archive(SMALL, sequence=1, key=key))
    mine = {name: file_hash(name, content) for name, content in files.items() if name != SIGNATURES}
    folder = tmp_path / "b"
    for name in mine:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(files[name])
    secret = tmp_path / "k.pem"
    secret.write_bytes(_pem(key.private))
    subprocess.run(
        [opa, "sign", "--signing-key", secret, "--bundle", ".", "--output-file-path", tmp_path],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    token = json.loads((tmp_path / SIGNATURES).read_text())["signatures"][0]
    opas = {f["name"]: f["hash"] for f in _claims(token)["files"]}
    assert mine == opas


def test_what_opa_signed_our_loader_accepts(
    opa: str, key: BundleKey, verifier: BundleVerifier, tmp_path: Path
) -> None:
    files = unpacked(build_archive(SMALL, sequence=3, key=key))
    files.pop(SIGNATURES)
    for name, content in files.items():
        (tmp_path / "b" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "b" / name).write_bytes(content)
    (tmp_path / "k.pem").write_bytes(_pem(key.private))
    subprocess.run(
        [opa, "sign", "--signing-key", tmp_path / "k.pem", "--bundle", ".", "--output-file-path", tmp_path],
        cwd=tmp_path / "b", check=True, capture_output=True,
    )  # fmt: skip
    files[SIGNATURES] = (tmp_path / SIGNATURES).read_bytes()
    assert open_archive(packed(files), verifier).sequence == 3


def questions() -> list[tuple[str, dict[str, Any]]]:
    fact = {
        "ref": "acme/digits@1", "exists": True, "tenant": "acme", "name": "digits", "version": 1,
        "verdict": "allow", "signed": True, "record_ok": True, "shared_with": [], "tampered": False,
    }  # fmt: skip
    principal = {"tenant": "acme", "user": "ann", "roles": [], "kind": "tenant", "datasets": []}
    found: list[tuple[str, dict[str, Any]]] = []
    for change in ({}, {"tenant": "beta"}, {"verdict": "quarantine"}, {"signed": False}, {"exists": False}):
        for tenant in ("acme", "beta", "nobody"):
            question = {
                "dataset": {**fact, **change}, "purpose": "train", "workload": None,
                "now_ns": 1_800_000_000_000_000_000, "principal": {**principal, "tenant": tenant},
            }  # fmt: skip
            found.append(("guard/dataset/use/decision", question))
    return found


@pytest.mark.opa
def test_opa_serves_the_very_tarball_with_its_key_and_answers_like_the_embedded_engine(
    opa_server: Callable[..., Any], keys: Path, key: BundleKey, verifier: BundleVerifier, tmp_path: Path
) -> None:
    tarball = tmp_path / "bundle.tar.gz"
    write_archive(tarball, load_bundle(shipped_policies()), sequence=1, key=key)
    server = opa_server(tarball, "--verification-key", str(key.public_file(keys)))
    embedded = EmbeddedEngine(read_archive(tarball, verifier).bundle)
    answers = set()
    for path, question in questions():
        served = _ask(server.url, path, question)
        assert served == embedded.evaluate(path, question).value
        answers.add(served["allow"])
    assert answers == {True, False}


@pytest.mark.opa
@pytest.mark.parametrize(
    "made", [ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()]
)
def test_an_admins_own_ec_or_ed25519_key_signs_for_both(
    made: Any, opa_server: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / PRIVATE_KEY).touch(mode=0o600)
    (folder / PRIVATE_KEY).write_bytes(_pem(made))
    own = BundleKey.open(folder)
    tarball = tmp_path / "bundle.tar.gz"
    write_archive(tarball, SMALL, sequence=1, key=own)
    algorithm = "ES256" if isinstance(made, ec.EllipticCurvePrivateKey) else "EdDSA"
    options = ("--verification-key", str(own.public_file(folder)), "--signing-alg", algorithm)
    server = opa_server(tarball, *options)
    ours = EmbeddedEngine(read_archive(tarball, BundleVerifier.of(folder)).bundle)
    assert _ask(server.url, "guard/t/decision", {}) == ours.evaluate("guard/t/decision", {}).value


def _changed(files: dict[str, bytes]) -> dict[str, bytes]:
    return {**files, "guard/t/t.rego": b'package guard.t\n\ndecision := {"allow": true}\n'}


def _added(files: dict[str, bytes]) -> dict[str, bytes]:
    return {**files, "guard/t/more.rego": b"package guard.t\n"}


def _dropped(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name != "guard/config/words/data.json"}


def _unsigned(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name != SIGNATURES}


def _doubled(files: dict[str, bytes]) -> dict[str, bytes]:
    """A key twice: readers that take the last one see what was signed, readers that take the first do not."""
    name = "guard/config/words/data.json"
    return {**files, name: files[name].replace(b'{"numbers"', b'{"numbers":[7],"numbers"')}


def _renumbered(files: dict[str, bytes]) -> dict[str, bytes]:
    manifest = json.loads(files[".manifest"])
    manifest["metadata"]["trainguard"]["sequence"] = 99
    return {**files, ".manifest": json.dumps(manifest).encode()}


REFUSALS = [
    (_changed, r"guard/t/t.rego was changed after signing"),
    (_added, r"guard/t/more.rego was added after signing"),
    (_dropped, r"guard/config/words/data.json was signed but is missing"),
    (_unsigned, r"it is not signed"),
    (_renumbered, r"\.manifest was changed after signing"),
]


@pytest.mark.parametrize(("touch", "reason"), REFUSALS, ids=[t.__name__[1:] for t, _ in REFUSALS])
def test_a_touched_bundle_is_refused_in_one_sentence(
    touch: Callable[[dict[str, bytes]], dict[str, bytes]],
    reason: str,
    key: BundleKey,
    verifier: BundleVerifier,
    tmp_path: Path,
) -> None:
    tarball = tmp_path / "bundle.tar.gz"
    tarball.write_bytes(packed(touch(unpacked(build_archive(SMALL, sequence=1, key=key)))))
    with pytest.raises(Tampered, match=reason) as refused:
        read_archive(tarball, verifier)
    assert str(refused.value).startswith(f"the bundle {tarball} is refused: ")
    assert "\n" not in str(refused.value)


@pytest.mark.opa
@pytest.mark.parametrize("touch", [t for t, _ in REFUSALS], ids=[t.__name__[1:] for t, _ in REFUSALS])
def test_opa_refuses_what_our_loader_refuses(
    touch: Callable[[dict[str, bytes]], dict[str, bytes]],
    opa: str,
    keys: Path,
    key: BundleKey,
    tmp_path: Path,
) -> None:
    tarball = tmp_path / "bundle.tar.gz"
    tarball.write_bytes(packed(touch(unpacked(build_archive(SMALL, sequence=1, key=key)))))
    done = subprocess.run(
        [opa, "run", "--server", "--skip-version-check", "--addr", "127.0.0.1:0", "--bundle", tarball,
         "--verification-key", key.public_file(keys)],
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0


def test_data_with_a_key_twice_is_refused(key: BundleKey, verifier: BundleVerifier) -> None:
    with pytest.raises(Tampered, match="is not the JSON document that was signed"):
        open_archive(packed(_doubled(unpacked(build_archive(SMALL, sequence=1, key=key)))), verifier)


def test_a_bundle_cut_anywhere_is_refused(key: BundleKey, verifier: BundleVerifier) -> None:
    whole = build_archive(SMALL, sequence=1, key=key)
    for length in [0, 1, 17, *range(40, len(whole) - 1, 97), len(whole) - 1]:
        with pytest.raises(Tampered, match="cut short"):
            open_archive(whole[:length], verifier)


def test_no_flipped_byte_gets_in(key: BundleKey, verifier: BundleVerifier) -> None:
    whole = gzip.decompress(build_archive(SMALL, sequence=1, key=key))
    for at in range(0, len(whole), 61):
        touched = bytearray(whole)
        touched[at] ^= 0x01
        try:
            read = open_archive(gzip.compress(bytes(touched), 1), verifier)
        except Tampered:
            continue
        # What still opens was touched in tar's own padding or times only: the content is what was signed.
        assert (read.bundle.revision, read.sequence) == (SMALL.revision, 1)


def test_another_persons_key_is_not_trusted(key: BundleKey, tmp_path: Path) -> None:
    stranger = BundleKey.open(tmp_path / "stranger")
    assert stranger.key_id != key.key_id
    with pytest.raises(Tampered, match="not signed by a key trusted here"):
        open_archive(build_archive(SMALL, sequence=1, key=key), BundleVerifier.of(tmp_path / "stranger"))


def test_a_token_cannot_choose_its_own_algorithm(
    key: BundleKey, keys: Path, verifier: BundleVerifier
) -> None:
    """The classic attack: HS256 with the public key as the secret, or no signature at all."""
    import base64
    import hashlib
    import hmac

    files = unpacked(build_archive(SMALL, sequence=1, key=key))
    body = json.loads(files[SIGNATURES])["signatures"][0].split(".")[1]
    public = key.public_file(keys).read_bytes()
    for header in ({"alg": "HS256"}, {"alg": "none"}):
        head = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
        mac = hmac.new(public, f"{head}.{body}".encode(), hashlib.sha256).digest()
        forged = base64.urlsafe_b64encode(mac).rstrip(b"=").decode() if header["alg"] == "HS256" else ""
        files[SIGNATURES] = json.dumps({"signatures": [f"{head}.{body}.{forged}"]}).encode()
        with pytest.raises(Tampered, match="not signed by a key trusted here"):
            open_archive(packed(files), verifier)


def test_a_short_or_odd_key_is_refused_by_name(tmp_path: Path) -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    file = tmp_path / "short.pub.pem"
    file.write_bytes(
        short.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    with pytest.raises(UserError, match=r"short\.pub\.pem .* 1024 bits"):
        BundleVerifier.of(tmp_path)


def test_a_link_or_a_way_out_of_the_bundle_is_refused(verifier: BundleVerifier) -> None:
    for name, kind in (("guard/x.rego", tarfile.SYMTYPE), ("guard/../../x.rego", tarfile.REGTYPE)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/hostname"
            tar.addfile(member, io.BytesIO(b""))
        with pytest.raises(Tampered, match="link"):
            open_archive(buffer.getvalue(), verifier)


def _ask(url: str, path: str, question: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{url}/v1/data/{path}?strict-builtin-errors=true",
        data=json.dumps({"input": question}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)["result"]


def _claims(token: str) -> dict[str, Any]:
    import base64

    body = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=="))
    return claims


def _pem(private: Any) -> bytes:
    pem: bytes = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem
