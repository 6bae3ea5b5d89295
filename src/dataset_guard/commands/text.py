"""Results of ``trainguard dataset`` commands as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dataset_guard.changes.diff import Difference
from dataset_guard.changes.verify import Verification
from dataset_guard.reads.on_record import Read
from dataset_guard.registration.report import rows_text
from dataset_guard.registry.lineage import Lineage
from dataset_guard.registry.store import Version
from dataset_guard.validation import Validation
from guard_core.clock import rfc3339
from guard_core.counting import counted, noun_for
from guard_core.findings import RowSet
from guard_core.output.text import aligned, size_text, to_the_minute

_SHOWN_CHANGES = 40
_SAME_CONTENT = "no difference: the same content, however each is stored"


def _rows_named(rows: RowSet) -> str:
    """``row 3``, or ``rows 3, 17-40 and 5 more ranges``."""
    return f"{noun_for(len(rows), 'row')} {rows_text(rows)}"


def verification_text(found: Verification) -> str:
    """One line for a version that is as registered, or only grew; else what changed, and where."""
    if found.ok:
        return "\n".join([f"{found.ref}  ok", *(f"  {note}" for note in found.notes)])
    if found.grown:
        return "\n".join([f"{found.ref}  GREW", *(f"  {said}" for said in found.problems)])
    lines = [f"{found.ref}  CHANGED", *(f"  {said}" for said in (*found.problems, *found.notes))]
    for change in found.changes[:_SHOWN_CHANGES]:
        places = [change.file or "(no file)"]
        if change.block is not None:
            places.append(f"block {change.block}")
        if change.column is not None:
            places.append(f"column {change.column}")
        if change.rows.ranges:
            places.append(_rows_named(change.rows))
        lines.append("  " + ", ".join(places))
    more = len(found.changes) - _SHOWN_CHANGES
    if more > 0:
        lines.append(f"  and {counted(more, 'more place')} (see --format json)")
    return "\n".join(lines)


def difference_text(found: Difference) -> str:
    """Columns first, then rows."""
    lines = [f"{found.a} ({counted(found.rows_a, 'row')}) -> {found.b} ({counted(found.rows_b, 'row')})"]
    for word, names in (
        ("added", found.added_columns),
        ("removed", found.removed_columns),
        ("retyped", [f"{name} ({a} -> {b})" for name, a, b in found.types]),
    ):
        if names:
            lines.append(f"  columns {word}: {', '.join(names)}")
    for word, rows in (("added", found.added), ("removed", found.removed), ("changed", found.changed)):
        if rows.ranges:
            lines.append(f"  {_count(rows)} {word}: {rows_text(rows)}")
    if found.changed_columns:
        lines.append(f"    in {', '.join(f'{name} ({n:,})' for name, n in found.changed_columns)}")
    if found.same:
        lines.append("  same rows in another order" if found.reordered else f"  {_SAME_CONTENT}")
    elif found.types and not (found.added.ranges or found.removed.ranges or found.changed.ranges):
        lines.append("  equal values in all rows")
    return "\n".join(lines)


def _count(rows: RowSet) -> str:
    return counted(len(rows), "row")


def lineage_text(found: Lineage) -> str:
    """One line per version, parents above their children; the one asked about is marked."""
    lines = []
    for node in found.nodes:
        mark = "*" if node.ref == found.ref else " "
        state = node.verdict if node.state == "registered" else node.state
        made = f"  from {', '.join(node.parents)}" if node.parents else ""
        said = node.transform or {}
        how = said.get("code") or said.get("operation")
        by = f"  by {how} ({str(said.get('digest'))[:12]})" if how else ""
        lines.append(f"{mark} {node.ref}  {state}{made}{by}")
    return "\n".join(lines)


def validation_text(found: Validation) -> str:
    """What is not met, with counts and rows; one line when all is."""
    told = found.result["statistics"]
    lines = [
        f"{found.name}  {'ok' if found.success else 'NOT MET'}  {told['successful_expectations']} of "
        f"{told['evaluated_expectations']} expectations, {counted(found.rows, 'row')}"
    ]
    for one, rows in zip(found.result["results"], found.unexpected_rows, strict=True):
        if one["success"]:
            continue
        config, said = one["expectation_config"], one["result"]
        named = ", ".join(str(v) for k, v in config["kwargs"].items() if k.startswith("column"))
        lines.append(f"  {config['severity']:8}  {config['type']}  {named}")
        if one["exception_info"]["raised_exception"]:
            lines.append(f"            {one['exception_info']['exception_message']}")
        elif said.get("element_count"):
            count = f"{said['unexpected_count']:,} of {said['element_count']:,}"
            lines.append(f"            {count}: {_rows_named(rows)}")
        elif "observed_count" in said:
            lines.append(f"            observed: {said['observed_count']:,}")
    return "\n".join(lines)


def versions_text(
    versions: Sequence[Version], notes: Mapping[str, Sequence[str]], refused: Mapping[str, str]
) -> str:
    """The table of ``dataset list``; ``notes`` are what else to say of ``tenant/name@version``.

    ``refused`` says why a version's record is not to be trusted, whatever verdict it got.
    """
    lines = []
    for version in versions:
        shape, when = f"{version.rows:,} x {version.columns}", f"{version.created_at:%Y-%m-%d %H:%M}Z"
        label = f"label {version.label}" if version.label else None
        more = [word for word in (version.split, label, *notes.get(version.ref, ())) if word]
        state = "refused" if version.ref in refused else version.verdict
        lines.append((version.ref, state, shape, when, version.digest, "  ".join(more)))
    return "\n".join([*aligned(lines), *refused.values()])


def reads_text(reads: Sequence[Read]) -> str:
    """A table of reads, oldest first, and what they come to."""
    head = ("when", "version", "who", "for", "rows", "data", "outcome")
    lines = [
        (
            to_the_minute(read.at),
            read.ref,
            f"{read.user} of {read.tenant}" + (f", job {read.workload}" if read.workload else ""),
            read.purpose,
            "files" if read.rows is None else f"{read.rows:,}",
            size_text(read.bytes),
            read.outcome + (f": {read.problem or f'to {read.to}'}" if read.problem or read.to else ""),
        )
        for read in reads
    ]
    people = len({(read.tenant, read.user) for read in reads})
    stopped = sum(read.outcome == "stopped" for read in reads)
    total = (
        f"{counted(len(reads), 'read')} by {counted(people, 'person', 'people')}: "
        f"{sum(read.rows or 0 for read in reads):,} rows, {size_text(sum(read.bytes for read in reads))}"
    )
    total += f", {stopped:,} stopped" if stopped else ""
    return "\n".join([*aligned([head, *lines]), total])


def version_json(version: Version) -> dict[str, Any]:
    """One entry of ``dataset list --format json``."""
    return {
        "ref": version.ref,
        "tenant": version.tenant,
        "name": version.name,
        "version": version.version,
        "fingerprint": version.fingerprint,
        "digest": version.digest,
        "rows": version.rows,
        "columns": version.columns,
        "verdict": version.verdict,
        "label": version.label,
        "split": version.split,
        "source_uri": version.source_uri,
        "created_at": rfc3339(version.created_at),
        "created_by": version.created_by,
    }
