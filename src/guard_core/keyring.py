"""Which public keys verify, and for what time: the keyring of a home.

``<home>/keys/keyring.json`` says when each key came, when it was retired and whether it was revoked. A public
key beside it that the file does not name is trusted without limits, as before there was a file.

* A *retired* key signs no more: what it signed until then stays valid, by the time in the signed content.
* A *revoked* key is not believed about anything, whenever it says it signed: who has the key can write any
  time into what he signs. What it signed must be endorsed with another key, or made again.

The times in a signature are its signer's word. For records of datasets the hash-chained audit log is the
second witness (``dataset endorse`` asks it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from guard_core.errors import Tampered, UserError
from guard_core.files import locked, write_atomic

FILE = "keyring.json"
FORMAT = "trainguard.keyring/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatus:
    """The life of one key; times are RFC 3339, None for what did not happen."""

    added_at: str | None = None
    retired_at: str | None = None
    revoked_at: str | None = None
    reason: str | None = None

    @property
    def state(self) -> str:
        """``active``, ``retired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.retired_at is None else "retired"


UNKNOWN = KeyStatus()
"""Of a key that the file does not name."""


def load(folder: Path) -> dict[str, KeyStatus]:
    """{key id: status}; empty without a file. Raises Tampered when the file cannot be believed."""
    path = folder / FILE
    try:
        value = json.loads(path.read_bytes())
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']!r}")
        return {key_id: KeyStatus(**status) for key_id, status in value["keys"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Tampered(f"{path} cannot be read as a keyring ({error}); restore it from a backup") from None


def change(folder: Path, key_id: str, **changes: str | None) -> KeyStatus:
    """Note ``changes`` of one key, atomically. Raises Tampered, OSError."""
    with locked(folder / ".keyring.lock"):
        known = load(folder)
        known[key_id] = replace(known.get(key_id, UNKNOWN), **changes)
        _write(folder, known)
        return known[key_id]


def _write(folder: Path, keys: Mapping[str, KeyStatus]) -> None:
    document = {"format": FORMAT, "keys": {key_id: asdict(keys[key_id]) for key_id in sorted(keys)}}
    write_atomic(folder / FILE, json.dumps(document, indent=1).encode() + b"\n")


def resolve(key_ids: Mapping[str, object], text: str) -> str:
    """The one key id that begins with ``text``. Raises UserError for none or several."""
    found = [key_id for key_id in key_ids if key_id.startswith(text.lower())]
    if len(text) < 6 or len(found) != 1:
        known = ", ".join(key_id[:16] for key_id in sorted(key_ids)) or "none"
        raise UserError(f"{text!r} does not name one key (give six digits or more; known: {known})")
    return found[0]


def refuse_late(status: KeyStatus, key_id: str, moment: datetime) -> None:
    """Raise Tampered when something signed at ``moment`` by this key was signed after the key's time."""
    if status.retired_at is not None and moment > datetime.fromisoformat(status.retired_at):
        raise Tampered(
            f"signed by key {key_id[:16]} at {moment:%Y-%m-%d %H:%M}Z, after it was retired "
            f"({status.retired_at}); sign it again with a key in use"
        )
