"""``dg1``: equal to the specification's slow twin, and blind to layout."""

import numpy as np
import pyarrow as pa
import pytest
import reference_dg1 as reference
from dg1_tables import relayouts, rng_of, tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_guard.hashing.canonical import canonical_schema, logical_type
from dataset_guard.hashing.fingerprint import BLOCK_ROWS, Fingerprinter, combine
from dataset_guard.hashing.rowhash import RowHasher
from dataset_guard.hashing.rowset import SetRoot
from guard_core.errors import UserError

relaxed = settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))


def fingerprint_of(table_or_batches):
    batches = table_or_batches
    if isinstance(batches, pa.Table):
        batches = batches.to_batches() or [pa.RecordBatch.from_pylist([], schema=batches.schema)]
    printer = Fingerprinter(batches[0].schema)
    hashes = SetRoot(batches[0].schema.names)
    for batch in batches:
        printer.update(batch)
        hashes.add(RowHasher(batch.schema).hash(batch).public)
    return printer.finish(set_root=hashes.finish())


def reference_columns(table, values):
    return {f.name: (logical_type(f), values[f.name]) for f in table.schema}


@relaxed
@given(tables())
def test_the_fast_implementation_equals_the_one_written_from_the_specification(drawn):
    table, values = drawn
    columns = reference_columns(table, values)
    found = fingerprint_of(table)
    assert (found.sequence_root, found.schema_root) == reference.roots(columns, table.num_rows)
    assert found.set_root == reference.set_root(columns, table.num_rows)


@relaxed
@given(tables(), st.integers(0, 2**32))
def test_slices_chunks_encodings_and_column_order_do_not_change_any_root(drawn, seed):
    table, _ = drawn
    batches = relayouts(table, rng_of(seed)) or table.to_batches()
    if not batches:
        return
    a, b = fingerprint_of(table), fingerprint_of(batches)
    assert (a.fingerprint, a.schema_root, a.set_root, a.bytes) == (
        b.fingerprint,
        b.schema_root,
        b.set_root,
        b.bytes,
    )


def big_table(rows=150_000):
    rng = np.random.default_rng(1)
    return pa.table(
        {
            "n": rng.integers(0, 99, rows),
            "x": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.1),
            "s": [None if i % 7 == 0 else f"row {i % 1000}" for i in range(rows)],
            "v": pa.array([[i, None] if i % 3 else None for i in range(rows)], pa.list_(pa.int32())),
        }
    )


BIG = big_table()


def test_tables_of_several_blocks_equal_the_reference():
    columns = {f.name: (logical_type(f), BIG.column(f.name).to_pylist()) for f in BIG.schema}
    assert fingerprint_of(BIG).sequence_root == reference.roots(columns, BIG.num_rows)[0]


@pytest.mark.parametrize("batch_rows", [1_000, 50_001, 65_536, 65_537, 140_000])
def test_batch_sizes_do_not_matter(batch_rows):
    assert (
        fingerprint_of(BIG.to_batches(max_chunksize=batch_rows)).fingerprint
        == fingerprint_of(BIG).fingerprint
    )


def test_parts_by_block_range_combine_to_the_same_fingerprint_in_any_order():
    parts = []
    for first_block in (2, 0, 1):
        printer = Fingerprinter(BIG.schema, first_block=first_block)
        for batch in BIG.slice(first_block * BLOCK_ROWS, BLOCK_ROWS).to_batches(max_chunksize=10_000):
            printer.update(batch)
        parts.append(printer.part())
    assert combine(parts).fingerprint == fingerprint_of(BIG).fingerprint


def test_a_missing_part_is_refused():
    printer = Fingerprinter(BIG.schema, first_block=1)
    printer.update(BIG.slice(0, 10).to_batches()[0])
    with pytest.raises(ValueError, match="starts at block 0"):
        combine([printer.part()])


def changed(table, name, row, value):
    values = table.column(name).to_pylist()
    values[row] = value
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(name), pa.array(values, table.schema.field(name).type))


@pytest.mark.parametrize(
    ("column", "row", "value", "block"),
    [("n", 70_000, -1, 1), ("x", 149_999, None, 2), ("s", 0, "", 0), ("v", 65_535, [65_535], 0)],
)
def test_one_changed_value_changes_exactly_the_leaf_of_its_block_and_column(column, row, value, block):
    a, b = fingerprint_of(BIG), fingerprint_of(changed(BIG, column, row, value))
    unequal = np.argwhere((a.leaves != b.leaves).any(axis=2)).tolist()
    position = [c.name for c in a.columns].index(column)
    assert unequal == [[block, position]]
    assert a.fingerprint != b.fingerprint
    assert a.set_root != b.set_root


def test_permuted_rows_keep_the_set_root_but_not_the_fingerprint():
    order = np.random.default_rng(3).permutation(BIG.num_rows)
    a, b = fingerprint_of(BIG), fingerprint_of(BIG.take(pa.array(order)))
    assert a.set_root == b.set_root
    assert a.fingerprint != b.fingerprint


def test_a_doubled_row_changes_the_set_root():
    a, b = BIG.slice(0, 10), pa.concat_tables([BIG.slice(0, 10), BIG.slice(0, 1)])
    assert fingerprint_of(a).set_root != fingerprint_of(b).set_root


def test_a_set_root_that_spills_to_disk_is_the_same(monkeypatch):
    hashes = RowHasher(BIG.schema).hash(BIG.combine_chunks().to_batches()[0]).public
    monkeypatch.setattr("dataset_guard.hashing.rowset._RUN_ROWS", 20_000)
    spilled = SetRoot(BIG.schema.names, memory_bytes=500_000)
    for start in range(0, len(hashes), 7_000):
        spilled.add(hashes[start : start + 7_000])
    assert spilled.finish().hex() == fingerprint_of(BIG).set_root


def test_a_narrower_integer_changes_the_schema_but_not_the_rows():
    wide = pa.table({"a": pa.array([1, 2, None], pa.int64())})
    narrow = wide.cast(pa.schema([("a", pa.int8())]))
    a, b = fingerprint_of(wide), fingerprint_of(narrow)
    assert a.schema_root != b.schema_root
    assert a.set_root == b.set_root


def test_bytes_owned_by_a_null_string_are_not_data():
    valid = pa.py_buffer(bytes([0b101]))
    offsets = pa.py_buffer(np.array([0, 1, 9, 10], np.int32))
    dirty = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"a" + b"leftover" + b"b"), valid)
    assert dirty.to_pylist() == ["a", None, "b"]
    clean = pa.table({"s": ["a", None, "b"]})
    assert fingerprint_of(pa.table({"s": dirty})).fingerprint == fingerprint_of(clean).fingerprint


def test_garbage_under_null_lists_structs_and_maps_is_not_data():
    values = pa.array([1, 2, 3, 4])
    offsets = pa.array([0, 1, 3, 4], pa.int32())
    mask = pa.array([False, True, False])
    dirty = pa.table(
        {
            "l": pa.ListArray.from_arrays(offsets, values, mask=mask),
            "m": pa.MapArray.from_arrays(offsets, pa.array(["a", "b", "c", "d"]), values, mask=mask),
            "s": pa.StructArray.from_arrays([values.slice(0, 3)], names=["x"], mask=mask),
            "f": pa.FixedSizeListArray.from_arrays(pa.array(range(6)), 2, mask=mask),
        }
    )
    clean = pa.table(
        {
            name: pa.array(dirty.column(name).to_pylist(), dirty.schema.field(name).type)
            for name in dirty.column_names
        }
    )
    assert fingerprint_of(dirty).fingerprint == fingerprint_of(clean).fingerprint
    assert fingerprint_of(dirty).set_root == fingerprint_of(clean).set_root


def union_arrays():
    codes = pa.array([5, 0, 5, 0], pa.int8())
    sparse = pa.UnionArray.from_sparse(
        codes, [pa.array([9, 1, 9, None]), pa.array(["a", "-", "b", "-"])], ["i", "s"], [0, 5]
    )
    dense = pa.UnionArray.from_dense(
        codes,
        pa.array([0, 0, 1, 1], pa.int32()),
        [pa.array([1, None]), pa.array(["a", "b"])],
        ["i", "s"],
        [0, 5],
    )
    return sparse, dense


def test_sparse_and_dense_unions_are_the_same_and_equal_the_reference():
    sparse, dense = union_arrays()
    values = [(5, "a"), (0, 1), (5, "b"), (0, None)]
    for first in (0, 1):
        for array in (sparse, dense):
            table = pa.table({"u": array.slice(first)})
            found = fingerprint_of(table)
            columns = {"u": (logical_type(table.schema.field("u")), values[first:])}
            assert columns["u"][0] == 'union<0 "i": int64, 5 "s": string>'
            assert (found.sequence_root, found.schema_root) == reference.roots(columns, 4 - first)
            assert found.set_root == reference.set_root(columns, 4 - first)


def test_an_extension_type_is_its_storage_with_name_and_parameters():
    tensor = pa.fixed_shape_tensor(pa.int32(), [2, 3])
    storage = pa.array([[1, 2, 3, 4, 5, 6]] * 2, tensor.storage_type)
    known = pa.table({"t": pa.ExtensionArray.from_storage(tensor, storage)})
    metadata = {
        "ARROW:extension:name": tensor.extension_name,
        "ARROW:extension:metadata": '{ "shape" : [2, 3] }',
    }
    unknown = pa.table([storage], schema=pa.schema([pa.field("t", storage.type, metadata=metadata)]))
    other = pa.table(
        {"t": pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int32(), [3, 2]), storage)}
    )
    assert logical_type(known.schema.field("t")) == (
        'extension<"arrow.fixed_shape_tensor", "{\\"shape\\":[2,3]}", fixed_size_list[6]<int32>>'
    )
    assert fingerprint_of(known).fingerprint == fingerprint_of(unknown).fingerprint
    assert fingerprint_of(known).fingerprint != fingerprint_of(other).fingerprint
    assert fingerprint_of(known).set_root == fingerprint_of(pa.table({"t": storage})).set_root


def test_seconds_are_milliseconds_and_date64_is_date():
    seconds = pa.table(
        {"t": pa.array([1, None], pa.timestamp("s")), "d": pa.array([86_400_000, None], pa.date64())}
    )
    millis = pa.table(
        {"t": pa.array([1000, None], pa.timestamp("ms")), "d": pa.array([1, None], pa.date32())}
    )
    assert fingerprint_of(seconds).fingerprint == fingerprint_of(millis).fingerprint


def test_seconds_beyond_the_canonical_unit_are_refused():
    with pytest.raises(UserError, match="outside the range"):
        fingerprint_of(pa.table({"t": pa.array([2**62], pa.timestamp("s"))}))


def test_no_rows_and_no_columns_have_fingerprints_of_their_own():
    no_rows = fingerprint_of(pa.table({"a": pa.array([], pa.int64())}))
    nothing = fingerprint_of(pa.table({}))
    assert (no_rows.rows, len(no_rows.leaves)) == (0, 0)
    assert no_rows.sequence_root == reference.roots({"a": ("int64", [])}, 0)[0]
    assert nothing.sequence_root == reference.roots({}, 0)[0]
    assert nothing.fingerprint != no_rows.fingerprint


@pytest.mark.parametrize(
    "schema",
    [
        pa.schema([("a", pa.int8()), ("a", pa.int8())]),
        pa.schema([("s", pa.struct([("a", pa.int8()), ("a", pa.int8())]))]),
    ],
    ids=["columns", "members"],
)
def test_two_columns_of_one_name_are_refused(schema):
    with pytest.raises(UserError, match="two columns named 'a'"):
        canonical_schema(schema)


def test_a_batch_with_other_columns_is_refused():
    printer = Fingerprinter(pa.schema([("a", pa.int8())]))
    with pytest.raises(UserError, match="changes its columns"):
        printer.update(pa.record_batch({"a": ["x"]}))


def test_rows_longer_than_a_blake3_chunk_equal_the_reference():
    values = {
        "s": ["x" * n for n in (1018, 1019, 1020, 1021, 1022, 5_000, 70_000)],
        "n": [1, None, 2, 3, 4, 5, 6],
    }
    table = pa.table(values)
    columns = reference_columns(table, values)
    digests = [d[:16].hex() for d in reference.row_digests(columns, 7)]
    public = RowHasher(table.schema).hash(table.to_batches()[0]).public
    assert [f"{int(hi):016x}{int(lo):016x}" for hi, lo in public] == digests


@pytest.mark.parametrize("label", ["a", "k", "m", "s", "z"])
def test_feature_hashes_are_those_of_the_table_without_its_label(label):
    """Rows of every length, labels at every place and of every width: the kernel that cuts works on words."""
    key = bytes(range(32))
    rows = 3_000
    rng = np.random.default_rng(4)
    table = pa.table(
        {
            "a": ["y" * int(n) for n in rng.integers(0, 70, rows)],
            "k": [bool(b) for b in rng.integers(0, 2, rows)],
            "m": ["x" * int(n) if n else None for n in rng.integers(0, 200, rows)],
            "s": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.5),
            "z": [b"z" * int(n) for n in rng.integers(0, 1_300, rows)],
        }
    )
    both = RowHasher(table.schema, key=key, label=label).hash(table.to_batches()[0])
    without = table.drop_columns([label]).to_batches()[0]
    assert (both.features == RowHasher(without.schema, key=key).hash(without).keyed).all()
    excluded = RowHasher(table.schema, key=key, exclude=[label]).hash(table.to_batches()[0])
    assert (both.features == excluded.keyed).all()


def test_two_tenants_hashes_of_one_row_are_unrelated():
    batch = BIG.slice(0, 100).combine_chunks().to_batches()[0]
    a, b = (RowHasher(batch.schema, key=bytes([k]) * 32).hash(batch).keyed for k in (1, 2))
    assert not np.isin(a, b).any()
