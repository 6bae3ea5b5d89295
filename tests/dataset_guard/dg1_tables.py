"""Tables for property tests: every Arrow type with plain values, and every layout of the same table."""

import itertools
from decimal import Decimal

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

UNITS = ("s", "ms", "us", "ns")
SMALL = 200_000  # days around 1970: every unit holds them


def _floats(width):
    return st.one_of(st.floats(width=width), st.sampled_from([0.0, -0.0, float("nan"), float("-inf"), 1.0]))


def _decimals(precision, scale):
    bound = 10**precision - 1
    return (
        st.integers(-bound, bound).map(lambda i: Decimal(i).scaleb(-scale))
        if precision <= 25
        else st.integers(-bound, bound).map(
            lambda i: Decimal((0 if i >= 0 else 1, tuple(map(int, str(abs(i)))), -scale))
        )
    )


FLAT = [
    (pa.null(), st.none()),
    (pa.bool_(), st.booleans()),
    *[(pa.int8(), st.integers(-128, 127)), (pa.uint8(), st.integers(0, 255))],
    *[(pa.int16(), st.integers(-(2**15), 2**15 - 1)), (pa.uint16(), st.integers(0, 2**16 - 1))],
    *[(pa.int32(), st.integers(-(2**31), 2**31 - 1)), (pa.uint32(), st.integers(0, 2**32 - 1))],
    *[(pa.int64(), st.integers(-(2**63), 2**63 - 1)), (pa.uint64(), st.integers(0, 2**64 - 1))],
    *[(pa.float16(), _floats(16)), (pa.float32(), _floats(32)), (pa.float64(), _floats(64))],
    *[(pa.decimal32(5, 2), _decimals(5, 2)), (pa.decimal64(12, 3), _decimals(12, 3))],
    *[(pa.decimal128(20, -2), _decimals(20, -2)), (pa.decimal128(38, 10), _decimals(38, 10))],
    *[(pa.decimal256(20, 2), _decimals(20, 2)), (pa.decimal256(60, 5), _decimals(60, 5))],
    (pa.date32(), st.integers(-SMALL, SMALL)),
    (pa.time32("ms"), st.integers(0, 86_399_999)),
    (pa.time64("us"), st.integers(0, 86_399_999_999)),
    (pa.time64("ns"), st.integers(0, 86_399_999_999_999)),
    *[(pa.timestamp(u), st.integers(-(10**15), 10**15).map(lambda i: i * 1000)) for u in UNITS[1:]],
    (pa.timestamp("us"), st.integers(-(2**63), 2**63 - 1)),
    (pa.timestamp("ns", tz="Europe/Paris"), st.integers(-(10**15), 10**15)),
    *[(pa.duration(u), st.integers(-(10**12), 10**12)) for u in UNITS[1:]],
    (
        pa.month_day_nano_interval(),
        st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(-(2**62), 2**62)),
    ),
    *[(t, st.text(max_size=8)) for t in (pa.string(), pa.large_string(), pa.string_view())],
    *[(t, st.binary(max_size=20)) for t in (pa.binary(), pa.large_binary(), pa.binary_view())],
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
]


def _nested(children):
    def lists(child):
        t, values = child
        items = st.lists(st.none() | values, max_size=3)
        return st.sampled_from(
            [
                (pa.list_(t), items),
                (pa.large_list(t), items),
                (pa.list_view(t), items),
                (pa.large_list_view(t), items),
                (pa.list_(t, 2), st.lists(st.none() | values, min_size=2, max_size=2)),
            ]
        )

    def structs(pair):
        (t, a), (u, b) = pair
        return st.just(
            (pa.struct([("y", t), ("x", u)]), st.fixed_dictionaries({"y": st.none() | a, "x": st.none() | b}))
        )

    def maps(child):
        t, values = child
        entry = st.tuples(st.text(max_size=3), st.none() | values)
        return st.just((pa.map_(pa.string(), t), st.lists(entry, max_size=3)))

    return st.one_of(
        children.flatmap(lists), st.tuples(children, children).flatmap(structs), children.flatmap(maps)
    )


types = st.recursive(st.sampled_from(FLAT), _nested, max_leaves=3)


@st.composite
def tables(draw, max_rows=20, max_columns=4):
    """(pa.Table, {name: plain values}) with 0 to ``max_columns`` columns of any type."""
    rows = draw(st.integers(0, max_rows))
    names = draw(st.lists(st.text('abé漢"\\', min_size=0, max_size=3), max_size=max_columns, unique=True))
    if not names:
        rows = 0
    columns, arrays = {}, []
    for name in names:
        t, values = draw(types)
        nullable = draw(st.booleans())
        cell = st.none() | values if nullable else values
        columns[name] = draw(st.lists(cell, min_size=rows, max_size=rows))
        arrays.append(pa.array(columns[name], t))
    return pa.table(arrays, names=names), columns


def relayouts(table, rng):
    """The same logical table in another layout: sliced from a longer one, rechunked, shuffled, re-encoded."""
    n = table.num_rows
    start, pad = int(rng.integers(0, n + 1)), int(rng.integers(0, 11))
    padding = table.slice(start, pad)
    cuts = sorted({0, n, *rng.integers(0, n + 1, 3).tolist()})
    names = [str(name) for name in rng.permutation(table.column_names)] if table.num_columns else []
    longer = {}
    for name in names:
        pieces = [padding.column(name), table.column(name), padding.column(name)]
        longer[name] = _joined(pieces).slice(padding.num_rows, n)
        if not _is_valid(longer[name]):  # pyarrow 25 joins some lists of null structs wrongly
            longer[name] = pa.array(table.column(name).to_pylist(), table.column(name).type)
    batches = []
    for a, b in itertools.pairwise(cuts):
        columns = [reencoded(longer[name].slice(a, b - a), rng) for name in names]
        batches.append(pa.record_batch(columns, names=names))
    return batches


def _joined(pieces):
    return pa.concat_arrays([chunk for piece in pieces for chunk in piece.chunks])


def _is_valid(array):
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def reencoded(array, rng):
    """``array``, maybe dictionary or run-end encoded, or with another offset width."""
    choice = rng.integers(0, 4)
    t = array.type
    flat = pa.types.is_primitive(t) or pa.types.is_string(t) or pa.types.is_binary(t)
    try:
        if choice == 1 and flat:
            return array.dictionary_encode()
        if choice == 2 and flat:
            return pa.compute.run_end_encode(array)
    except pa.ArrowNotImplementedError:
        return array
    if choice == 3 and pa.types.is_string(t):
        return array.cast(pa.large_string() if rng.integers(0, 2) else pa.string_view())
    if choice == 3 and pa.types.is_binary(t):
        return array.cast(pa.large_binary())
    if choice == 3 and pa.types.is_list(t):
        wide = array.cast(pa.large_list(t.value_type))
        return wide if _is_valid(wide) else array  # pyarrow 25 widens some lists of null structs wrongly
    return array


def rng_of(seed):
    return np.random.default_rng(seed)
