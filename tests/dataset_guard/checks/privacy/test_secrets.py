"""Secrets are named by row and kind; words, placeholders and documented examples are not.

Every secret here is made up at run time, so that none lies in this file.
"""

import base64
import json
import string

import numpy as np
import pyarrow as pa
import pytest
from check_kit import only, rules, scan

from dataset_guard.checks.base import CheckContext
from dataset_guard.checks.privacy.secret_kinds import KINDS, entropy
from dataset_guard.checks.privacy.secrets import CHECK
from guard_core.findings import Severity

ALNUM = string.ascii_letters + string.digits


def made(length: int, letters: str = ALNUM, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list(letters), length))


def jwt(header: dict) -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in (header, {"sub": "7"})
    ]
    return ".".join([*parts, made(43)])


BASE32 = string.ascii_uppercase + "234567"
DASHES = "-" * 5
REAL = {
    "AWS access key": "AKIA" + made(16, BASE32),
    "GitHub token": "ghp_" + made(36),
    "GitHub token (fine-grained)": "github_pat_" + made(22) + "_" + made(59),
    "GitLab token": "glpat-" + made(20),
    "Slack token": "xoxb-" + made(11, string.digits) + "-" + made(24),
    "Slack webhook": "https://hooks.slack.com/services/T"
    + made(9, BASE32)
    + "/B"
    + made(9, BASE32)
    + "/"
    + made(24),
    "private key": f"{DASHES}BEGIN RSA PRIVATE KEY{DASHES}\n{made(64)}\n{DASHES}END RSA PRIVATE KEY{DASHES}",
    "JSON web token": jwt({"alg": "HS256"}),
    "Google API key": "AIza" + made(35),
    "Stripe key": "sk_live_" + made(24),
    "npm token": "npm_" + made(36),
    "PyPI token": "pypi-AgEIcHlwaS5vcmc" + made(80),
    "Hugging Face token": "hf_" + made(34, string.ascii_letters),
    "OpenAI or Anthropic key": "sk-" + made(48),
    "SendGrid key": "SG." + made(22) + "." + made(43),
    "Azure storage key": "AccountKey=" + made(86) + "==",
    "Alibaba Cloud access key": "LTAI" + made(20),
    "Tencent Cloud secret id": "AKID" + made(32),
    "password in a URL": "postgresql://app:" + made(14) + "@db.internal/orders",
    "secret in an assignment": "api_key = '" + made(32) + "'",
}


def found_in(*texts):
    return scan(pa.table({"text": list(texts)}), CHECK).findings


@pytest.mark.parametrize("name", REAL)
def test_a_secret_of_each_kind_is_found_in_its_row(name):
    (finding,) = found_in("nothing here", f"see below\n{REAL[name]} thanks", None)
    assert list(finding.rows) == [1]
    assert finding.evidence["kind"] == name.split(" (")[0]
    certain = name != "secret in an assignment"
    assert finding.rule_id == ("PRIV001" if certain else "PRIV002")
    assert finding.severity is (Severity.CRITICAL if certain else Severity.WARNING)


def test_every_kind_has_a_secret_in_these_tests():
    assert {k.name for k in KINDS} == {n.split(" (")[0] for n in REAL}


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "password = correct-horse-battery-staple",
        "token: <your-token-goes-here-please>",
        "api_key = xxxxxxxxxxxxxxxxxxxxxxxx1",
        "secret: thisisjustaverylongword",
        "ghp_" + "a" * 36,
        "ghp_" + made(50),
        "XAKIA" + made(16, BASE32),
        DASHES + "BEGIN RSA PRIVATE KEY" + DASHES + " is how the header looks",
        "eyJub3QiOiJhIGp3dCJ9.eyJub3QiOiJhIGp3dCJ9.0123456789abcdef",
        "https://user:example-password@host.example",
        "the token economy: a survey of incentive systems in classrooms",
    ],
)
def test_examples_placeholders_and_words_are_no_secrets(text):
    assert found_in(text) == ()


def test_two_halves_in_neighbouring_cells_are_no_secret():
    whole = REAL["GitHub token"]
    assert found_in(whole[:20], whole[20:]) == ()


def test_several_kinds_in_one_row_are_told_apart():
    findings = found_in(f"{REAL['GitHub token']} and {REAL['AWS access key']}, {REAL['AWS access key']}")
    assert [f.evidence["kind"] for f in findings] == ["AWS access key", "GitHub token"]
    assert [f.evidence["occurrences"] for f in findings] == [2, 1]


def test_an_assigned_token_of_a_known_form_is_told_as_what_it_is():
    findings = found_in(f"token: {REAL['GitHub token']}")
    assert "GitHub token" in {f.evidence["kind"] for f in findings}


def test_text_inside_lists_structs_maps_and_dictionaries_is_searched():
    key = REAL["Stripe key"]
    chat = pa.array(
        [
            [{"role": "user", "content": "hi"}],
            None,
            [{"role": "user", "content": "a"}, {"role": "tool", "content": key}],
        ]
    )
    table = pa.table(
        {
            "chat": chat,
            "tags": pa.array([["a"], [], ["b", key]]),
            "map": pa.array([[("k", "v")], [], [("key", key)]], pa.map_(pa.string(), pa.string())),
            "coded": pa.array(["a", "b", key]).dictionary_encode(),
            "view": pa.array(["a", "b", key], pa.string_view()),
            "number": [1, 2, 3],
        }
    )
    finding = only(scan(table, CHECK), "PRIV001")
    assert finding.columns == ("chat", "coded", "map", "tags", "view")
    assert list(finding.rows) == [2]


def test_rows_are_right_in_later_batches_and_after_nulls():
    rows = 70_000
    texts: list = [None if i % 7 == 0 else "plain text" for i in range(rows)]
    for at in (3, 65_535, 65_536, 69_999):
        texts[at] = REAL["npm token"]
    assert list(only(scan(pa.table({"t": texts}), CHECK), "PRIV001").rows) == [3, 65_535, 65_536, 69_999]


def test_a_slice_of_a_larger_table_has_its_own_row_numbers():
    chat = pa.array([["x"], ["y", "z"], [REAL["npm token"]], ["a"]])
    assert list(only(scan(pa.table({"c": chat}).slice(1), CHECK), "PRIV001").rows) == [1]


def test_bytes_that_are_no_ascii_do_not_stop_the_search():
    finding = only(
        scan(pa.table({"t": ["密钥：" + REAL["GitHub token"] + "。谢谢", "né"]}), CHECK), "PRIV001"
    )
    assert list(finding.rows) == [0]


def test_no_part_of_a_secret_is_in_the_finding():
    written = json.dumps([f.to_json() for f in found_in(*REAL.values())])
    for secret in REAL.values():
        assert not any(secret[i : i + 12] in written for i in range(12, len(secret) - 12))


def test_only_named_columns_are_searched():
    table = pa.table({"a": [REAL["npm token"]], "b": [REAL["npm token"]]})
    result = scan(table, CHECK, parameters={"secrets": {"columns": ("b",)}})
    assert only(result, "PRIV001").columns == ("b",)


def test_merged_states_find_what_one_finds():
    table = pa.table({"t": ["x", REAL["npm token"], "y", REAL["npm token"]]})
    context = CheckContext(schema=table.schema)
    states = [CHECK.start(context), CHECK.start(context)]
    for i, state in enumerate(states):
        state.update(table.slice(2 * i, 2).combine_chunks().to_batches()[0], 2 * i, None, None)
    states[1].merge(states[0])
    assert list(next(states[1].finish()).rows) == [1, 3]


def test_a_table_without_text_skips_the_check():
    assert (
        CHECK.applies(CheckContext(schema=pa.schema([("a", pa.list_(pa.int64()))])))
        == "there is no text column"
    )
    assert rules(scan(pa.table({"a": [1]}), CHECK)) == []


def test_entropy_is_in_bits_per_character():
    assert entropy(b"aaaa") == 0.0
    assert entropy(b"abcd") == 2.0
    assert entropy(b"") == 0.0
