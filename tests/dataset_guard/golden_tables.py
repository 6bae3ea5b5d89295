"""The tables behind ``tests/golden/v1/fingerprint.json``: one per type, with nulls and edge values."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

D = Decimal
BYTES = pa.array([1, 0, None], pa.int8())
OPAQUE = pa.opaque(pa.binary(), "geo", "vendor")


def single(t, values):
    return pa.table({"x": pa.array(values, t)})


def golden_tables():
    """{case: table}; cases are only ever added."""
    cases = {
        "null": single(pa.null(), [None, None]),
        "bool": single(pa.bool_(), [True, False, None, True]),
        "float16": single(pa.float16(), [1.5, -0.0, float("nan"), None, float("inf")]),
        "float32": single(pa.float32(), [1.5, -0.0, float("nan"), None, float("-inf")]),
        "float64": single(pa.float64(), [1.5, -0.0, float("nan"), None, 5e-324]),
        "float64 without nulls": single(pa.float64(), [0.1, 0.2]),
        "decimal32": single(pa.decimal32(5, 2), [D("1.25"), None, D("-999.99")]),
        "decimal64": single(pa.decimal64(12, 3), [D("1.250"), None]),
        "decimal128": single(pa.decimal128(30, 4), [D("-1.2500"), None]),
        "decimal256": single(pa.decimal256(60, 5), [D("1E+20"), None]),
        "date32": single(pa.date32(), [-1, 0, None, 20_000]),
        "time32 ms": single(pa.time32("ms"), [0, 86_399_999, None]),
        "time64 us": single(pa.time64("us"), [0, 86_399_999_999, None]),
        "time64 ns": single(pa.time64("ns"), [1, None]),
        "timestamp s": single(pa.timestamp("s"), [-1, 0, None]),
        "timestamp us zone": single(pa.timestamp("us", tz="Asia/Shanghai"), [-1, 1_500, 2_000_000, None]),
        "timestamp ns": single(pa.timestamp("ns"), [1, 1_000, None]),
        "duration ms": single(pa.duration("ms"), [-1, 5_000, None]),
        "interval": single(pa.month_day_nano_interval(), [(1, -2, 3), None]),
        "string": single(pa.string(), ["", "é漢🙂", None, "a"]),
        "large_string": single(pa.large_string(), ["", "é漢🙂", None, "a"]),
        "string_view": single(pa.string_view(), ["", "é漢🙂", None, "a longer string than twelve bytes"]),
        "binary": single(pa.binary(), [b"", b"\x00\xff", None]),
        "binary_view": single(pa.binary_view(), [b"", b"\x00\xff", None]),
        "fixed_size_binary": single(pa.binary(3), [b"abc", None]),
        "list": single(pa.list_(pa.int32()), [[1, None], [], None]),
        "large_list": single(pa.large_list(pa.string()), [["a", None], [], None]),
        "list_view": single(pa.list_view(pa.int32()), [[1, None], [], None]),
        "fixed_size_list": single(pa.list_(pa.float32(), 2), [[1, None], None]),
        "struct": single(
            pa.struct([("b", pa.int8()), ('a"\\', pa.list_(pa.string()))]),
            [{"b": 1, 'a"\\': ["x"]}, None, {"b": None, 'a"\\': None}],
        ),
        "map": single(pa.map_(pa.string(), pa.int64()), [[("k", 1), ("j", None)], [], None]),
        "dictionary": pa.table({"x": pa.array(["a", None, "a", "b"]).dictionary_encode()}),
        "run end encoded": pa.table({"x": pa.RunEndEncodedArray.from_arrays([2, 3], pa.array([7, None]))}),
        "uuid": pa.table({"x": pa.array([bytes(range(16)), None], pa.uuid())}),
        "union": pa.table({"x": union()}),
        "several columns": pa.table({"z": [1, 2], "Z": ["a", None], "é": [True, False], "": [0.5, None]}),
        "no rows": single(pa.int64(), []),
        "no columns": pa.table({}),
        "two blocks": pa.table({"n": pa.array(range(70_000), pa.int32())}),
        "long rows": single(pa.string(), ["x" * 1019, "y" * 1020, "z" * 5_000]),
    }
    cases |= more_layouts()
    for bits in (8, 16, 32, 64):
        high = 2 ** (bits - 1) - 1
        cases[f"int{bits}"] = single(getattr(pa, f"int{bits}")(), [-high - 1, high, None, 0])
        cases[f"uint{bits}"] = single(getattr(pa, f"uint{bits}")(), [2**bits - 1, None, 0])
    return cases


def more_layouts():
    """Every further Arrow layout: wide offsets, views, run ends, dictionaries, units, extensions."""
    nested = pa.list_(pa.struct([("k", pa.list_(pa.string())), ("v", pa.map_(pa.string(), pa.float64()))]))
    rows = [[{"k": ["a", None], "v": [("x", float("nan")), ("y", None)]}, None], None, []]
    words = pa.array(["a", None, "a", "b"])
    return {
        "date64": single(pa.date64(), [-86_400_000, 0, None]),
        "time32 s": single(pa.time32("s"), [0, 86_399, None]),
        "timestamp ms": single(pa.timestamp("ms"), [-1, 0, None]),
        "timestamp us": single(pa.timestamp("us"), [-1, 1_500, None]),
        "timestamp s zone": single(pa.timestamp("s", tz="UTC"), [-1, 0, None]),
        "timestamp ms zone": single(pa.timestamp("ms", tz="+08:00"), [-1, 0, None]),
        "timestamp ns zone": single(pa.timestamp("ns", tz="Etc/UTC"), [-1, 1_001, None]),
        "duration s": single(pa.duration("s"), [-1, 5, None]),
        "duration us": single(pa.duration("us"), [-1, 5, None]),
        "duration ns": single(pa.duration("ns"), [-1, 5, None]),
        "decimal of negative scale": single(pa.decimal128(5, -2), [D("1E+4"), D("-300"), None]),
        "large_binary": single(pa.large_binary(), [b"", b"\x00\xff", None]),
        "large_list_view": single(pa.large_list_view(pa.int32()), [[1, None], [], None]),
        "list of views": single(pa.list_(pa.string_view()), [["a", None], [], None]),
        "list of fixed lists": single(pa.list_(pa.list_(pa.int8(), 2)), [[[1, None], None], [], None]),
        "nested": single(nested, rows),
        "map of lists": single(pa.map_(pa.int32(), pa.list_(pa.bool_())), [[(1, [True, None])], None]),
        "map of sorted keys": single(pa.map_(pa.string(), pa.int64(), keys_sorted=True), [[("a", 1)], None]),
        "struct of nulls": single(
            pa.struct([("a", pa.null()), ("b", pa.int8())]), [{"a": None, "b": 1}, None]
        ),
        "struct without members": single(pa.struct([]), [{}, None]),
        "dictionary of integers": pa.table({"x": pa.array([7, None, 7]).dictionary_encode()}),
        "dictionary with a null value": pa.table(
            {"x": pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), pa.array(["a", None]))}
        ),
        "run end encoded strings": pa.table({"x": pc.run_end_encode(words, run_end_type=pa.int16())}),
        "run end encoded with 64-bit ends": pa.table(
            {"x": pc.run_end_encode(words, run_end_type=pa.int64())}
        ),
        "sparse union": pa.table({"x": sparse_union()}),
        "json": pa.table({"x": pa.array(['{"a": 1}', None], pa.json_(pa.string()))}),
        "bool8": pa.table({"x": pa.ExtensionArray.from_storage(pa.bool8(), BYTES)}),
        "opaque": pa.table(
            {
                "x": pa.ExtensionArray.from_storage(
                    pa.opaque(pa.binary(), "geo", "vendor"), pa.array([b"p", None])
                )
            }
        ),
        "fixed shape tensor": pa.table({"x": tensor()}),
        "no rows, nested": single(nested, []),
        "one full block": pa.table({"n": pa.array(range(65_536), pa.uint16())}),
        "float16 of every bit": single(pa.float16(), np.arange(65_536, dtype=np.uint16).view(np.float16)),
    }


def tensor():
    shape = pa.fixed_shape_tensor(pa.float32(), [2, 2])
    return pa.ExtensionArray.from_storage(shape, pa.array([[1, 2, 3, 4]], shape.storage_type))


def sparse_union():
    members = [pa.array([9, 1, None]), pa.array(["a", "-", "b"])]
    return pa.UnionArray.from_sparse(pa.array([5, 0, 0], pa.int8()), members, ["i", "s"], [0, 5])


def union():
    members = [pa.array([1, None]), pa.array(["a"])]
    codes, offsets = pa.array([5, 0, 5], pa.int8()), pa.array([0, 0, 1], pa.int32())
    return pa.UnionArray.from_dense(codes, offsets, members, ["i", "s"], [5, 0])
