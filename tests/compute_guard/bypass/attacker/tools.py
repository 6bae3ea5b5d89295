"""An attacker's tools: raw gRPC with any token, processes, and a note of what came of each attempt."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import grpc

FACTS = json.loads(Path("facts.json").read_text())
TOKEN = os.environ.get("RAY_AUTH_TOKEN", "")
ATTACKS: dict[str, Callable[[], str]] = {}


class Succeeded(Exception):
    """The attempt did what it should not have done."""


def attack(run: Callable[[], str]) -> Callable[[], str]:
    """An attempt: returns how it was stopped, raises Succeeded when it was not."""
    ATTACKS[run.__name__] = run
    return run


def run_all() -> dict[str, list]:
    results = {}
    for name, run in ATTACKS.items():
        begun = time.monotonic()
        try:
            verdict, text = "held", str(run())
        except Succeeded as error:
            verdict, text = "succeeded", str(error)
        except Exception:
            verdict, text = "error", traceback.format_exc()[-600:]
        results[name] = [verdict, text[:400], round(time.monotonic() - begun, 2)]
        print(name, *results[name], flush=True)
    return results


def call(
    address: str, method: str, request: bytes = b"", token: str | None = None, seconds: float = 8
) -> bytes:
    """One raw unary call. Raises grpc.RpcError."""
    metadata = [] if token == "" else [("authorization", f"Bearer {token or TOKEN}")]
    with grpc.insecure_channel(address) as channel:
        return channel.unary_unary("/ray.rpc." + method)(request, metadata=metadata, timeout=seconds)


def must_be_refused(address: str, method: str, request=None, token: str | None = None, codes=()) -> str:
    """The refusal of a raw call; Succeeded when it was answered."""
    raw = request if isinstance(request, bytes) else b"" if request is None else request.SerializeToString()
    try:
        reply = call(address, method, raw, token)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE and "refused" in (error.details() or ""):
            return "nobody listens"
        allowed = codes or (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
        if error.code() not in allowed:
            raise
        return f"{error.code().name}: {error.details()}"
    raise Succeeded(f"{method} was answered: {reply[:120]!r}")


def gate() -> str:
    return os.environ["RAY_ADDRESS"]
