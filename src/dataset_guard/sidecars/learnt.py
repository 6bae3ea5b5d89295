"""What a registration has learnt of the rows it read, kept so that a set that grew is not read again.

``learnt.sealed`` lies beside the newest version of a dataset: the states of all checks and the profile over
the version's whole blocks of 65,536 rows. States of disjoint rows merge (:mod:`dataset_guard.checks.base`),
so when the next version begins with the same rows, its registration reads the new ones alone and comes to the
findings of one that reads everything. It is used only where all of this is as it was: the rows (their
leaves, which the signed record vouches for), the label and split, the versions compared with, the checks and
their parameters, and the code itself.

States hold samples of rows, so the file is sealed with the tenant's key
(:mod:`dataset_guard.sidecars.sealed_stream`): nobody else can read it, and nothing that nobody with the key
wrote is ever unpickled; what is unpickled may name numpy, pyarrow and the checks' packages only. It is no
evidence and no part of the signed record: without it, or when it is larger than 1 GiB, the next registration
reads all rows.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version as version_of
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3

from dataset_guard.checks.discover import parameters_of
from dataset_guard.sidecars.sealed_stream import SealedReader, SealedWriter
from guard_core.errors import Tampered

if TYPE_CHECKING:
    from dataset_guard.checks.base import Hashes
    from dataset_guard.hashing.fingerprint import FingerprintPart, Leaves
    from dataset_guard.scanning.passing import Pass
    from dataset_guard.scanning.plan import Plan
    from dataset_guard.sidecars.known import KnownHashes

FILE = "learnt.sealed"
CONTEXT = "trainguard 2026-11 learnt state"
MOST_BYTES = 1 << 30

Place = tuple[str, int, int]
"""Where row hashes lie: ``rows`` or ``features``, the first row, and the row after the last."""

_ROOTS = {"dataset_guard", "guard_core", "numpy", "pyarrow", "collections", "datetime", "decimal"}
_BUILTINS = {"set", "frozenset", "slice", "range", "complex", "bytearray", "list", "dict", "tuple", "object"}


class _TooMuch(Exception):
    """The states are larger than is worth keeping."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """States of checks by name, the profiler, and the canonical bytes of the first ``blocks`` blocks."""

    blocks: int
    bytes: int
    states: dict[str, Any]
    profiler: Any


def keep(seen: Pass, plan: Plan, parts: Sequence[FingerprintPart], folder: Path) -> None:
    """Write to ``folder`` what ``seen`` has learnt of whole blocks, whose leaves are ``parts``.

    Nothing is there when it cannot be kept.
    """
    if not parts or not _can(plan) or any(run.failure for run in seen.runs):
        return
    leaves = np.concatenate([part.leaves for part in parts])
    size = sum(part.bytes or 0 for part in parts)
    states = {run.check.name: run.state for run in seen.runs if run.running}
    try:
        with (folder / FILE).open("wb") as file:
            sink = SealedWriter(_Limited(file), key=plan.key, context=CONTEXT, about=_about(plan, leaves))
            pickler = _Pickler(sink, plan, {id(hashes): place for hashes, place in seen.held})
            pickler.dump(Learnt(len(leaves), size, states, seen.profiler))
            sink.close()
    except Exception:  # noqa: BLE001 - a state may hold what cannot be kept (anybody's may), the disk be full
        with suppress(OSError):
            (folder / FILE).unlink()


def recall(plan: Plan, known: KnownHashes) -> tuple[Learnt, list[tuple[Hashes, Place]]] | None:
    """What was learnt of the first blocks of data that begins with the ``known`` rows; None for nothing.

    With it, the hashes that its states hold, and where they lie in the table.
    """
    blocks = known.first_blocks()
    if not blocks or not _can(plan):
        return None
    try:
        with (known.folder / FILE).open("rb") as file:
            about = _about(plan, known.leaves[:blocks])
            source = SealedReader(file, key=plan.key, context=CONTEXT, about=about)
            reader = _Unpickler(source, plan, known)
            learnt: Learnt = reader.load()
    except (OSError, Tampered):
        return None
    return learnt, reader.held


def _can(plan: Plan) -> bool:
    """A budget makes findings depend on time; what a suite's file holds is not known by its name."""
    return plan.budget is None and not plan.context.suites


def _about(plan: Plan, leaves: Leaves) -> bytes:
    """A digest of everything that the states depend on."""
    context = plan.context
    said = (
        [_code(), sys.version, *(version_of(name) for name in ("numpy", "pyarrow"))],
        [context.tenant, context.name, context.label, context.split, context.seed],
        [None if context.baseline is None else context.baseline.ref, [r.ref for r in context.against]],
        [(c.name, c.version, _code_of(c), sorted(parameters_of(c).items())) for c in plan.checks],
    )
    digest = blake3(repr(said).encode())
    digest.update(plan.schema.serialize())
    digest.update(repr(leaves.shape).encode() + leaves.tobytes())
    return digest.digest()


@cache
def _code() -> str:
    """A digest of this package: states of other code may look the same and mean something else."""
    digest = blake3()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _code_of(check: Any) -> str:
    """A digest of the module of somebody else's check."""
    module = sys.modules[type(check).__module__]
    file = getattr(module, "__file__", None)
    if file is None or module.__name__.startswith("dataset_guard."):
        return ""
    return blake3(Path(file).read_bytes()).hexdigest()


class _Limited:
    """A file that takes no more than is worth keeping."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._left = file, MOST_BYTES

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise _TooMuch
        return self._file.write(data)


class _Pickler(pickle.Pickler):
    """Leaves out what the next registration has anyway: row hashes, the context, and code made on the way."""

    def __init__(self, sink: Any, plan: Plan, places: dict[int, Place]) -> None:
        super().__init__(sink, protocol=5)
        self._context, self._places = plan.context, places

    def persistent_id(self, value: Any) -> Any:
        if value is self._context:
            return ("context",)
        return self._places.get(id(value))

    def reducer_override(self, value: Any) -> Any:
        """A closure has no name to be found by; merging does not call any (the fresh state has its own)."""
        if callable(value) and "<" in getattr(value, "__qualname__", ""):
            return _code_left_out, ()
        return NotImplemented


def _code_left_out() -> Callable[..., Any]:
    return _left_out


def _left_out(*_: Any, **__: Any) -> Any:
    raise pickle.UnpicklingError("this part of a state is not kept")


class _Unpickler(pickle.Unpickler):
    """Puts back what was left out, and loads no other code than that of states."""

    def __init__(self, source: Any, plan: Plan, known: KnownHashes) -> None:
        super().__init__(source)
        self.held: list[tuple[Hashes, Place]] = []
        self._context, self._hashes = plan.context, {"rows": known.keyed, "features": known.features}
        self._roots = _ROOTS | {type(check).__module__.partition(".")[0] for check in plan.checks}

    def persistent_load(self, place: Any) -> Any:
        if place == ("context",):
            return self._context
        kind, first, stop = place
        hashes: Hashes | None = self._hashes[kind]
        if hashes is None:
            raise pickle.UnpicklingError("feature hashes without a label")
        found = hashes[first:stop]
        self.held.append((found, place))
        return found

    def find_class(self, module: str, name: str) -> Any:
        root = module.partition(".")[0]
        if root in self._roots or (module == "builtins" and name in _BUILTINS):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"a state names {module}.{name}, which states do not hold")
