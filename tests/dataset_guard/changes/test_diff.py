"""What changed between two tables is told by row numbers and columns, never by values."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dataset_guard
from dataset_guard.changes.diff import _only_in
from guard_core.errors import UserError
from guard_core.testing import temporary_home

A = pa.table(
    {"id": list(range(1_000)), "x": [i * 0.5 for i in range(1_000)], "s": [f"s{i}" for i in range(1_000)]}
)


@pytest.fixture(scope="module")
def home():
    with temporary_home() as home:
        yield home


def diff(home, a, b, **options):
    return dataset_guard.diff(a, b, tenant="acme", home=home, **options)


def changed(row, value):
    return A.set_column(
        1, "x", pa.array([value if i == row else v for i, v in enumerate(A["x"].to_pylist())])
    )


def test_equal_tables_do_not_differ(home):
    found = diff(home, A, A)
    assert found.same
    assert not found.reordered


def test_another_encoding_is_the_same_content_and_another_type_is_named(home, tmp_path):
    from dataset_guard.commands.text import difference_text

    pq.write_table(A, tmp_path / "a.parquet", compression="zstd", row_group_size=100)
    found = diff(home, A, tmp_path / "a.parquet")
    assert found.same_content
    assert "the same content, however each is stored" in difference_text(found)
    narrow = A.set_column(0, "id", A["id"].cast(pa.int32()))
    found = diff(home, A, narrow)
    assert (found.same_content, found.types) == (False, (("id", "int64", "int32"),))
    assert "retyped: id (int64 -> int32)\n  equal values in all rows" in difference_text(found)


def test_another_order_of_rows_is_told_apart_from_a_change(home):
    found = diff(home, A, A.take(pa.array(np.random.default_rng(1).permutation(1_000))))
    assert (found.same, found.reordered) == (True, True)


def test_without_a_key_a_changed_row_is_removed_and_added(home):
    found = diff(home, A, changed(7, -1.0))
    assert (found.removed.to_json(), found.added.to_json(), len(found.changed)) == ([7], [7], 0)


def test_with_a_key_a_changed_row_is_changed(home):
    b = pa.concat_tables([changed(7, -1.0).slice(2), pa.table({"id": [5_000], "x": [0.0], "s": ["new"]})])
    found = diff(home, A, b, key="id")
    assert found.changed.to_json() == [5]
    assert found.removed.to_json() == [0, 1]
    assert found.added.to_json() == [998]


def test_the_columns_in_which_changed_rows_differ_are_named_with_counts(home, tmp_path):
    from dataset_guard.commands.text import difference_text

    x, s = A["x"].to_pylist(), A["s"].to_pylist()
    x[3] = x[700] = None
    s[700] = "other"
    b = pa.table({"id": A["id"].cast(pa.int32()), "x": x, "s": s})
    b = b.take(pa.array(np.random.default_rng(2).permutation(1_000)))  # and in another order
    pq.write_table(b, tmp_path / "b.parquet", row_group_size=90)
    found = diff(home, A, tmp_path / "b.parquet", key="id")
    assert found.changed_columns == (("s", 1), ("x", 2))
    assert sorted(b["id"].to_pylist()[row] for row in found.changed) == [3, 700]
    assert found.to_json()["changed"]["columns"] == {"s": 1, "x": 2}
    assert "\n    in s (1), x (2)" in difference_text(found)
    assert "other" not in difference_text(found)


def test_duplicates_are_counted(home):
    found = diff(home, pa.concat_tables([A, A.slice(3, 1), A.slice(3, 1)]), A)
    assert len(found.removed) == 2
    assert set(found.removed) <= {3, 1_000, 1_001}


def test_columns_are_compared_and_rows_over_the_common_ones(home):
    b = A.drop_columns(["s"]).append_column("t", pa.array([0] * 1_000))
    b = b.set_column(0, "id", b["id"].cast("int16"))
    found = diff(home, A, b)
    assert (found.added_columns, found.removed_columns, found.retyped_columns) == (("t",), ("s",), ("id",))
    assert len(found.added) == len(found.removed) == 0


def test_registered_versions_are_compared_without_their_data(home, tmp_path):
    for i, table in enumerate((A, changed(500, 9.5)), 1):
        pq.write_table(table, tmp_path / f"{i}.parquet")
        dataset_guard.register(tmp_path / f"{i}.parquet", name="d", tenant="acme", home=home, checks=[])
    pq.write_table(changed(1, 1.25), tmp_path / "now.parquet")
    for i in (1, 2):
        (tmp_path / f"{i}.parquet").unlink()
    assert diff(home, "d@1", "d@2").added.to_json() == [500]
    assert diff(home, "d@1", tmp_path / "now.parquet").added.to_json() == [1]
    with pytest.raises(UserError, match="is gone"):
        diff(home, "d@1", "d@2", key="id")


def test_a_key_must_name_rows(home):
    with pytest.raises(UserError, match="no key column 'zz'"):
        diff(home, A, A, key="zz")
    with pytest.raises(UserError, match="repeats values"):
        diff(home, A, pa.concat_tables([A, A]), key="id")


def test_what_is_neither_registered_nor_a_file_is_refused(home):
    with pytest.raises(UserError, match="no dataset 'zzz'"):
        diff(home, A, "zzz")
    with pytest.raises(UserError, match="neither a registered dataset nor a file"):
        diff(home, A, "no such.parquet!")
    with pytest.raises(UserError, match="another tenant"):
        diff(home, "acme/d@1", "beta/x@1")


multisets = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=12)


@settings(deadline=None)
@given(multisets, multisets)
def test_the_rows_only_in_one_table_are_the_multiset_difference(a, b):
    mine, other = (np.array(x, np.uint64).reshape(-1, 2) for x in (a, b))
    rows = _only_in(mine, other)
    left = [a[r] for r in rows]
    expected = list(a)
    for item in b:
        if item in expected:
            expected.remove(item)
    assert sorted(left) == sorted(expected)
    assert len(set(rows.tolist())) == len(rows)
