"""Columns of names are told from columns of places, brands and words, also where the lists lack many."""

import pyarrow as pa
import pytest
from check_kit import only, rules, scan

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.privacy.person_names import CHECK, PersonNames, is_chinese, is_western

ASKED = PersonNames(most_rows=100)
WESTERN = [
    "Allen, Miss Elisabeth",
    "Robert J. Miller",
    "Anna-Lena Müller",
    "Dr. Sarah O'Brien",
    "LOPEZ, MARIA",
]
CHINESE = ["王小明", "李娜", "欧阳建国", "张伟", "陈静怡", "刘洋", "赵志强", "黄丽", "周杰", "吴敏", "徐磊"]
PLACES = [
    "San Francisco", "New York", "Santa Monica Boulevard", "Lake Victoria", "Austin", "Jordan", "Saint Paul",
    "Mount Vernon", "Cape Town", "Los Angeles", "Salt Lake City", "North Carolina",
]  # fmt: skip
WORDS = [
    "高温预警",
    "黄色",
    "王国",
    "马路",
    "白天",
    "金属",
    "石油",
    "水果",
    "时间",
    "方法",
    "安全",
    "江南水乡",
]


@pytest.mark.parametrize("name", WESTERN)
def test_given_names_and_surnames_in_any_order_make_a_name(name):
    assert is_western(name)


@pytest.mark.parametrize(
    "text", ["May", "may jordan", "Robert Miller and sons", "Robert Miller 3", "Berlin GmbH"]
)
def test_single_words_sentences_and_codes_are_no_names(text):
    assert not is_western(text)


def test_a_surname_and_characters_of_given_names_make_a_chinese_name():
    assert all(map(is_chinese, CHINESE))
    assert not any(map(is_chinese, ["王", "明天", "张家口机场", "Wang"]))


def test_a_column_of_names_is_reported_with_the_rows_that_are_known():
    table = pa.table({"who": [*WESTERN, *WESTERN, *PLACES[:4], "Zbigniew Qwx", "John Smith", None]})
    few = PersonNames(most_rows=100, least_share=0.3)
    finding = only(scan(pa.table({"who": [*table["who"].to_pylist(), "Mary Jones"]}), few), "PRIV012")
    assert list(finding.rows) == [*range(10), 15, 17]
    assert "Smith" not in str(finding.to_json())


def test_a_column_of_chinese_names_is_reported():
    finding = only(scan(pa.table({"姓名": CHINESE}), ASKED), "PRIV012")
    assert finding.columns == ("姓名",)
    assert finding.count == len(CHINESE)


@pytest.mark.parametrize("values", [PLACES, WORDS], ids=["places", "words"])
def test_places_and_ordinary_words_are_not_reported(values):
    assert rules(scan(pa.table({"v": values}), ASKED)) == []


def test_the_same_rows_are_looked_at_however_they_were_cut():
    few = PersonNames(most_rows=12)
    values = [*CHINESE, *CHINESE]
    context = CheckContext(schema=pa.schema({"v": pa.string()}))
    whole, first, second = (few.start(context) for _ in range(3))
    for state, low, high in ((whole, 0, 22), (second, 9, 22), (first, 0, 9)):
        state.update(pa.record_batch({"v": values[low:high]}), low, None, None)
    second.merge(first)
    assert [f.to_json() for f in second.finish()] == [f.to_json() for f in whole.finish()]


def test_it_looks_only_when_it_is_told_to():
    result = scan(pa.table({"who": CHINESE}), CHECK)
    assert rules(result) == []
    assert "it is off" in result.checks[0]["skipped"]
