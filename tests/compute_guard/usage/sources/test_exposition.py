"""The fast reader against prometheus_client's own parser, on what exporters really write."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from compute_guard.usage.sources.exposition import UNWANTED, Reader, parse_line


class Collect:
    """Interns every series; gives samples back by name and labels."""

    def __init__(self):
        self.series = []

    def __call__(self, name, labels):
        key = (name, tuple(sorted(labels.items())))
        if key not in self.series:
            self.series.append(key)
        return self.series.index(key)

    def samples(self, scrape):
        return sorted(
            (self.series[s], v) for s, v in zip(scrape.slots.tolist(), scrape.values.tolist(), strict=True)
        )


def ours(text):
    collect = Collect()
    scrape = Reader(collect).read(text.encode())
    assert scrape.malformed == 0
    assert scrape.lines == len(scrape.slots)
    return collect.samples(scrape)


def theirs(text):
    # A counter without _total gets that suffix in the client's model; the text itself does not have it.
    found = []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name
            if family.type == "counter" and f"{name} " not in text and f"{name}{{" not in text:
                name = name.removesuffix("_total")
            found.append(((name, tuple(sorted(sample.labels.items()))), float(sample.value)))
    return sorted(found)


def same(left, right):
    assert [k for k, _ in left] == [k for k, _ in right]
    for (_, a), (_, b) in zip(left, right, strict=True):
        assert a == b or (math.isnan(a) and math.isnan(b))


DCGM = r"""# HELP DCGM_FI_DEV_SM_CLOCK SM clock frequency (in MHz).
# TYPE DCGM_FI_DEV_SM_CLOCK gauge
DCGM_FI_DEV_SM_CLOCK{gpu="0",UUID="GPU-604ac76c",device="nvidia0",modelName="H100 80GB",Hostname="a1"} 1980
DCGM_FI_DEV_SM_CLOCK{gpu="1",UUID="GPU-604ac76d",device="nvidia1",modelName="H100 80GB",Hostname="a1"} 345
# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0",UUID="GPU-604ac76c",Hostname="a1"} 2.8132e+09
# TYPE tricky gauge
tricky{path="C:\\dir\\",say="a \"quoted\" } word",line="one\ntwo",comma="a,b=c"} NaN
tricky{brace="} 5"} +Inf
tricky{empty=""} -Inf
tricky{unicode="训练"} 1e-9
tricky{late="yes"} 12.5 1395066363000
  tricky{indented="yes"}   7
tricky{tab="yes"}	8
tricky{trailing="comma",} 9
tricky {space="before"} 10
bare 1
bare_with_time 2 1395066363000
zero_first 00012
"""


def test_every_oddity_of_the_format_is_read_as_the_official_parser_reads_it():
    same(ours(DCGM), theirs(DCGM))


def test_windows_line_ends_and_a_missing_last_newline_are_read_alike():
    text = DCGM.rstrip("\n").replace("\n", "\r\n")
    same(ours(text), theirs(text))


def test_what_prometheus_client_itself_writes_is_read_alike():
    registry = CollectorRegistry()
    gauge = Gauge("gpu_power_watts", 'Power, "enforced"\nlimit', ["node", "note"], registry=registry)
    gauge.labels("a", 'back\\slash and "quote"\nnewline').set(512.25)
    gauge.labels("b", "").set(float("nan"))
    Counter("requests", "Requests", ["code"], registry=registry).labels("200").inc(3)
    Histogram("wait_seconds", "Wait", registry=registry).observe(0.3)
    text = generate_latest(registry).decode()
    same(ours(text), theirs(text))


names = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True)
label_names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,5}", fullmatch=True)
words = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=8
)
numbers = st.one_of(
    st.floats(), st.integers(-(2**53), 2**53), st.sampled_from(["NaN", "+Inf", "-Inf", "1e5"])
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            names,
            st.dictionaries(label_names, words, max_size=3),
            numbers,
            st.sampled_from(["", " 1395066363000"]),
        ),
        min_size=1,
        max_size=12,
        unique_by=lambda row: (row[0], tuple(sorted(row[1].items()))),
    )
)
def test_any_valid_exposition_is_read_alike(rows):
    lines = []
    for name, labels, value, time in rows:
        escaped = {
            k: v.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for k, v in labels.items()
        }
        body = ",".join(f'{k}="{v}"' for k, v in escaped.items())
        lines.append(f"{name}{{{body}}} {value}{time}" if labels else f"{name} {value}{time}")
    text = "\n".join(lines) + "\n"
    same(ours(text), theirs(text))


@pytest.mark.parametrize(
    "line",
    [
        'gpu{a="x} 3',
        'gpu{a="x",a="y"} 3',
        "gpu{a=x} 3",
        "gpu 1 2 3",
        "gpu",
        "gpu twelve",
        "gpu 1_000",
        "9gpu 1",
        '{a="b"} 1',
        'gpu{a="b"} ',
        'gpu{a="b"}{c="d"} 1',
    ],
)
def test_a_malformed_line_is_counted_with_its_number_and_hides_no_other(line):
    collect = Collect()
    scrape = Reader(collect).read(f"# comment\nbefore 1\n{line}\nafter 2\n".encode())
    assert (scrape.malformed, scrape.first_malformed) == (1, 3)
    assert [name for (name, _), _ in collect.samples(scrape)] == ["after", "before"]
    with pytest.raises(ValueError, match=r".+"):
        parse_line(line)


def test_bytes_that_are_not_utf8_are_one_malformed_line():
    collect = Collect()
    scrape = Reader(collect).read(b'good 1\nbad{a="\xff\xfe"} 2\nbad{a="\xff"} 2 77\n')
    assert scrape.malformed == 2
    assert len(scrape.slots) == 1


def test_a_second_scrape_gives_new_values_for_the_same_series():
    collect = Collect()
    reader = Reader(collect)
    first = collect.samples(reader.read(b'gpu{i="0"} 1\ngpu{i="1"} 2\n'))
    second = collect.samples(reader.read(b'gpu{i="0"} 10\ngpu{i="1"} 20\n'))
    third = collect.samples(reader.read(b'gpu{i="1"} 200\nnew 3\ngpu{i="0"} 100\n'))
    assert [v for _, v in first] == [1, 2]
    assert [v for _, v in second] == [10, 20]
    assert [v for _, v in third] == [100, 200, 3]


def test_series_nobody_wants_are_left_out():
    scrape = Reader(lambda name, _: 0 if name == "wanted" else UNWANTED).read(b"wanted 1\nother 2\n")
    assert scrape.values.tolist() == [1]
    assert scrape.lines == 2


def test_invented_series_do_not_grow_the_memory_without_bound():
    reader = Reader(Collect(), max_series=10)
    for start in range(0, 100, 5):
        reader.read("".join(f"s{i} 1\n" for i in range(start, start + 5)).encode())
    assert len(reader._known) <= 10


def test_an_empty_scrape_is_empty():
    assert Reader(Collect()).read(b"").lines == 0
    assert Reader(Collect()).read(b"# EOF\n\n").lines == 0
