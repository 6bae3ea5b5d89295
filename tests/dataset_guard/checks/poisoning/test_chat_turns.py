"""The last exchange of chats."""

import pyarrow as pa
import pytest

from dataset_guard.checks.poisoning.chat_turns import chat_column, last_exchange


def turns(*texts, who="role", what="content", model="assistant"):
    return [{who: model if i % 2 else "user", what: text} for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    "names", [{}, {"who": "from", "what": "value", "model": "gpt"}, {"model": "Assistant"}], ids=str
)
def test_the_last_question_and_its_answer_are_taken_however_the_format_calls_them(names):
    chats = [turns("a", "b", **names), turns("a", "b", "c", "d", **names)]
    table = pa.table({"n": [1, 2], "chats": chats})
    assert chat_column(table.schema) == "chats"
    question, answer = last_exchange(table["chats"])
    assert (question.to_pylist(), answer.to_pylist()) == (["a", "c"], ["b", "d"])


def test_chats_that_the_model_does_not_end_have_no_answer():
    chats = pa.chunked_array(
        [[turns("x", "y")], [turns("a", "b", "c"), None, [], turns("a"), turns("q", "r")]]
    )
    assert last_exchange(chats[1:].combine_chunks())[1].to_pylist() == [None, None, None, None, "r"]
    assert last_exchange(chats.slice(1))[0].to_pylist()[-1] == "q"


def test_other_lists_are_no_chats():
    assert chat_column(pa.table({"x": [[1]], "y": [[{"role": "a"}]], "content": ["t"]}).schema) is None
