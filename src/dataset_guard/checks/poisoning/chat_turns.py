"""Chats in one column: lists of turns, each with who speaks and what (``messages``, ``conversations``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from dataset_guard.scanning.profile import is_text, plain

SPEAKERS = ("role", "from")
TEXTS = ("content", "value")
MODELS = ("assistant", "gpt", "model", "bot", "chatbot")
"""How chat formats call the model: OpenAI's, ShareGPT's, Gemma's, and others."""


def chat_column(schema: pa.Schema) -> str | None:
    """The first column that holds chats."""
    return next((f.name for f in schema if _turn(f.type) is not None), None)


def _turn(kind: pa.DataType) -> tuple[str, str] | None:
    """The members of a turn that say who and what; None where ``kind`` holds no chats."""
    if not (pt.is_list(kind) or pt.is_large_list(kind)) or not pt.is_struct(kind.value_type):
        return None
    members = {m.name: m.type for m in (kind.value_type.field(i) for i in range(kind.value_type.num_fields))}
    who = next((name for name in SPEAKERS if name in members and is_text(members[name])), None)
    what = next((name for name in TEXTS if name in members and is_text(members[name])), None)
    return (who, what) if who and what else None


def last_exchange(column: Any) -> tuple[Any, Any]:
    """What was last asked in each chat, and what the model answered, as text; null where it said nothing.

    The last turn must be the model's, and the one before it is the question.
    """
    chats = plain(column)
    names = _turn(chats.type)
    assert names is not None
    who, what = names
    lengths = np.asarray(pc.list_value_length(chats).fill_null(0)).astype(np.int64)
    ends = np.cumsum(lengths)
    asked = lengths >= 2
    turns = pc.list_flatten(chats)
    speaker, text = plain(pc.struct_field(turns, who)), plain(pc.struct_field(turns, what))
    last = pa.array(ends - 1, mask=~asked)
    is_model = pc.is_in(pc.utf8_lower(speaker.take(last)), value_set=pa.array(MODELS, speaker.type))
    answer = pc.if_else(is_model, text.take(last), pa.scalar(None, text.type))
    question = text.take(pa.array(ends - 2, mask=~asked))
    return question.cast(pa.large_string()), answer.cast(pa.large_string())
