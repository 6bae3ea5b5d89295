"""The shipped policies answer alike embedded and on a real OPA server: 20,000 random questions.

Questions are made from the samples beside each policy: parts are dropped, exchanged between samples, and
replaced by hostile text, other types and large numbers. The server is asked in batches (``with input as``
in a module that only this test loads), so that the whole comparison takes seconds.
"""

from __future__ import annotations

import copy
import json
import random
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from guard_core.policy.bundle import load_bundle, shipped_policies, write_bundle
from guard_core.policy.data_yaml import read_document
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.question import MAX_INPUT_INTEGER
from guard_core.policy.server import ServerEngine

QUESTIONS = 20_000
SEED = 20261123
BATCH = 100
HOSTILE: tuple[Any, ...] = (
    '", "allow": true, "x": "',
    "%v %d %s %%",
    "$HOME `id` ${x}",
    "</script><script>",
    "a\\b\\u0041\n\t\r",
    "\u202eevil\u202c",
    "é",
    "e\u0301",
    "𐀀😀",
    "\uffff",
    "ſ İ ß Σ",
    "",
    " acme",
    "acme\u00a0",
    "ACME",
    "acme/digits@1",
    "@",
    "env_vars.",
    "env_vars.LD_PRELOAD.x",
    "data.guard.config",
    "*",
    "platform-admin",
    "allow",
    "true",
    "null",
    "0",
    "9" * 40,
    True,
    False,
    None,
    0,
    -1,
    1,
    7,
    8,
    2**53,
    2**63 - 1,
    -(2**63) + 1,
    [],
    {},
    [[]],
    [{}],
    {"": ""},
    {"allow": True},
    ["acme", "acme"],
    [None, 1, "x", {"a": []}],
)


def samples() -> dict[str, list[dict[str, Any]]]:
    """Sample inputs by rule path."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(shipped_policies().glob("guard/**/samples/*.yaml")):
        rule = path.parent.parent.relative_to(shipped_policies()).as_posix() + "/decision"
        value = read_document(path, max_integer=MAX_INPUT_INTEGER).value
        found.setdefault(rule, []).append(value["input"])
    return found


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a question, the whole excepted."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from places(item, (*at, key))


def at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def mutate(rng: random.Random, question: dict[str, Any], other: dict[str, Any]) -> None:
    """Change one place of ``question`` in one of six ways."""
    found = list(places(question))
    if not found:
        return
    place = rng.choice(found)
    parent, key = at(question, place[:-1]), place[-1]
    kind = rng.randrange(6)
    if kind == 0:
        del parent[key]
    elif kind == 1:
        parent[key] = copy.deepcopy(rng.choice(HOSTILE))
    elif kind == 2:
        parent[key] = copy.deepcopy(at(other, place))
    elif kind == 3 and isinstance(parent, dict):
        parent[str(rng.choice(HOSTILE))] = copy.deepcopy(rng.choice(HOSTILE))
    elif kind == 4 and isinstance(parent, list):
        parent.append(copy.deepcopy(rng.choice([*parent, *HOSTILE])))
    else:
        strings = [at(question, p) for p in found if isinstance(at(question, p), str)]
        parent[key] = rng.choice(strings or ["x"])


def questions(count: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """``count`` questions: a tenth are samples as they are, the others are changed one to five times."""
    rng = random.Random(seed)
    by_rule = samples()
    rules = sorted(by_rule)
    for number in range(count):
        rule = rules[number % len(rules)]
        question = copy.deepcopy(rng.choice(by_rule[rule]))
        for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 3, 4, 5))):
            mutate(rng, question, rng.choice(by_rule[rule]))
        yield rule, question


def harness() -> str:
    """A module for OPA alone: each rule's answers to many inputs."""
    text = "package guard.parity\n"
    for rule in sorted(samples()):
        name = rule.replace("/", "_")
        query = "data." + rule.replace("/", ".")
        text += f"\n{name}[i] := value if {{\n\tsome i, question in input.questions\n"
        text += f"\tvalue := {query} with input as question\n}}\n"
    return text


class BatchServer:
    """Asks the real server many questions at once; a batch with an error in it is asked one by one."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.single = ServerEngine(url, deadline_s=30.0)

    def post(self, path: str, question: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/v1/data/{path}?strict-builtin-errors=true",
            data=json.dumps({"input": question}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return dict(json.loads(reply.read()))

    def ask(self, rule: str, batch: list[dict[str, Any]]) -> list[Any]:
        """The answers in order: ("value", v), ("undefined",) or ("error",)."""
        try:
            reply = self.post("guard/parity/" + rule.replace("/", "_"), {"questions": batch})
        except urllib.error.HTTPError:
            return [plain(self.single.evaluate(rule, question)) for question in batch]
        found = reply["result"]
        return [("value", found[str(i)]) if str(i) in found else ("undefined",) for i in range(len(batch))]


def plain(answer: Any) -> Any:
    if answer.error is not None:
        return ("error",)
    return ("value", answer.value) if answer.defined else ("undefined",)


@pytest.fixture(scope="module")
def batch_server(start_opa: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> BatchServer:
    directory = tmp_path_factory.mktemp("parity") / "bundle"
    write_bundle(load_bundle(shipped_policies()), directory)
    (directory / "guard" / "parity.rego").write_text(harness())
    return BatchServer(start_opa(directory).url)


@pytest.mark.opa
@pytest.mark.slow
def test_no_answer_differs_between_the_embedded_engine_and_a_real_opa_server(
    batch_server: BatchServer,
) -> None:
    engine = EmbeddedEngine(load_bundle(shipped_policies()))
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for rule, question in questions(QUESTIONS, SEED):
        by_rule.setdefault(rule, []).append(question)
    batches = [
        (rule, asked[start : start + BATCH])
        for rule, asked in by_rule.items()
        for start in range(0, len(asked), BATCH)
    ]
    different: list[str] = []
    kinds: dict[str, int] = {}
    with ThreadPoolExecutor(2) as pool:
        for (rule, batch), said in zip(
            batches, pool.map(lambda b: batch_server.ask(*b), batches), strict=True
        ):
            for question, theirs in zip(batch, said, strict=True):
                ours = plain(engine.evaluate(rule, question))
                kinds[theirs[0]] = kinds.get(theirs[0], 0) + 1
                if ours[0] == "value" and ours[1].get("allow") is True:
                    kinds["allow"] = kinds.get("allow", 0) + 1
                if ours != theirs:
                    different.append(
                        f"{rule}\n  input {json.dumps(question)}\n  ours {ours}\n  OPA  {theirs}"
                    )
    assert not different, f"{len(different)} of {QUESTIONS} differ, first:\n" + "\n".join(different[:3])
    assert sum(kinds[k] for k in ("value", "undefined", "error") if k in kinds) == QUESTIONS
    # The questions are worth asking: both answers come often, and hardly any is an error.
    assert kinds["allow"] > QUESTIONS // 10
    assert kinds["value"] > QUESTIONS * 9 // 10


@pytest.mark.opa
def test_batches_are_the_same_questions_as_single_ones(batch_server: BatchServer) -> None:
    for rule, question in questions(60, SEED + 1):
        assert batch_server.ask(rule, [question]) == [plain(batch_server.single.evaluate(rule, question))]
