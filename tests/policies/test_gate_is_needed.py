"""Each rule of the gate exists because two engines differ: here is the difference, on both, for real.

A case whose difference has gone (a new engine version) fails: then the rule may be dropped.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from guard_core.policy.bundle import make_bundle
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.gate import gate

CASES: dict[str, tuple[str, str, Any]] = {
    # code of the gate's rule: what it is about, Rego after the package line, input
    "negated-lookup": ("a missing field inside not", "decision if not is_string(input.x)", {}),
    "negated-lookup/in": ("a missing member inside not", "decision if not input.x in {1, 2}", {}),
    "negated-lookup/less": ("a missing operand inside not", "decision if not input.x > 3", {}),
    "unchecked-collection": ("some over text", "decision := [x | some x in input.x]", {"x": "abc"}),
    "unchecked-collection/count": ("count of text", "decision := count(input.x)", {"x": "𐀀"}),
    "unchecked-type": ("a list in a message", 'decision := sprintf("%v", [input.x])', {"x": ["\u200b"]}),
    "sprintf-verb": ("%d of a negative number", 'decision := sprintf("%d", [input.x])', {"x": -5}),
    "sprintf-set": (
        "an empty set in a message",
        'decision := sprintf("%v", [s])\ns contains 1 if input.x',
        {},
    ),
    "sprintf-arguments": ("too few values", 'decision := sprintf("%v %v", [1])', {}),
    "builtin/upper": ("letters beyond ASCII", "decision := upper(input.x)", {"x": "ß"}),
    "builtin/lower": ("letters beyond ASCII", "decision := lower(input.x)", {"x": "İ"}),
    "builtin/crypto": ("a function regorus lacks", 'decision := crypto.sha256("a")', {}),
    "number": ("fractions", "decision := 1.0 - 0.9", {}),
    "product": ("products of large numbers", "decision := input.x * input.y", {"x": 2**53 + 1, "y": 10**9}),
    "unary-minus": ("minus a variable", "decision := -input.x", {"x": 3}),
    "string-interpolation": ("text with values inside", 'decision := $"{input.x}"', {"x": 1}),
    "duplicate-default": ("two defaults", "default decision := 1\ndefault decision := 2", {}),
    "arguments": (
        "too many arguments",
        "f(a) := 1 if a\ndecision := 1 if input.x\ndecision := f(1, 2) if input.y",
        {},
    ),
}


def ask_opa(opa: str, folder: Path, rego: str, question: Any) -> Any:
    (folder / "t.rego").write_text(rego)
    (folder / "input.json").write_text(json.dumps(question))
    ran = subprocess.run(
        [opa, "eval", "--strict-builtin-errors", "-d", "t.rego", "-i", "input.json", "data.guard.t.decision"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    said = json.loads(ran.stdout)
    if "errors" in said:
        return "error"
    return said["result"][0]["expressions"][0]["value"] if said.get("result") else "undefined"


def ask_regorus(rego: str, question: Any) -> Any:
    from guard_core.errors import UserError

    try:
        engine = EmbeddedEngine(make_bundle({"guard/t/t.rego": rego}, {}))
    except UserError:
        return "error"
    answer = engine.evaluate("guard/t/decision", question)
    if answer.error:
        return "error"
    return answer.value if answer.defined else "undefined"


@pytest.mark.opa
@pytest.mark.parametrize("case", CASES)
def test_the_engines_differ_and_the_gate_refuses(opa: str, tmp_path: Path, case: str) -> None:
    _, body, question = CASES[case]
    rego = f"package guard.t\n\n{body}\n"
    assert ask_opa(opa, tmp_path, rego, question) != ask_regorus(rego, question)
    assert case.partition("/")[0] in {found.code for found in gate({"guard/t/t.rego": rego})}
