"""Where a version comes from, and what came from it.

Parents and transform are part of the signed record. A transform is told by digests: of the code that was
run and of its parameters, and of the records of the parents it was run on, so that whoever has them can
repeat it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard_core.errors import Tampered, UserError

if TYPE_CHECKING:
    from dataset_guard.registry.reference import Reference
    from dataset_guard.registry.store import Version
    from guard_core.home import Home

OPERATION = "code"


def transform_of(
    parents: Sequence[Reference],
    code: str | Path | Callable[..., Any] | None,
    parameters: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """``{operation, code, code_digest, parameters, parents, digest}``, to be signed with the record.

    ``code`` is a file, or a function, whose source counts. Raises UserError when it cannot be read, or when
    the parameters are no JSON.
    """
    from blake3 import blake3

    from guard_core.attestation import canonical_json

    name, content = (None, None) if code is None else _code(code)
    said: dict[str, Any] = {
        "operation": OPERATION,
        "code": name,
        "code_digest": None if content is None else blake3(content).hexdigest(),
        "parameters": dict(parameters or {}),
        "parents": [
            {"ref": p.ref, "fingerprint": p.version.fingerprint, "record_digest": p.version.record_digest}
            for p in parents
        ],
    }
    return {**said, "digest": blake3(canonical_json(said)).hexdigest()}


def _code(code: str | Path | Callable[..., Any]) -> tuple[str, bytes]:
    if isinstance(code, str | Path):
        try:
            return Path(code).name, Path(code).read_bytes()
        except OSError as error:
            raise UserError(
                f"the transform {code} cannot be read ({error.strerror}); check the path"
            ) from None
    try:
        return f"{code.__module__}.{code.__qualname__}", inspect.getsource(code).encode()
    except (OSError, TypeError, AttributeError):
        raise UserError(
            f"the source of the transform {code!r} is not known; pass the file it is written in"
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A version in the graph; ``state``: registered, deleted, destroyed, tampered or unknown."""

    ref: str
    state: str
    fingerprint: str | None = None
    verdict: str | None = None
    parents: tuple[str, ...] = ()
    transform: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The documented shape."""
        return {
            "ref": self.ref,
            "state": self.state,
            "fingerprint": self.fingerprint,
            "verdict": self.verdict,
            "parents": list(self.parents),
            "transform": None if self.transform is None else dict(self.transform),
        }


@dataclass(frozen=True, slots=True)
class Lineage:
    """All ancestors and descendants of ``ref``, itself included; parents come before children."""

    ref: str
    nodes: tuple[Node, ...]

    def node(self, ref: str) -> Node:
        """The node of ``ref``. Raises KeyError."""
        return {node.ref: node for node in self.nodes}[ref]

    def to_json(self) -> dict[str, Any]:
        """``{ref, nodes, edges}``; an edge has the digest of the transform that made the child."""
        edges = [
            {
                "parent": p,
                "child": n.ref,
                "transform": None if n.transform is None else n.transform.get("digest"),
            }
            for n in self.nodes
            for p in n.parents
        ]
        return {"ref": self.ref, "nodes": [node.to_json() for node in self.nodes], "edges": edges}


def lineage(ref: str, *, tenant: str | None = None, home: Home | None = None) -> Lineage:
    """The graph around the version ``ref``, deleted and destroyed versions included.

    Raises UserError when there is no such version, Denied for another tenant's.
    """
    from dataset_guard.registry.caller import caller_of, opened_home
    from dataset_guard.registry.store import Registry

    with opened_home(home) as opened:
        owner = caller_of(opened, ref, tenant=tenant).tenant
        registry = Registry(opened)
        start = registry.get_any(ref, tenant=owner)
        known = {version.ref: version for version in registry.all_versions(tenant=start.tenant)}
        children: dict[str, list[str]] = {}
        for version in known.values():
            for parent in version.parents:
                children.setdefault(str(parent), []).append(version.ref)
        wanted = _reach(start.ref, lambda r: [str(p) for p in known[r].parents] if r in known else [])
        wanted |= _reach(start.ref, lambda r: children.get(r, []))
        found = {name: _node(registry, name, known.get(name)) for name in wanted}
        return Lineage(start.ref, tuple(_parents_first(found)))


def _reach(start: str, following: Callable[[str], Sequence[str]]) -> set[str]:
    seen, waiting = {start}, [start]
    while waiting:
        fresh = [ref for ref in following(waiting.pop()) if ref not in seen]
        seen.update(fresh)
        waiting += fresh
    return seen


def _node(registry: Any, ref: str, version: Version | None) -> Node:
    if version is None:
        return Node(ref=ref, state="unknown")
    state = "registered"
    if version.destroyed_at is not None:
        state = "destroyed"
    elif version.deleted_at is not None:
        state = "deleted"
    try:
        record = registry.record(version)
    except Tampered:
        return Node(ref=ref, state="tampered", parents=tuple(map(str, version.parents)))
    return Node(
        ref=ref,
        state=state,
        fingerprint=version.fingerprint,
        verdict=record["verdict"],
        parents=tuple(record["parents"]),
        transform=record["transform"],
    )


def _parents_first(nodes: Mapping[str, Node]) -> list[Node]:
    ordered: list[Node] = []
    done: set[str] = set()

    def visit(ref: str) -> None:
        if ref in done or ref not in nodes:
            return
        done.add(ref)
        for parent in nodes[ref].parents:
            visit(parent)
        ordered.append(nodes[ref])

    for ref in sorted(nodes):
        visit(ref)
    return ordered
