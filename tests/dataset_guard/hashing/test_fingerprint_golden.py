"""Vectors that every release reproduces, for ever. A failure means that ``dg1`` changed: use a new prefix."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import reference_dg1 as reference
from golden_tables import golden_tables

from dataset_guard.hashing.canonical import logical_type
from dataset_guard.hashing.fingerprint import Fingerprinter
from dataset_guard.hashing.rowhash import RowHasher
from dataset_guard.hashing.rowset import SetRoot

GOLDEN = Path(__file__).parents[2] / "golden" / "v1" / "fingerprint.json"
TENANT_KEY = bytes(range(32))


def vector(table):
    printer = Fingerprinter(table.schema)
    hashes = SetRoot(table.schema.names)
    keyed = []
    hasher = RowHasher(table.schema, key=TENANT_KEY)
    for batch in table.to_batches():
        printer.update(batch)
        found = hasher.hash(batch)
        hashes.add(found.public)
        keyed += [f"{int(hi):016x}{int(lo):016x}" for hi, lo in found.keyed[:3]]
    result = printer.finish(set_root=hashes.finish())
    return {
        "types": {f.name: logical_type(f) for f in table.schema},
        "fingerprint": result.fingerprint,
        "schema_root": result.schema_root,
        "set_root": result.set_root,
        "rows": result.rows,
        "bytes": result.bytes,
        "tenant_row_hashes": keyed[:3],
    }


TABLES = golden_tables()
VECTORS = json.loads(GOLDEN.read_text(encoding="utf-8"))["vectors"] if GOLDEN.exists() else {}


@pytest.mark.parametrize("case", sorted(TABLES))
def test_the_vector_is_reproduced(case):
    assert vector(TABLES[case]) == VECTORS[case]


def plain(array):
    """The values as the reference takes them: whole numbers for times, (code, value) for unions."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    t = array.type
    if isinstance(t, pa.BaseExtensionType):
        return plain(array.storage)
    if pa.types.is_dictionary(t):
        return plain(array.dictionary_decode())
    if pa.types.is_run_end_encoded(t):
        return plain(pc.run_end_decode(array))
    if pa.types.is_union(t):
        names = {t.field(i).name: code for i, code in enumerate(t.type_codes)}
        codes = np.frombuffer(array.buffers()[1], np.int8)[: len(array)].tolist()
        assert set(codes) <= set(names.values())
        return list(zip(codes, array.to_pylist(), strict=True))
    if pa.types.is_temporal(t) and not pa.types.is_interval(t):
        whole = array.cast(pa.int32() if t.bit_width == 32 else pa.int64())
        scale = 1_000 if getattr(t, "unit", "") == "s" else 1
        return [
            None if v is None else v // 86_400_000 if pa.types.is_date64(t) else v * scale
            for v in whole.to_pylist()
        ]
    return array.to_pylist()


@pytest.mark.parametrize("case", sorted(set(TABLES) - {"two blocks", "one full block"}))
def test_the_implementation_written_from_the_specification_makes_the_same_vector(case):
    table = TABLES[case]
    columns = {f.name: (logical_type(f), plain(table.column(f.name))) for f in table.schema}
    found, schema = reference.roots(columns, table.num_rows)
    assert f"dg1:{found}" == VECTORS[case]["fingerprint"]
    assert schema == VECTORS[case]["schema_root"]
    assert reference.set_root(columns, table.num_rows) == VECTORS[case]["set_root"]


def test_no_vector_is_dropped():
    assert set(VECTORS) == set(TABLES)


def test_layouts_of_one_table_share_their_vector():
    for a, b in [("string", "large_string"), ("binary", "binary_view"), ("list", "list_view")]:
        assert VECTORS[a]["fingerprint"] == VECTORS[b]["fingerprint"]


if __name__ == "__main__":  # writes vectors of new cases only; never changes an old one
    made = {case: VECTORS.get(case) or vector(table) for case, table in TABLES.items()}
    note = "dg1 vectors; tables in tests/dataset_guard/golden_tables.py; tenant key 00 01 .. 1f"
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    document = {"note": note, "vectors": dict(sorted(made.items()))}
    GOLDEN.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
