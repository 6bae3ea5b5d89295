"""The signed tree head: how many records there are, and what they hash to, said by the home's key.

Kept beside the log as ``head.json`` (a DSSE envelope) and replaced at every append, after the records are
on disk. A log shorter than its head was cut; a head without its log was robbed. A log longer than its head
was interrupted between the two writes, or records were appended by someone without the key: the next append
records which numbers were unsigned (``audit.recovered``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guard_core.attestation import Signer, Verifier
from guard_core.audit.merkle import Frontier
from guard_core.audit.record import GENESIS
from guard_core.errors import Tampered

HEAD_FILE = "head.json"
ANCHOR_FILE = "audit.anchor"
"""Lies among the keys, not in the log's folder: says that a log was begun, so that none at all is noticed."""
HEAD_TYPE = "application/vnd.trainguard.audit-head+json"


@dataclass(frozen=True, slots=True)
class Head:
    """The state of a log after ``size`` records.

    ``genesis`` is the hash of record 0 (it tells logs apart), ``last`` the hash of the last record, ``root``
    and ``peaks`` the Merkle tree (hex), ``segment`` and ``offset`` where the next record goes.
    """

    size: int
    genesis: str
    last: str
    root: str
    peaks: tuple[str, ...]
    segment: str
    offset: int
    timestamp: str

    @classmethod
    def empty(cls, timestamp: str) -> Head:
        """Head of a log without records."""
        return cls.of(Frontier(), GENESIS, GENESIS, segment_name(0), 0, timestamp)

    @classmethod
    def of(
        cls, frontier: Frontier, genesis: str, last: str, segment: str, offset: int, timestamp: str
    ) -> Head:
        """Head of the tree at ``frontier``."""
        peaks = tuple(peak.hex() for peak in frontier.peaks)
        return cls(frontier.size, genesis, last, frontier.root().hex(), peaks, segment, offset, timestamp)

    def frontier(self) -> Frontier:
        """The tree, ready to grow."""
        return Frontier(self.size, (bytes.fromhex(peak) for peak in self.peaks))

    def sign(self, signer: Signer) -> bytes:
        """The file's content."""
        payload = {
            "format": "trainguard.audit-head/v1",
            "size": self.size,
            "genesis": self.genesis,
            "last": self.last,
            "root": self.root,
            "peaks": list(self.peaks),
            "segment": self.segment,
            "offset": self.offset,
            "timestamp": self.timestamp,
        }
        text = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
        return json.dumps(signer.sign_bytes(text, payload_type=HEAD_TYPE)).encode() + b"\n"

    @classmethod
    def verified(cls, content: bytes, verifier: Verifier, *, where: Path) -> Head:
        """The head in ``content``. Raises Tampered when it is damaged or not signed by a known key."""
        try:
            envelope = json.loads(content)
            if not isinstance(envelope, Mapping):
                raise Tampered("not an object")
            value: dict[str, Any] = json.loads(verifier.verify_bytes(envelope, payload_type=HEAD_TYPE))
            if value.pop("format") != "trainguard.audit-head/v1":
                raise Tampered("of an unknown format")
            head = cls(**{**value, "peaks": tuple(value["peaks"])})
            if head.frontier().root().hex() != head.root:
                raise Tampered("its peaks do not give its root")
            return head
        except Tampered as error:
            raise Tampered(f"the signed audit head {where} cannot be trusted: {error}") from None
        except (ValueError, TypeError, KeyError):
            raise Tampered(f"the signed audit head {where} is damaged") from None


def segment_name(first: int) -> str:
    """File name of the segment whose first record is ``first``."""
    return f"{first:012d}.jsonl"
