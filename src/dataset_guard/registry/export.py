"""Descriptions of a version for other tools: Croissant, OpenLineage, model-signing and cosign.

This is no export of data. guard/dataset/export rules on data that leaves the cluster, with other people's
approval; a description holds file and column names, types, counts and digests, which the version's own page
shows to everybody who may look at it. So guard/dataset/use is asked, with the purpose "inspect", and the
event is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from guard_core.errors import UserError
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from guard_core.home import Home

FORMATS = ("croissant", "openlineage", "model-signing", "cosign")


def describe(ref: str, form: str, *, tenant: str | None = None, home: Home | None = None) -> dict[str, Any]:
    """The version ``ref`` in one of :data:`FORMATS`, as JSON values.

    Raises UserError for another format and for what cannot be described, Denied, Undecidable, Tampered.
    """
    if form not in FORMATS:
        raise UserError(f"there is no format {form!r}; take one of {', '.join(FORMATS)}")
    if home is None:
        from guard_core.home import Home as Opened

        with Opened.open() as opened:
            return describe(ref, form, tenant=tenant, home=opened)
    from dataset_guard.reads.access import open_access

    with open_access(ref, purpose="inspect", tenant=tenant, home=home) as access:
        if form == "croissant":
            from dataset_guard.integrations.croissant import croissant

            document = croissant(access.reference)
        elif form == "openlineage":
            from dataset_guard.integrations.openlineage import openlineage

            document = openlineage(access.reference)
        elif form == "cosign":
            from dataset_guard.integrations.cosign import cosign

            document = cosign(access.reference, home.signer)
        else:
            from dataset_guard.integrations.model_signing import model_signing

            document = model_signing(access.reference, home.signer)
    home.audit.event(
        "dataset.described",
        subject=access.ref,
        data={"format": form, "by": access.ticket.user},
        enforcement=Enforcement.COOPERATIVE,
        decision_id=access.ticket.decision_id,
    )
    return document
