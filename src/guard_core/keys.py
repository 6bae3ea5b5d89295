"""Changing a home's keys: rotate, retire, revoke, trust. Each step is an audit event.

Order matters. The event that a key goes is written before the keyring says so, by the key that stays: its
signature covers the whole audit log up to there, so nothing that must be believed still hangs on the key
that goes. The policy store's state is signed again for the same reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard_core import keyring
from guard_core.attestation import PRIVATE_KEY, Signer, Verifier, algorithm_of, new_private_key
from guard_core.clock import rfc3339
from guard_core.errors import UserError
from guard_core.files import locked, write_atomic
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.identity import Principal


def listed(home: Home) -> list[dict[str, Any]]:
    """Every public key: ``{key_id, algorithm, state, signing, added_at, retired_at, revoked_at, reason}``."""
    signing = home.signer.key_id
    verifier = home.signer.verifier
    found = []
    for key_id in sorted(verifier.keys, key=lambda k: (k != signing, verifier.status(k).added_at or "", k)):
        status = verifier.status(key_id)
        found.append(
            {
                "key_id": key_id,
                "algorithm": algorithm_of(verifier.keys[key_id]),
                "state": status.state,
                "signing": key_id == signing,
                "added_at": status.added_at,
                "retired_at": status.retired_at,
                "revoked_at": status.revoked_at,
                "reason": status.reason,
            }
        )
    return found


def rotate(home: Home, *, by: Principal, algorithm: str = "ed25519") -> tuple[str, str]:
    """Make a new signing key and retire the one in use; returns (old key id, new key id).

    The old private key is gone afterwards. Raises UserError when the key is given from outside.
    """
    if home.settings.signing_key is not None or home.settings.signing_key_pem is not None:
        raise UserError(
            "TRAINGUARD_SIGNING_KEY gives the signing key, so it cannot be rotated here; give a new one "
            "there, then run: trainguard keys retire OLD"
        )
    folder = home.path("keys")
    old = home.signer.key_id
    with locked(folder / ".lock"):
        pem = new_private_key(algorithm)
        write_atomic(folder / PRIVATE_KEY, pem, mode=0o600)
    new = home.signer.key_id  # the file has changed, so it is the new one
    now = rfc3339(home.clock())
    keyring.change(folder, new, added_at=now)
    _record(home, "key.rotated", new, by, {"old": old, "new": new, "algorithm": algorithm})
    _sign_policy_state_again(home)
    keyring.change(folder, old, retired_at=now)
    return old, new


def retire(home: Home, key: str, *, by: Principal) -> str:
    """End the time of a key that does not sign here; returns its id. Raises UserError."""
    key_id = _other(home, key, "retire")
    _record(home, "key.retired", key_id, by, {"key": key_id})
    _sign_policy_state_again(home)
    keyring.change(home.path("keys"), key_id, retired_at=rfc3339(home.clock()))
    return key_id


def revoke(home: Home, key: str, *, reason: str, by: Principal) -> str:
    """Believe nothing any more that this key signed; returns its id. Raises UserError for the key in use."""
    key_id = _other(home, key, "revoke")
    _record(home, "key.revoked", key_id, by, {"key": key_id, "reason": reason})
    _sign_policy_state_again(home)
    keyring.change(home.path("keys"), key_id, revoked_at=rfc3339(home.clock()), reason=reason)
    return key_id


def trust(home: Home, file: Path, *, by: Principal) -> str:
    """Believe what the public key in ``file`` signs; returns its id. Raises UserError for a revoked one."""
    [(key_id, _)] = Verifier.of(file).keys.items()
    folder = home.path("keys")
    status = home.signer.verifier.status(key_id)
    if status.state == "revoked":
        raise UserError(f"key {key_id[:16]} was revoked ({status.reason}); a revoked key stays so")
    _record(home, "key.trusted", key_id, by, {"key": key_id})
    write_atomic(folder / f"{key_id[:16]}.pub.pem", file.read_bytes())
    keyring.change(folder, key_id, added_at=rfc3339(home.clock()))
    return key_id


def _other(home: Home, key: str, what: str) -> str:
    signer: Signer = home.signer
    key_id = keyring.resolve(signer.verifier.keys, key)
    if key_id == signer.key_id:
        raise UserError(f"key {key_id[:16]} signs now; run trainguard keys rotate first, then {what} it")
    return key_id


def _sign_policy_state_again(home: Home) -> None:
    from guard_core.policy.lifecycle.opening import store_of

    store_of(home).sign_again()


def _record(home: Home, kind: str, subject: str, by: Principal, data: dict[str, Any]) -> None:
    who = {"by": f"{by.tenant}/{by.user}", "by_credential_id": by.credential_id}
    home.audit.event(kind, subject=subject, data={**data, **who}, enforcement=Enforcement.COOPERATIVE)
