"""What the gate lets through answers alike on both engines: over 5,000 random calls, no difference.

Each template is one expression inside the gate's allow-list, with arguments of the types the gate makes a
policy check first. Values are hostile on purpose: quotes, combining marks, characters beyond 16 bits.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from guard_core.policy.bundle import Bundle, make_bundle, write_bundle
from guard_core.policy.decision import Answer
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.gate import gate
from guard_core.policy.portable import PORTABLE
from guard_core.policy.server import ServerEngine

CASES = 90
SEED = 20261123
PIECES = (
    "a", "b", "ab", "aB", ".", ",", "/", "@", " ", "\t", "\n", '"', "\\", "%", "{}", "0", "12", "-", "é",
    "<", "&",
    "e\u0301", "\u00a0", "\u200b", "\u3000", "ß", "İ", "Σ", "ſ", "中", "𐀀", "😀", "\uffff", "\u0001",
    "\u007f",
)  # fmt: skip
NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    10,
    63,
    64,
    255,
    1000,
    -1000,
    65536,
    10**6,
    10**9 + 7,
    2**31,
    2**40,
    -(2**45),
    2**52,
)

Make = Callable[[random.Random], Any]


def text(rng: random.Random) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(6)))


def piece(rng: random.Random) -> str:
    return rng.choice(PIECES)


def number(rng: random.Random) -> int:
    return rng.choice(NUMBERS)


def small(rng: random.Random) -> int:
    return rng.randrange(-4, 9)


def base(rng: random.Random) -> int:
    return rng.choice((2, 8, 10, 16))


def instant(rng: random.Random) -> int:
    return rng.randrange(0, 4_000_000_000) * 10**9 + rng.randrange(10**9)


def rfc3339(rng: random.Random) -> str:
    zone = rng.choice(("Z", "Z", "+08:00", "-03:30"))
    fraction = rng.choice(("", "", ".5", ".123456789"))
    year, month, day = rng.randrange(1970, 2260), rng.randrange(1, 13), rng.randrange(1, 29)
    return f"{year}-{month:02}-{day:02}T{rng.randrange(24):02}:{rng.randrange(60):02}:59{fraction}{zone}"


def scalar(rng: random.Random) -> Any:
    return rng.choice((text(rng), number(rng), instant(rng), True, False, None))


def any_json(rng: random.Random, depth: int = 2) -> Any:
    kind = rng.randrange(6 if depth else 4)
    if kind == 0:
        return text(rng)
    if kind == 1:
        return number(rng)
    if kind == 2:
        return rng.choice((True, False, None))
    if kind == 3:
        return rng.choice((instant(rng), "", 0))
    if kind == 4:
        return [any_json(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {text(rng): any_json(rng, depth - 1) for _ in range(rng.randrange(4))}


def listed(make: Make, least: int = 0) -> Make:
    return lambda rng: [make(rng) for _ in range(rng.randrange(least, 5))]


def mapped(make: Make) -> Make:
    return lambda rng: {text(rng): make(rng) for _ in range(rng.randrange(4))}


texts, numbers, values, objects = listed(text), listed(number), listed(any_json), mapped(any_json)
A, B, C = "input.a", "input.b", "input.c"
AS, BS = "{x | some x in input.a}", "{x | some x in input.b}"

TEMPLATES: tuple[tuple[str, tuple[Make, ...]], ...] = (
    (f"abs({A})", (number,)),
    (f"array.concat({A}, {B})", (values, values)),
    (f"array.reverse({A})", (values,)),
    (f"array.slice({A}, {B}, {C})", (values, small, small)),
    (f"base64.encode({A})", (text,)),
    (f"concat({A}, {B})", (piece, texts)),
    (f"concat({A}, {BS})", (piece, texts)),
    (f"contains({A}, {B})", (text, piece)),
    (f"count({A})", (values,)),
    (f"count({A})", (objects,)),
    (f"count({AS})", (values,)),
    (f"endswith({A}, {B})", (text, piece)),
    (f"format_int({A}, {B})", (number, base)),
    (f"intersection({{{AS}, {BS}}})", (numbers, numbers)),
    (f"max({A})", (numbers,)),
    (f"max({A})", (values,)),
    (f"min({A})", (numbers,)),
    (f"min({AS})", (values,)),
    (f"numbers.range({A}, {B})", (small, small)),
    (f"object.get({A}, {B}, {C})", (objects, text, any_json)),
    (f"object.keys({A})", (objects,)),
    (f"object.remove({A}, {B})", (objects, texts)),
    (f"object.union({A}, {B})", (objects, objects)),
    (f'regex.match("^[a-z0-9._-]+$", {A})', (text,)),
    (f'regex.match("a.*b|[^@]+/", {A})', (text,)),
    (f"replace({A}, {B}, {C})", (text, piece, text)),
    (f"sort({A})", (values,)),
    (f"sort({A})", (texts,)),
    (f"split({A}, {B})", (text, piece)),
    (f'sprintf("%v", [{A}])', (scalar,)),
    (f'sprintf("%v%%, %v: %v", [{A}, {B}, {C}])', (text, number, scalar)),
    (f"startswith({A}, {B})", (text, piece)),
    (f"strings.any_prefix_match({A}, {B})", (text, texts)),
    (f"strings.any_suffix_match({A}, {B})", (text, texts)),
    (f"substring({A}, {B}, {C})", (text, lambda rng: rng.randrange(4), small)),
    (f"sum({A})", (numbers,)),
    (f"time.clock([{A}, {B}])", (instant, lambda rng: rng.choice(("UTC", "Asia/Shanghai", "Europe/Berlin")))),
    (
        f"time.date([{A}, {B}])",
        (instant, lambda rng: rng.choice(("UTC", "Asia/Shanghai", "America/St_Johns"))),
    ),
    (f"time.parse_rfc3339_ns({A})", (rfc3339,)),
    (
        f"time.weekday([{A}, {B}])",
        (instant, lambda rng: rng.choice(("UTC", "Asia/Shanghai", "Pacific/Apia"))),
    ),
    (f"trim({A}, {B})", (text, piece)),
    (f"trim_left({A}, {B})", (text, piece)),
    (f"trim_prefix({A}, {B})", (text, piece)),
    (f"trim_right({A}, {B})", (text, piece)),
    (f"trim_space({A})", (text,)),
    (f"trim_suffix({A}, {B})", (text, piece)),
    (f"type_name({A})", (any_json,)),
    (f"union({{{AS}, {BS}}})", (values, values)),
    *((f"[true | {name}({A})]", (any_json,)) for name in sorted(PORTABLE) if name.startswith("is_")),
    (f"{A} + {B}", (number, number)),
    (f"{A} - {B}", (instant, number)),
    (f"{A} * 1000", (number,)),
    (f"{A} % {B}", (number, lambda rng: rng.choice((1, 3, 7, 1000)))),
    (f"[{A} < {B}, {A} <= {B}, {A} == {B}, {A} != {B}]", (any_json, any_json)),
    (f"[{A} in {B}]", (any_json, values)),
    (f"[v | some v in {A}]", (objects,)),
    (f"{AS} - {BS}", (numbers, numbers)),
    (f"{AS} & {BS}", (numbers, numbers)),
    (f"{AS} | {BS}", (values, texts)),
    (f"{{k: v | some k, v in {A}}}", (objects,)),
    (f"[x | some x in {A}; other := {B}; not x in other]", (values, values)),
)


def bundle_of_templates() -> Bundle:
    rules = [f"t{i} := {template}" for i, (template, _) in enumerate(TEMPLATES)]
    return make_bundle({"guard/t/t.rego": "package guard.t\n\n" + "\n\n".join(rules) + "\n"}, {})


def outcome(answer: Answer) -> Any:
    if answer.error is not None:
        return "error"
    return ("value", answer.value) if answer.defined else "undefined"


def test_every_portable_builtin_is_compared() -> None:
    called = {name for template, _ in TEMPLATES for name in re.findall(r"([a-z][a-z0-9_.]*)\(", template)}
    assert called >= PORTABLE


def test_the_templates_pass_the_gate() -> None:
    """Apart from asking for a type check of input first, which the generators stand for here."""
    faults = [
        d
        for d in gate(bundle_of_templates().modules)
        if d.code not in ("unchecked-type", "unchecked-collection")
    ]
    assert faults == []


@pytest.mark.opa
@pytest.mark.slow
def test_no_call_differs_between_the_embedded_engine_and_a_real_opa_server(
    start_opa: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundle = bundle_of_templates()
    url = start_opa(write_bundle(bundle, tmp_path_factory.mktemp("builtins") / "bundle")).url
    embedded, server = EmbeddedEngine(bundle), ServerEngine(url, deadline_s=30.0)
    rng = random.Random(SEED)
    cases = [
        (i, dict(zip("abc", (make(rng) for make in makes), strict=False)))
        for i, (_, makes) in enumerate(TEMPLATES)
        for _ in range(CASES)
    ]
    assert len(cases) >= 5_000
    with ThreadPoolExecutor(4) as pool:
        theirs = list(pool.map(lambda case: outcome(server.evaluate(f"guard/t/t{case[0]}", case[1])), cases))
    different = [
        f"{TEMPLATES[i][0]} {question!r}: ours {ours!r}, OPA {their!r}"
        for (i, question), their in zip(cases, theirs, strict=True)
        if (ours := outcome(embedded.evaluate(f"guard/t/t{i}", question))) != their
    ]
    assert not different, f"{len(different)} of {len(cases)} differ:\n" + "\n".join(different[:40])
    assert sum(their[0] == "value" for their in theirs) > len(cases) * 9 // 10
