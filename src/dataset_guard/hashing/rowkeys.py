"""Each tenant's secret for row hashes: ``<home>/keys/<tenant>.rowkey``, 32 random bytes as hex, mode 0600.

Losing it means that sidecars written with it can no longer be compared with new data (registered versions
stay verifiable: leaves need no key).
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from guard_core.errors import UserError
from guard_core.files import write_atomic

if TYPE_CHECKING:
    from guard_core.home import Home


def tenant_row_key(home: Home, tenant: str) -> bytes:
    """The tenant's 32-byte key, made at first use. Raises UserError when its file cannot be used."""
    path = home.path("keys", f"{tenant}.rowkey")
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with suppress(FileExistsError):  # another process was first
                write_atomic(path, secrets.token_hex(32).encode() + b"\n", mode=0o600, exclusive=True)
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise UserError(f"the row key {path} cannot be used ({error}); restore it from a backup") from error
    if len(key) != 32:
        raise UserError(f"the row key {path} has {len(key)} bytes instead of 32; restore it from a backup")
    return key
