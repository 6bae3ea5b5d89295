"""A set that grew is judged by reading its new rows: what is kept of the others says all that they would."""

import io
import pickle
import struct

import pyarrow.parquet as pq
import pytest
from registered import table

import dataset_guard
from dataset_guard.hashing.fingerprint import BLOCK_ROWS
from dataset_guard.registry.store import Registry
from dataset_guard.scanning.passing import Pass
from dataset_guard.sidecars import learnt
from dataset_guard.sidecars.sealed_stream import SealedReader, SealedWriter
from guard_core.errors import Tampered

OLD, NEW = BLOCK_ROWS + 900, 500
CHEAP = ["schema", "expectations", "exact_overlap"]


@pytest.fixture
def read(monkeypatch):
    """How many rows checks and profile were given."""
    seen, whole = [], Pass.read

    def counted(self, batches, *rest):
        return whole(self, (seen.append(b.num_rows) or b for b in batches), *rest)

    monkeypatch.setattr(Pass, "read", counted)
    return seen


@pytest.fixture
def grown(tmp_path, home):
    """A folder that grew after its first version."""
    pq.write_table(table(OLD, seed=3), tmp_path / "0.parquet")
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "0.parquet").rename(folder / "0.parquet")
    register(folder, home)
    pq.write_table(table(NEW, seed=9), folder / "1.parquet")
    return folder


@pytest.fixture
def grown_with_all_checks(grown, home):
    """The same, whose newest version was looked at by every check."""
    (grown / "1.parquet").rename(grown.parent / "1.parquet")
    register(grown, home, checks=None)
    (grown.parent / "1.parquet").rename(grown / "1.parquet")
    return grown


def register(folder, home, name="set", **how):
    how = {"label": "label", "checks": CHEAP, **how}
    return dataset_guard.register(folder, name=name, tenant="acme", home=home, **how)


def kept(home, number, name="set"):
    return Registry(home).folder("acme", name, number) / learnt.FILE


def said(report):
    """Everything but its name, the time and the decision."""
    document = report.document()
    checks = [{k: v for k, v in c.items() if k != "seconds"} for c in document["checks"]]
    return {k: document[k] for k in ("fingerprint", "rows", "profile", "findings", "verdict")} | {"c": checks}


def test_all_checks_find_in_the_new_rows_what_they_find_in_all(grown_with_all_checks, home, read):
    del read[:]
    helped = register(grown_with_all_checks, home, checks=None)
    assert sum(read) == OLD - BLOCK_ROWS + NEW
    alone = register(grown_with_all_checks, home, name="other", checks=None)
    assert sum(read) == OLD - BLOCK_ROWS + NEW + OLD + NEW
    assert said(helped) == said(alone)
    records = [Registry(home).reference(r.ref, tenant="acme").record for r in (helped, alone)]
    assert records[0]["content"] == records[1]["content"]
    assert records[0]["rows_root"] == records[1]["rows_root"]


def test_what_was_kept_is_kept_again_and_with_the_newest_version_only(grown, home, read):
    assert kept(home, 1).exists()
    register(grown, home)
    assert not kept(home, 1).exists()
    pq.write_table(table(BLOCK_ROWS, seed=11), grown / "2.parquet")
    del read[:]
    third = register(grown, home)
    assert sum(read) == OLD - BLOCK_ROWS + NEW + BLOCK_ROWS
    pq.write_table(table(5, seed=12), grown / "3.parquet")
    del read[:]
    fourth = register(grown, home)
    assert sum(read) == OLD + NEW + 5 - BLOCK_ROWS
    assert third.rows + 5 == fourth.rows
    assert said(fourth) == said(register(grown, home, name="other"))


@pytest.mark.parametrize(
    "how", [{"label": None}, {"split": "train"}, {"checks": ["schema"]}, {"trusted": "set@1"}]
)
def test_what_was_learnt_of_another_question_is_no_answer(grown, home, read, how):
    del read[:]
    register(grown, home, **how)
    assert sum(read) == OLD + NEW


def test_rows_that_stand_elsewhere_now_are_read(grown, home, read):
    (grown / "1.parquet").rename(grown / "-1.parquet")
    del read[:]
    assert said(register(grown, home)) == said(register(grown, home, name="other"))
    assert sum(read) == 2 * (OLD + NEW)


def test_a_file_that_was_changed_is_not_read(grown, home, read, monkeypatch):
    raw = bytearray(kept(home, 1).read_bytes())
    raw[len(raw) // 2] ^= 1
    kept(home, 1).write_bytes(raw)
    del read[:]
    register(grown, home)
    assert sum(read) == OLD + NEW


def test_states_that_are_too_large_are_not_kept(grown, home, read, monkeypatch):
    monkeypatch.setattr(learnt, "MOST_BYTES", 10_000)
    register(grown, home)
    assert not kept(home, 2).exists()


def test_no_row_can_be_read_in_what_is_kept(grown, home):
    """The profile keeps a sample of numbers, and a check one of rows."""
    register(grown, home, checks=["target_leakage"])
    raw = kept(home, 2).read_bytes()
    numbers = table(OLD, seed=3).column("x").to_pylist()[::300]
    assert len(raw) > 100_000
    assert not any(struct.pack("<d", number) in raw for number in numbers)


def sealed(data, **how):
    file = io.BytesIO()
    sink = SealedWriter(file, **{"key": bytes(32), "context": "test", "about": b"x", **how})
    for start in range(0, len(data), 700_001):
        sink.write(data[start : start + 700_001])
    sink.close()
    return file.getvalue()


def opened(raw, **how):
    return SealedReader(io.BytesIO(raw), **{"key": bytes(32), "context": "test", "about": b"x", **how}).read()


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_a_sealed_stream_comes_back_whole(size):
    data = bytes(range(256)) * (size // 256 + 1)
    assert opened(sealed(data[:size])) == data[:size]


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw[: 7 + (1 << 20) + 16],
        lambda raw: raw[:-1],
        lambda raw: raw[:7] + raw[7 + (1 << 20) + 16 :],
        lambda raw: raw[:100] + bytes([raw[100] ^ 1]) + raw[101:],
        lambda raw: raw + bytes(40),
    ],
)
def test_a_sealed_stream_that_was_changed_is_refused(change):
    with pytest.raises(Tampered):
        opened(change(sealed(bytes(3_000_000))))


@pytest.mark.parametrize("how", [{"key": bytes(31) + b"1"}, {"context": "other"}, {"about": b"y"}])
def test_a_sealed_stream_is_opened_by_its_key_for_its_purpose_only(how):
    with pytest.raises(Tampered):
        opened(sealed(b"abc"), **how)


def test_states_load_no_code_but_that_of_states():
    with pytest.raises(pickle.UnpicklingError, match="states do not hold"):
        learnt._Unpickler(io.BytesIO(pickle.dumps(print)), _Plan, _Known).load()


class _Plan:
    context, checks = None, ()


class _Known:
    keyed = features = None
