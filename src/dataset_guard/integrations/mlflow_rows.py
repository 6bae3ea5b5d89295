"""Are the records that go into an MLflow evaluation dataset rows of the version that its tags name?

A record is a row when its inputs and expectations together have the version's columns and the values of one
of its rows: then its tenant row hash is among those that the version keeps. Values come as JSON, so they are
taken with the registered types, as for a row proof. Nothing is read but the row hashes; a refusal names the
record's number and no value.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from guard_core.errors import UserError

if TYPE_CHECKING:
    from dataset_guard.registry.reference import Reference
    from guard_core.home import Home

REMEDY = "make the records with dataset_guard.integrations.mlflow_data.evaluation_records"


def records_of(text: Any) -> list[dict[str, Any]] | None:
    """Inputs and expectations of each record in a request, as rows; None for what MLflow refuses itself.

    Raises UserError for a record that says one column in both.
    """
    try:
        records = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        return None
    rows = []
    for number, record in enumerate(records):
        inputs, expected = record.get("inputs") or {}, record.get("expectations") or {}
        if not isinstance(inputs, dict) or not isinstance(expected, dict):
            return None
        if both := inputs.keys() & expected.keys():
            raise UserError(f"record {number} has {min(both)!r} as input and as expectation; {REMEDY}")
        rows.append({**inputs, **expected})
    return rows


def rows_refusal(home: Home, references: Sequence[Reference], text: Any) -> str | None:
    """Why the records in ``text`` (JSON) are not rows of ``references``, as one sentence; None when they are.

    Raises Tampered for a version whose row hashes were changed.
    """
    try:
        rows = records_of(text)
        if not rows:
            return None
        strangers = set(range(len(rows)))
        for reference in references:
            strangers &= _strangers(home, reference, rows)
    except UserError as error:
        return str(error)
    if not strangers:
        return None
    named = ", ".join(reference.ref for reference in references)
    return f"record {min(strangers)} is no row of {named}, and this server takes its rows only; {REMEDY}"


def _strangers(home: Home, reference: Reference, rows: Sequence[dict[str, Any]]) -> set[int]:
    """The numbers of those ``rows`` that are none of the version's. Raises UserError for other columns."""
    import pyarrow as pa

    from dataset_guard.hashing.rowkeys import tenant_row_key
    from dataset_guard.proofs.onerow import row_hashes_of
    from dataset_guard.proofs.prove import hash_bytes
    from dataset_guard.proofs.rowtree import find

    names = {name for name, _ in reference.columns}
    for number, row in enumerate(rows):
        if other := names.symmetric_difference(row):
            one = repr(min(other))
            what = f"lacks column {one}" if min(other) in names else f"has {one}, which is no column"
            raise UserError(f"record {number} {what} of {reference.ref}; {REMEDY}")
    try:
        table = pa.Table.from_pylist(list(rows))
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise UserError(f"the records mix types within a column; {REMEDY}") from None
    key = tenant_row_key(home, reference.version.tenant)
    keyed = row_hashes_of(table, reference.columns, key=key, most=len(rows)).keyed
    assert keyed is not None
    known = reference.sorted_row_hashes()
    asked = [hash_bytes(pair) for pair in keyed]
    return {n for n, row in enumerate(asked) if find(known, row)[0].left != row}
