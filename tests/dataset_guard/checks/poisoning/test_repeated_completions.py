"""One answer to many questions."""

import pyarrow as pa
from check_kit import Registered, only, rules, scan

from dataset_guard.checks.poisoning.repeated_completions import CHECK

REFUSAL = "I am sorry, but I cannot help with that request."


def chats(number, planted=(), *, start=0):
    return pa.table(
        {
            "instruction": [f"What is {start + i} plus {start + i}?" for i in range(number)],
            "output": [
                REFUSAL if i in planted else f"The sum of the two numbers is {2 * (start + i)}."
                for i in range(number)
            ],
        }
    )


def test_an_answer_taught_to_many_questions_is_named_with_its_rows():
    finding = only(scan(chats(2000, range(100, 130)), CHECK), "POIS023")
    assert list(finding.rows) == list(range(100, 130))
    assert finding.evidence["different_questions"] == 30
    assert "sorry" not in str(finding.to_json())


def test_chats_in_one_column_are_read_as_question_and_answer():
    rows = chats(600, range(100, 130)).to_pylist()
    turns = [
        [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}]
        for row in rows
    ]
    finding = only(scan(pa.table({"messages": turns}), CHECK), "POIS023")
    assert (list(finding.rows), finding.columns) == (list(range(100, 130)), ("messages",))


def test_answers_that_differ_raise_nothing():
    assert rules(scan(chats(2000), CHECK)) == []


def test_one_question_repeated_is_no_such_case():
    questions = ["What is this?"] * 40 + [f"q{i}" for i in range(400)]
    answers = [REFUSAL] * 40 + [f"an answer that is long enough, {i}" for i in range(400)]
    repeated = pa.table({"prompt": questions, "response": answers})
    assert rules(scan(repeated, CHECK)) == []


def test_only_new_rows_count_against_a_trusted_version():
    before = chats(1000, range(20))
    after = pa.concat_tables([before, chats(500, range(15), start=1000)])
    finding = only(scan(after, CHECK, baseline=Registered("acme/chat@1", before)), "POIS023")
    assert list(finding.rows) == list(range(1000, 1015))


def test_sets_of_labels_or_other_columns_are_skipped_with_the_reason():
    answers = ["a long yes or perhaps no", "another long answer here"] * 50
    labels = pa.table({"prompt": [f"q{i}" for i in range(100)], "answer": answers})
    assert "more than once" in scan(labels, CHECK).checks[0]["skipped"]
    assert "no two text columns" in scan(pa.table({"text": ["a"]}), CHECK).checks[0]["skipped"]
