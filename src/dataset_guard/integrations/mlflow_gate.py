"""May these datasets be logged to this MLflow server? Our registry decides, never what the client says.

A client's ``profile`` and run tags are text it made up; one line is enough to claim the verdict ``allow``. So
the gate takes one thing from the request, the digest, finds the registered versions that have it, and asks
policy about them for the tenant whose credential came with the request. A profile that speaks in our name is
then compared with what the registry says of such a version, because people read it in MLflow's drawer.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guard_core.errors import Denied, GuardError
from guard_core.findings import Enforcement
from guard_core.identity import TOKEN, is_jwt

if TYPE_CHECKING:
    from guard_core.home import Home
    from guard_core.identity import Principal

TOKEN_HEADER = "X-TrainGuard-Token"  # noqa: S105 - a header's name
PREFIX = "dg1:"
CLAIM = "guard_"
"""What the keys begin with that our profiles have in MLflow."""
_PURPOSES = {"training": "train", "train": "train", "registration": "inspect"}


SAY_WHO = "set MLFLOW_TRACKING_TOKEN to your TrainGuard token (beside a user name: TRAINGUARD_MLFLOW_TOKEN)"
"""The remedy where a request has no token. A client with a user name sends no bearer token."""
LOG_IT = "log it with dataset_guard.integrations.mlflow_data.log_input"
"""The remedy of every refusal about what is said in our name."""


@dataclass(frozen=True, slots=True)
class LoggedDataset:
    """What a request wants to log: MLflow's name, digest, context and (of an input) the profile, JSON."""

    name: str
    digest: str
    context: str
    profile: str = ""

    def claims(self) -> dict[str, Any]:
        """What the profile says in our name. MLflow shows underscores as spaces, so those count too."""
        try:
            said = json.loads(self.profile or "{}")
        except ValueError:
            return {}  # MLflow shows nothing of it
        if not isinstance(said, dict):
            return {}
        return {
            k: v for k, v in said.items() if re.sub(r"[\W_]+", "_", k.lower()).strip("_").startswith("guard")
        }


@dataclass(frozen=True, slots=True)
class Candidate:
    """A registered version that has the digest."""

    tenant: str
    name: str
    version: int

    @property
    def ref(self) -> str:
        """``tenant/name@version``."""
        return f"{self.tenant}/{self.name}@{self.version}"


def token_of(own: str, authorization: str) -> str | None:
    """The TrainGuard token in a request: our header, a bearer token, or the password of Basic.

    A password that is none of ours is left to the app it was meant for, such as basic-auth: None.
    ``own`` is the value of :data:`TOKEN_HEADER` (for servers whose inner app uses ``Authorization`` itself),
    ``authorization`` that of ``Authorization``; empty when absent.
    """
    if own:
        return own
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip() or None
    if scheme.lower() == "basic":
        try:
            password = base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
        return password if TOKEN.fullmatch(password) or is_jwt(password) else None
    return None


def refusal(
    home: Home, token: str | None, datasets: Sequence[LoggedDataset], *, registered_only: bool
) -> str | None:
    """Why the first refused dataset may not be logged, as one sentence; None when all may.

    ``registered_only`` refuses digests that no registered version has. Trouble of any kind refuses.
    """
    try:
        for dataset in datasets:
            reason = _refused(home, token, dataset, registered_only)
            if reason is not None:
                return reason
    except GuardError as error:
        return str(error)
    return None


def _refused(home: Home, token: str | None, dataset: LoggedDataset, registered_only: bool) -> str | None:
    claims = dataset.claims()
    if not dataset.digest.startswith(PREFIX):
        if claims:
            return (
                f"the profile of dataset {dataset.name!r} speaks in TrainGuard's name, but its digest is not "
                f"TrainGuard's; {LOG_IT}"
            )
        if not registered_only:
            return None
        return (
            f"dataset {dataset.name!r} is not registered, and this server takes registered data only; "
            f"register it and {LOG_IT}"
        )
    if token is None:
        named = f"dataset {dataset.name!r} has a TrainGuard digest"
        return f"{named}, so this server must know who logs it; {SAY_WHO}"
    principal = home.credentials.verify(token)
    found = candidates(home, dataset.digest)
    # All names that the tenant has these bytes under: else registering bad data once more, under a name
    # that nothing is checked against, would be a way round its first verdict.
    chosen = [c for c in found if c.tenant == principal.tenant] or found
    if not chosen:
        return f"no registered version has digest {dataset.digest}; register the data before logging it"
    denied = first_denial(home, principal, chosen, dataset)
    if denied is not None and not principal.is_platform_admin:
        for other in chosen:  # who has the bytes learns no more than that: not what others call them
            if other.tenant != principal.tenant:
                denied = denied.replace(other.ref, repr(dataset.name))
    if denied is None and claims and not _said_by_registry(home, claims, dataset.digest, chosen):
        return (
            f"the profile of dataset {dataset.name!r} is not what the registry says of a version with digest "
            f"{dataset.digest}; {LOG_IT}"
        )
    return denied


def _said_by_registry(
    home: Home, claims: Mapping[str, Any], digest: str, chosen: Sequence[Candidate]
) -> bool:
    """Whether ``claims`` are our own profile of a version with ``digest``, of the tenants of ``chosen``."""
    from sqlalchemy import select

    from dataset_guard.integrations.mlflow_fields import cut, profile
    from dataset_guard.reads.access import stored_report
    from dataset_guard.registry.store import Registry
    from guard_core.storage.tables import DatasetRow, DatasetVersionRow

    query = (
        select(DatasetRow.tenant, DatasetRow.name, DatasetVersionRow.version)
        .join(DatasetVersionRow, DatasetVersionRow.dataset_id == DatasetRow.id)
        .where(DatasetVersionRow.digest == digest, DatasetRow.tenant.in_({c.tenant for c in chosen}))
        .where(DatasetVersionRow.deleted_at.is_(None))
    )
    with home.storage.reading() as session:
        found = [Candidate(*row) for row in session.execute(query)]
    for version in found:
        if cut(version.ref) == claims.get("guard_version"):
            reference = Registry(home).reference(version.ref, tenant=version.tenant)
            ours = profile(stored_report(reference))
            if {k: v for k, v in ours.items() if k.startswith(CLAIM)} == claims:
                return True
    return False


def first_denial(
    home: Home, principal: Principal, chosen: Sequence[Candidate], dataset: LoggedDataset
) -> str | None:
    """Why policy refuses the first refused one of ``chosen`` for the context of ``dataset``; else None."""
    for candidate in chosen:
        acting = principal
        if principal.is_platform_admin and candidate.tenant != principal.tenant:
            acting = principal.acting_for(candidate.tenant)
        [fact] = home.dataset_facts([candidate.ref], principal=acting)
        decision = home.decide(
            "guard/dataset/use/decision",
            {
                "dataset": fact,
                "purpose": _PURPOSES.get(dataset.context, "evaluate"),
                "workload": acting.workload,
            },
            principal=acting,
            enforcement=Enforcement.ENFORCED,
            subject=candidate.ref,
        )
        if not decision.allow:
            return f"{decision.explain()} (decision {decision.decision_id})"
    return None


def candidates(home: Home, digest: str) -> list[Candidate]:
    """For each dataset that has a version with ``digest``: the newest such version."""
    from sqlalchemy import func, select

    from guard_core.storage.tables import DatasetRow, DatasetVersionRow

    newest = func.max(DatasetVersionRow.version)
    query = (
        select(DatasetRow.tenant, DatasetRow.name, newest)
        .join(DatasetVersionRow, DatasetVersionRow.dataset_id == DatasetRow.id)
        .where(DatasetVersionRow.digest == digest, DatasetRow.deleted_at.is_(None))
        .group_by(DatasetRow.tenant, DatasetRow.name)
        .order_by(DatasetRow.tenant, DatasetRow.name)
    )
    with home.storage.reading() as session:
        return [Candidate(*row) for row in session.execute(query)]


def visible(home: Home, token: str | None) -> str | None:
    """The tenant whose reports a token may see; None for a platform admin, who sees all. Raises Denied."""
    if token is None:
        raise Denied("these pages need a TrainGuard token: any user name, the token as password")
    principal = home.credentials.verify(token)
    return None if principal.is_platform_admin else principal.tenant
