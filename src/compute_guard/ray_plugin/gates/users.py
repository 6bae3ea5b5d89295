"""One Unix user per tenant: ids from a range of the platform's, given out once and kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

from guard_core.errors import UserError
from guard_core.files import write_atomic

USERS_FILE = "users.json"
FIRST = "COMPUTE_GUARD_FIRST_UID"
DEFAULT_FIRST = 61_000
COUNT = 4_000
_NODE = "node:"  # no tenant's name holds a colon
"""Ids from 61000 are given to nobody by Debian's and Red Hat's tools (60000 is their highest)."""


def nobodys_id() -> int:
    """A user id of the range that is no tenant's and never will be: `doctor` tries doors with it."""
    return int(os.environ.get(FIRST, DEFAULT_FIRST))


class Users:
    """Unix user (and group) ids by tenant."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._first = nobodys_id()
        self._known: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}

    def node_group(self, node: str) -> int:
        """The group of all tenants' processes on a node: whoever may speak to its raylet and object store."""
        return self._id(_NODE + node)

    def all(self) -> dict[str, int]:
        """User ids by tenant."""
        return {name: number for name, number in self._known.items() if not name.startswith(_NODE)}

    def of(self, tenant: str) -> int:
        """The tenant's user id. Raises UserError when the range is used up."""
        return self._id(tenant)

    def _id(self, tenant: str) -> int:
        known = self._known.get(tenant)
        if known is not None:
            return known
        if len(self._known) + 1 >= COUNT:
            raise UserError(
                f"more than {COUNT} tenants and nodes had a Unix user or group; enlarge the range in {FIRST}"
            )
        self._known[tenant] = self._first + 1 + len(self._known)
        write_atomic(self._file, json.dumps(self._known, sort_keys=True).encode(), mode=0o600)
        return self._known[tenant]
