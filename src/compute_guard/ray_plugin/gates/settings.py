"""What a gate process is told: one JSON file, written by `compute up` or the start hook, 0600."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from guard_core.errors import UserError
from guard_core.files import write_atomic

Profile = Literal["gate", "hardened"]


class _Stored:
    __slots__ = ()

    def save(self, file: Path) -> None:
        """Write atomically, for this user only."""
        write_atomic(file, json.dumps(asdict(self), indent=1).encode(), mode=0o600)  # type: ignore[call-overload]

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read. Raises UserError naming the file."""
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{file} cannot be read ({error}); start the cluster again") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadConfig(_Stored):
    """``gcs`` is host:port of the real GCS; ``folder`` keeps jobs, tokens and certificates."""

    profile: Profile
    gcs: str
    host: str
    port: int
    link_port: int
    authority_port: int
    token_file: str
    folder: str

    @property
    def listens(self) -> str:
        """host:port of the gateway."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig(_Stored):
    """``head`` is host:port of the head's link; ``port`` the gate's own, ``raylet_port`` the raylet's."""

    profile: Profile
    head: str
    address: str
    port: int
    raylet_port: int
    pool: str
    token_file: str
    folder: str

    @property
    def listens(self) -> str:
        """host:port of the lease gate."""
        return f"{self.address}:{self.port}"
