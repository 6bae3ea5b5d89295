"""What a person does not see in a text and a model does, or would not expect there: byte patterns.

The first stage runs over a whole buffer of texts (:mod:`dataset_guard.checks.privacy.text_buffers`), so
patterns are short; ``refused_after`` looks at what stands before a hit in its own text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BEFORE = 96


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of hit of one rule. ``ascii`` patterns may match in text without any other bytes.

    A hit whose preceding bytes match ``refused_after`` is none.
    """

    name: str
    rule_id: str
    pattern: bytes
    ascii: bool
    refused_after: re.Pattern[bytes] | None = None


def _utf8(letters: str) -> bytes:
    return b"(?:" + b"|".join(re.escape(c.encode()) for c in letters) + b")"


# Cyrillic and Greek letters that look like Latin ones in most fonts (Unicode TR39, confusables).
_CYRILLIC = _utf8("аеорсухіјѕԁһАВЕКМНОРСТХІЈЅ")
_GREEK = _utf8("ονρΑΒΕΖΗΙΚΜΝΟΡΤΥΧ")
_LATIN = rb"[A-Za-z]"

_FLAG = re.compile(rb"\xf0\x9f\x8f\xb4(?:\xf3\xa0[\x80\x81][\x80-\xbf])*\Z")
"""A black flag and tags: the flags of England, Scotland and Wales are written so."""

_TARGETS = rb"(?:instructions?|prompts?|messages?|directions?|rules|guidelines|context)"
_EARLIER = (
    rb"(?:(?:all|any|the|your|my|of|these|those) ){0,3}(?:previous|prior|above|earlier|preceding|foregoing)"
)
_PHRASES = (
    rb"(?:ignore|disregard|forget|override|bypass) " + _EARLIER + rb" (?:[a-z]{1,16} )?" + _TARGETS,
    rb"(?:ignore|disregard|forget) (?:all |everything )(?:of )?(?:your|the) " + _TARGETS,
    rb"(?:reveal|print|show|repeat|output|leak|display) (?:me )?(?:your (?:entire |full )?system|"
    rb"(?:your|the) (?:hidden|initial|secret)) (?:prompt|instructions?|message)",
    rb"you are now (?:in )?(?:dan\b|developer mode|jailbroken|unrestricted|unfiltered|free of)",
    rb"(?:do anything now|developer mode (?:is )?(?:now )?enabled)",
    rb"without (?:any )?(?:ethical|safety) (?:restrictions|guidelines)",
    rb"do not (?:tell|inform|mention (?:this|it) to|reveal (?:this|it) to) the (?:user|human|operator)",
    (
        "(?:忽略|无视|忘记|不要理会)(?:所有|全部)?(?:你)?(?:之前|以上|上述|上面|前面|先前)(?:的)?(?:所有|全部)?"
        "(?:指令|提示|要求|规则|内容|设定)"
    ).encode(),
    "(?:输出|显示|告诉我|泄露|打印)(?:你的)?(?:系统提示词?|初始指令|隐藏指令)".encode(),
)
_MARKS = (
    rb"<\|im_(?:start|end)\|>|<\|(?:system|user|assistant|endoftext|eot_id|start_header_id)\|>"
    rb"|\[/?INST\]|<</?SYS>>"
)
_COMMENT = rb"<!--[^>]{0,80}(?:assistant|language model|system prompt|instruction|ai model)"


KINDS: tuple[Kind, ...] = (
    Kind("tag characters", "POIS020", rb"\xf3\xa0[\x80\x81][\x80-\xbf]", False, _FLAG),
    Kind("direction overrides", "POIS020", rb"\xe2\x80[\xad\xae]", False),
    Kind(
        "invisible characters inside words",
        "POIS020",
        _LATIN + rb"(?:\xe2\x80[\x8b-\x8d]|\xe2\x81\xa0|\xef\xbb\xbf)" + _LATIN,
        False,
    ),
    Kind("Cyrillic letters inside Latin words", "POIS021", _LATIN + _CYRILLIC + _LATIN, False),
    Kind("Greek letters inside Latin words", "POIS021", _LATIN + _GREEK + _LATIN, False),
    Kind("injected instructions", "POIS022", b"(?i)" + b"|".join(_PHRASES), True),
    Kind("instructions in HTML comments", "POIS022", b"(?i)" + _COMMENT, True),
    Kind("control marks of chat formats", "POIS022", _MARKS, True),
)
"""All kinds; each is searched on its own, so that its count says what it is."""

ANY = b"|".join(b"(?:" + kind.pattern + b")" for kind in KINDS)
ANY_ASCII = b"|".join(b"(?:" + kind.pattern + b")" for kind in KINDS if kind.ascii)
"""Any of them (in text without other bytes): one pass says which few texts to search."""

SHORTEST = 5
"""Texts of fewer bytes match nothing."""
