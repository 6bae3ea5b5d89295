"""Merkle roots over dg1 leaves, in the tree shape of RFC 6962 section 2.1."""

from __future__ import annotations

from collections.abc import Sequence

from blake3 import blake3

NODE_TAG = b"dg1:node\0"
EMPTY_TAG = b"dg1:none\0"


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Root (32 bytes) of ``leaves`` (32 bytes each); one leaf is its own root, none has a fixed root."""
    if not leaves:
        return blake3(EMPTY_TAG).digest()
    level = list(leaves)
    while len(level) > 1:
        # An odd last node moves up unchanged: the same tree as splitting at the largest power of two.
        parents = [blake3(NODE_TAG + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        level = parents + level[len(parents) * 2 :]
    return level[0]
