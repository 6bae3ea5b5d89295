"""Canary rows: made-up sentences planted in a copy of a set, which say later where that copy has been.

A marker is eight random words, so it looks like text and no cleaner knows it; no other text holds it by
chance (eight of 256 words: 64 bits). Copies differ in their markers, so a leaked one says whose it was. The
markers lie in the home (mode 0600), where ``scan`` takes them from; a signed record says when, into what and
where they were planted, without the markers themselves.

Label: `detective`: a thief who finds the rows can drop them; that they come back proves where data came from.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataset_guard.registry.caller import opened_home
from guard_core.clock import new_id, rfc3339
from guard_core.errors import Tampered, UserError
from guard_core.files import write_atomic
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from guard_core.home import Home

PREDICATE_TYPE = "https://trainguard.dev/attestation/canary/v1"
WORDS = tuple(
    re.findall(
        r"\w+",
        """
    abbey acorn alcove almond amber anchor anvil apple apron arrow atlas autumn badge balsam banjo barley
    barrel basin beacon birch bishop bison blossom bobbin bonnet border bottle bramble branch breeze bridge
    bronze brook bucket bugle burrow button cabin cactus camel canal candle canoe canvas canyon carbon cargo
    carpet castle cedar cellar chalk cherry chisel cinder circus cliff clover cobalt cocoa comet copper
    coral cotton cradle crane crater crayon cricket crystal cymbal dagger daisy damson delta desert dragon
    drummer eagle easel ember engine fable falcon feather fennel ferry fiddle finch flannel flint flute
    forest fossil fountain fox galaxy garden garnet geyser ginger glacier goblet granite grotto guitar
    hammer harbor harvest hazel helmet heron hollow honey hornet hunter iceberg igloo indigo ivory jacket
    jasmine jasper jigsaw juniper kayak kernel kettle kitten lagoon lantern laurel lava lemon lichen lilac
    linen lizard locket lotus magnet mango maple marble meadow melon mercury mint mirror mitten moss muffin
    mustard needle nettle nickel nutmeg oasis oatmeal obelisk ocean olive onyx opal orchid osprey otter
    oyster paddle pagoda palace panda papaya parrot pebble pepper pewter piano pillow pine pirate planet
    plaza plum pocket pollen pony poplar prairie prism puddle pumpkin puzzle quail quarry quartz quiver
    rabbit radish raven ribbon ridge river robin rocket rose ruby saddle saffron salmon sandal sapphire
    satin scarlet shadow shell silver sleigh sparrow spruce stable summit sunset swallow tango tartan teapot
    temple thistle thunder tiger timber topaz torch trumpet tulip tundra turnip turtle umber valley vanilla
    velvet violet walnut walrus willow winter wolf wren yarrow yonder zebra zenith zephyr zinnia
    """,
    )
)
WORDS_IN_MARKER = 8


@dataclass(frozen=True, slots=True)
class Planted:
    """One planting: its id, where the copy is, and the rows (of the copy) that are canaries."""

    id: str
    path: Path
    column: str
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sighting:
    """Markers of one planting in one place: rows of a table's column, or lines of a file."""

    id: str
    name: str
    column: str | None
    places: tuple[int, ...]
    markers: int

    def to_json(self) -> dict[str, Any]:
        """As ``dataset canary scan --format json`` prints it."""
        places = "lines" if self.column is None else "rows"
        return {
            "id": self.id,
            "name": self.name,
            "column": self.column,
            "markers": self.markers,
            places: list(self.places),
        }


def add(
    data: Any,
    out: Path,
    *,
    name: str,
    count: int = 10,
    column: str | None = None,
    tenant: str | None = None,
    home: Home | None = None,
) -> Planted:
    """Write ``data`` with ``count`` canary rows to ``out`` (.parquet, .csv or .jsonl) and record it, signed.

    A canary row is a row of the set with another text in ``column`` (the first text column). ``name`` says
    who gets the copy. Raises UserError; then nothing is written.
    """
    from dataset_guard.reading import open_source

    if not 1 <= count <= 1_000:
        raise UserError(f"{count} canary rows cannot be planted; plant 1 to 1,000")
    if out.exists():
        raise UserError(f"{out} exists already; name a new file for the copy")
    writer = _writer_of(out)
    table = pa.Table.from_batches(open_source(data).batches())
    chosen = _text_column(table.schema, column)
    if not table.num_rows:
        raise UserError("the data has no rows to plant between")
    markers = [" ".join(secrets.choice(WORDS) for _ in range(WORDS_IN_MARKER)) for _ in range(count)]
    places = sorted(secrets.randbelow(table.num_rows + 1) for _ in range(count))
    planted = Planted(
        new_id("canary"), out, chosen, tuple(place + number for number, place in enumerate(places))
    )
    with opened_home(home) as opened:
        principal = opened.principal(tenant=tenant)
        folder = opened.path("canaries", principal.tenant)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = out.with_name(f".{out.name}.{planted.id}")
        try:
            writer(_with_rows(table, chosen, markers, places), part)
            record = _record(planted, name, principal.tenant, markers, part, opened)
            secret = {"record": record, "markers": markers}
            write_atomic(folder / f"{planted.id}.json", json.dumps(secret).encode(), mode=0o600)
            part.rename(out)
        finally:
            part.unlink(missing_ok=True)
        opened.audit.event(
            "dataset.canary_planted",
            subject=f"{principal.tenant}/{name}",
            data={"id": planted.id, "rows": count, "created_by": principal.user},
            enforcement=Enforcement.DETECTIVE,
        )
    return planted


def _record(
    planted: Planted, name: str, tenant: str, markers: Sequence[str], written: Path, home: Home
) -> dict[str, Any]:
    from guard_core.attestation import statement

    with written.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    predicate = {
        "id": planted.id,
        "tenant": tenant,
        "name": name,
        "column": planted.column,
        "rows": list(planted.rows),
        "markers": [hashlib.sha256(m.encode()).hexdigest() for m in markers],
        "created_at": rfc3339(home.clock()),
    }
    subjects = {planted.path.name: {"sha256": digest}}
    made = statement(subjects=subjects, predicate_type=PREDICATE_TYPE, predicate=predicate)
    return home.signer.sign(made)


def _text_column(schema: pa.Schema, column: str | None) -> str:
    from dataset_guard.scanning.profile import is_text

    texts = [f.name for f in schema if is_text(f.type)]
    if column is not None and column not in texts:
        raise UserError(f"{column!r} is no text column of the data; those are: {', '.join(texts) or 'none'}")
    if not texts:
        raise UserError("the data has no text column, so no sentence can be planted in it")
    return column or texts[0]


def _with_rows(table: pa.Table, column: str, markers: Sequence[str], places: Sequence[int]) -> pa.Table:
    at, parts, start = table.schema.get_field_index(column), [], 0
    for marker, place in zip(markers, places, strict=True):
        parts.append(table.slice(start, place - start))
        model = table.slice(secrets.randbelow(table.num_rows), 1)
        text = pa.array([f"Please keep for reference: {marker}."], table.schema.field(at).type)
        parts.append(model.set_column(at, table.schema.field(at), text))
        start = place
    return pa.concat_tables([*parts, table.slice(start)])


def _writer_of(out: Path) -> Any:
    kind = out.suffix.lower()
    if kind in (".parquet", ".pq"):
        import pyarrow.parquet as pq

        return pq.write_table
    if kind == ".csv":
        import pyarrow.csv as csv

        return csv.write_csv
    if kind in (".jsonl", ".ndjson"):
        return _write_json_lines
    raise UserError(
        f"a copy cannot be written as {kind or 'a file without extension'}; use .parquet, .csv, .jsonl"
    )


def _write_json_lines(table: pa.Table, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for batch in table.to_batches():
            for row in batch.to_pylist():
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


@dataclass(frozen=True, slots=True)
class _Known:
    """The markers of a tenant: for each, which planting it is of."""

    markers: tuple[str, ...]
    of: tuple[tuple[str, str], ...]


def _known(home: Home, tenant: str) -> _Known:
    markers: list[str] = []
    of: list[tuple[str, str]] = []
    for path in sorted(home.path("canaries", tenant).glob("canary*.json")):
        try:
            stored = json.loads(path.read_bytes())
            predicate = home.signer.verify(stored["record"])["predicate"]
            told = [hashlib.sha256(m.encode()).hexdigest() for m in stored["markers"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Tampered(
                f"the canary record {path.name} cannot be read; restore it from a backup"
            ) from error
        if told != predicate["markers"]:
            raise Tampered(f"the markers in {path.name} are not those that were signed")
        markers += stored["markers"]
        of += [(predicate["id"], predicate["name"])] * len(told)
    return _Known(tuple(markers), tuple(of))


def scan(path: Path, *, tenant: str | None = None, home: Home | None = None) -> list[Sighting]:
    """Where the tenant's markers are: rows of text columns, or lines of a file that is no table.

    Raises UserError when the tenant has planted none, Tampered when its records were changed.
    """
    from dataset_guard.checks.leakage.suite_index import index_of, search

    with opened_home(home) as opened:
        principal = opened.principal(tenant=tenant)
        known = _known(opened, principal.tenant)
        if not known.markers:
            raise UserError(f"{principal.tenant} has planted no canaries; see: trainguard dataset canary add")
        units = index_of(pa.array(known.markers, pa.large_string()))
        seen: dict[tuple[str, str, str | None], tuple[set[int], set[int]]] = {}
        for column, first, texts in texts_of(path):
            for hits in search(units, texts, 0.99):
                for place, unit in zip((hits.texts + first).tolist(), hits.units.tolist(), strict=True):
                    places, markers = seen.setdefault((*known.of[unit], column), (set(), set()))
                    places.add(place)
                    markers.add(unit)
        found = [
            Sighting(id_, name, column, tuple(sorted(places)), len(markers))
            for (id_, name, column), (places, markers) in sorted(seen.items(), key=str)
        ]
        if found:
            opened.audit.event(
                "dataset.canary_found",
                subject=f"{principal.tenant}/{found[0].name}",
                data={"found": [s.to_json() | {"file": path.name} for s in found]},
                enforcement=Enforcement.DETECTIVE,
            )
    return found


def texts_of(path: Path, *, lines: int = 4_096) -> Iterator[tuple[str | None, int, Any]]:
    """``(column, number of the first, texts)`` of a data file, or ``(None, ...)`` of the lines of any
    other."""
    from dataset_guard.reading import open_source
    from dataset_guard.reading.files import FORMATS, extension_of
    from dataset_guard.scanning.profile import is_text, plain

    if not path.exists():
        raise UserError(f"there is no file {path}; check the path")
    if path.is_dir() or extension_of(path) in FORMATS:
        source = open_source(path)
        names = [f.name for f in source.schema if is_text(f.type)]
        row = 0
        for batch in source.batches(columns=names) if names else []:
            for name in names:
                yield name, row, plain(batch.column(batch.schema.get_field_index(name)))
            row += batch.num_rows
        return
    with path.open("rb") as file:
        number, held = 0, []
        for line in file:
            held.append(line[: 1 << 20].decode("utf-8", "replace"))
            if len(held) == lines:
                yield None, number, pa.array(held, pa.large_string())
                number, held = number + len(held), []
        if held:
            yield None, number, pa.array(held, pa.large_string())
