"""What a registration asks for, resolved before its data is read.

References are looked up and believed or not, names and splits are checked, the policy is there: what would
fail is found before hours of reading, not after.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_guard.registry.refs import check_dataset_name, parse_ref
from dataset_guard.registry.store import Reference, Registry
from dataset_guard.scanning.suites import suite_of
from guard_core.errors import Denied, UserError

if TYPE_CHECKING:
    from dataset_guard.checks.base import Suite
    from guard_core.home import Home
    from guard_core.identity import Principal

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Derivation:
    """What a version was made from: the parents' references, and how (JSON, signed with the record)."""

    parents: tuple[str, ...]
    transform: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, resolved: everything that is known before the data is read."""

    home: Home
    principal: Principal
    name: str
    label: str | None
    split: str | None
    against: tuple[Reference, ...]
    evaluation: tuple[Suite, ...]
    trusted: Reference | None
    checks: tuple[str, ...] | None
    parameters: dict[str, dict[str, Any]]
    budget: float | None
    ray: str | None
    derived: Derivation | None = None

    @property
    def tenant(self) -> str:
        """The tenant that the version will belong to."""
        return self.principal.tenant


def requested(
    home: Home,
    name: str,
    tenant: str | None,
    label: str | None,
    split: str | None,
    against: Sequence[str],
    evaluation: Sequence[str],
    trusted: str | None,
    suite: Any,
    checks: Sequence[str] | None,
    budget: float | None,
    ray: str | None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Request:
    """The request for a look at ``name``. Raises UserError, Denied for another tenant's data, Tampered."""
    check_dataset_name(name)
    if split is not None and split not in SPLITS:
        raise UserError(f"split {split!r} is none of {', '.join(SPLITS)}")
    principal = home.principal(tenant=tenant)
    _ = home.policy  # a broken policy directory is found before hours of reading, not after
    registry = Registry(home)

    def reference(text: str) -> Reference:
        if parse_ref(text, tenant=principal.tenant).tenant != principal.tenant:
            raise Denied(
                f"{text} belongs to another tenant: rows of two tenants are never compared; "
                f"name a dataset of {principal.tenant}"
            )
        return registry.reference(text, tenant=principal.tenant)

    baseline = None if trusted is None else reference(trusted)
    if baseline is not None and baseline.version.verdict in ("quarantine", "deny"):
        raise UserError(
            f"{baseline.ref} has the verdict {baseline.version.verdict}, so it cannot be the trusted "
            "version; name another with --trusted"
        )
    return Request(
        home=home,
        principal=principal,
        name=name,
        label=label,
        split=split,
        against=tuple(reference(text) for text in against),
        evaluation=tuple(suite_of(text, reference) for text in evaluation),
        trusted=baseline,
        checks=None if checks is None else tuple(checks),
        parameters=_parameters(settings or {}, suite),
        budget=budget,
        ray=ray,
    )


def _parameters(settings: Mapping[str, Mapping[str, Any]], suite: Any) -> dict[str, dict[str, Any]]:
    """The settings of each check, a suite of expectations among them."""
    found = {check: dict(values) for check, values in settings.items()}
    if suite is not None:
        found.setdefault("expectations", {})["suite"] = load_suite(suite)
    return found


def load_suite(suite: Any) -> Any:
    """A suite of expectations: as given, or read from the JSON file at ``suite``. Raises UserError."""
    if not isinstance(suite, str | os.PathLike):
        return suite
    try:
        return json.loads(Path(suite).read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"there is no suite file {suite}; check the path") from error
    except (OSError, ValueError) as error:
        raise UserError(f"the suite file {suite} is not readable JSON ({error}); repair it") from error


def derivation(
    request: Request,
    parents: Sequence[str],
    transform: str | Path | Callable[..., Any] | None,
    parameters: Mapping[str, Any] | None,
) -> Derivation | None:
    """What the version is made from, if that was told.

    Raises UserError for a transform without parents and for parents that are not there, Denied for another
    tenant's.
    """
    from dataset_guard.registry.lineage import transform_of

    if not parents:
        if transform is not None or parameters:
            raise UserError(
                "a transform is told together with the versions it was run on; name them as parents"
            )
        return None
    found = []
    for text in parents:
        if parse_ref(text, tenant=request.tenant).tenant != request.tenant:
            raise Denied(f"{text} belongs to another tenant, so it cannot be a parent; name one of your own")
        found.append(Registry(request.home).reference(text, tenant=request.tenant))
    names = tuple(reference.ref for reference in found)
    return Derivation(names, transform_of(found, transform, parameters))
