"""With a trusted version every finding says which of its rows are new since then, whatever its check is."""

import pyarrow as pa
import pytest
from check_kit import Registered, only, scan

from dataset_guard.checks.leakage import exact_overlap, near_duplicate_text
from dataset_guard.checks.privacy import personal_data

SENTENCE = "the river runs past the old mill and under the stone bridge to the sea in spring"


def told(text: list[str]) -> pa.Table:
    return pa.table({"id": range(len(text)), "text": text})


@pytest.fixture
def trusted() -> pa.Table:
    return told(
        [
            *(f"row {i} says nothing at all" for i in range(40)),
            SENTENCE,
            f"{SENTENCE} again",
            "ada@lovelace.net",
        ]
    )


@pytest.mark.parametrize(
    ("check", "rule", "more", "new"),
    [
        (near_duplicate_text.CHECK, "LEAK003", [f"{SENTENCE} today"], [[43, 43]]),
        (near_duplicate_text.CHECK, "LEAK003", ["something else"], []),
        (
            personal_data.CHECK,
            "PRIV010",
            ["cab@tree.net", "none", "eve@fox.net"],
            [[43, 43], [45, 45]],
        ),
    ],
)
def test_new_rows_are_told_from_old_ones(trusted, check, rule, more, new):
    table = told([*trusted["text"].to_pylist(), *more])
    finding = only(scan(table, check, baseline=Registered("acme/set@1", trusted)), rule)
    assert finding.evidence["new_rows"] == {"ranges": new}
    assert finding.evidence["new_since_trusted"] == sum(b - a + 1 for a, b in new)
    assert len(finding.rows) > len(new)


def test_a_copy_of_an_old_row_is_an_old_row(trusted):
    table = pa.concat_tables([trusted, trusted.slice(0, 3)])
    finding = only(scan(table, exact_overlap.CHECK, baseline=Registered("acme/set@1", trusted)), "LEAK001")
    assert finding.evidence["new_since_trusted"] == 0


@pytest.mark.parametrize("baseline", [None, "other columns"])
def test_without_a_version_whose_rows_can_be_matched_nothing_is_said(trusted, baseline):
    other = Registered("acme/set@1", trusted.rename_columns(["key", "text"])) if baseline else None
    finding = only(scan(trusted, personal_data.CHECK, baseline=other), "PRIV010")
    assert "new_since_trusted" not in finding.evidence
