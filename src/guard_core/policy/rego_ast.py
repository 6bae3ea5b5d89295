"""Rego modules as regorus parses them, with just the vocabulary the portability gate needs.

regorus' AST is JSON: a node is ``{"Kind": {"span": {...}, ...}}``. A span counts lines and columns from 1;
an operator's span starts at the operator, so the place of an expression is the least place inside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Node = Any
Place = tuple[int, int]


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One fault in a policy file: where, which rule of the gate, what is wrong and the portable way."""

    file: str
    line: int
    col: int
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.col}: {self.message} [{self.code}]"

    def to_json(self) -> dict[str, Any]:
        """``{"file", "line", "col", "code", "message"}``."""
        return {
            "file": self.file,
            "line": self.line,
            "col": self.col,
            "code": self.code,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule definition: ``kind`` is complete, set, object, function or default; ``node`` its AST."""

    name: str
    kind: str
    arity: int | None
    node: Node
    place: Place


@dataclass(frozen=True, slots=True)
class Module:
    """One parsed file. ``imports`` maps the name in use to its dotted path with its place."""

    file: str
    package: str
    package_place: Place
    imports: tuple[tuple[str, str, Place], ...]
    rules: tuple[Rule, ...]
    text: str = field(repr=False, default="")

    @property
    def names(self) -> frozenset[str]:
        """Names of the rules defined here."""
        return frozenset(rule.name for rule in self.rules)


class ParseFault(Exception):
    """The text is not Rego v1 as both engines read it."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(str(diagnostic))
        self.diagnostic = diagnostic


_WHERE = re.compile(r"-->\s*(?P<file>.+):(?P<line>\d+):(?P<col>\d+)")


def parse(file: str, text: str) -> Module:
    """Parse one file. Raises ParseFault with the place of the fault."""
    import regorus

    engine = regorus.Engine()
    try:
        engine.add_policy(file, text)
        ast = json.loads(engine.get_ast_as_json())[0]["ast"]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as exc:  # noqa: BLE001  # PanicException is no Exception
        raise ParseFault(_parse_diagnostic(file, text, str(exc))) from None
    package = ast["package"]
    return Module(
        file=file,
        package=".".join(path_of(package["refr"]) or ("?",)),
        package_place=place(package),
        imports=tuple(_imported(item, text.encode()) for item in ast["imports"]),
        rules=tuple(_rule(item) for item in ast["rules"]),
        text=text,
    )


def _parse_diagnostic(file: str, text: str, error: str) -> Diagnostic:
    found = _WHERE.search(error)
    line, col = (int(found["line"]), int(found["col"])) if found else (1, 1)
    col = column(text, line, col)
    lines = text.splitlines()
    source = lines[line - 1] if line <= len(lines) else ""
    if source[col - 1 : col] == "$":
        message = 'string interpolation is not read by both engines; write sprintf("...%v...", [value])'
        return Diagnostic(file, line, col, "string-interpolation", message)
    said = [part.strip() for part in error.partition("Stack backtrace")[0].splitlines()]
    message = next((part[6:].strip() for part in said if part.startswith("error:")), "cannot be parsed")
    return Diagnostic(file, line, col, "syntax", f"{message}; write Rego v1")


def _imported(item: Node, source: bytes) -> tuple[str, str, Place]:
    path = path_of(item["refr"]) or ("?",)
    alias = item.get("as")
    return (text_at(alias, source) if alias else path[-1], ".".join(path), place(item))


def text_at(span: Node, source: bytes) -> str:
    """The source text of a span (names bound by ``some`` and ``every`` are given as spans alone)."""
    return source[span["start"] : span["end"]].decode()


def _rule(item: Node) -> Rule:
    if "Default" in item:
        node = item["Default"]
        arity = len(node["args"]) or None
        return Rule((path_of(node["refr"]) or ("?",))[0], "default", arity, node, place(node))
    node = item["Spec"]
    kind, head = next(iter(node["head"].items()))
    name = (path_of(head["refr"]) or root_of(head["refr"]) or ("?",))[0]
    if kind == "Func":
        return Rule(name, "function", len(head["args"]), node, place(node))
    if kind == "Set":
        return Rule(name, "set", None, node, place(node))
    partial = next(iter(head["refr"])) != "Var"
    return Rule(name, "object" if partial else "complete", None, node, place(node))


def expression(node: Node) -> tuple[str, Any]:
    """The kind and body of an AST node ``{"Kind": body}``; ``("", node)`` for anything else."""
    if isinstance(node, dict) and len(node) == 1:
        kind, body = next(iter(node.items()))
        if isinstance(body, dict) and "span" in body:
            return kind, body
    return "", node


def path_of(node: Node) -> tuple[str, ...] | None:
    """``("input", "a", "b")`` of a reference with constant parts only, else None."""
    kind, body = expression(node)
    if kind == "Var":
        return (body["value"],)
    if kind == "RefDot":
        head = path_of(body["refr"])
        return None if head is None else (*head, body["field"][1])
    if kind == "RefBrack":
        head = path_of(body["refr"])
        index_kind, index = expression(body["index"])
        return (*head, index["value"]) if head and index_kind in ("String", "RawString") else None
    return None


def root_of(node: Node) -> tuple[str, ...] | None:
    """The longest constant beginning of a reference: ``("input", "a")`` of ``input.a[x].b``."""
    whole = path_of(node)
    if whole:
        return whole
    kind, body = expression(node)
    return root_of(body["refr"]) if kind in ("RefDot", "RefBrack") else None


def nodes(tree: Node) -> Iterator[tuple[str, Any]]:
    """Every expression below ``tree``, itself included, parents first."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(reversed(node))
        elif isinstance(node, dict) and "line" not in node:
            if len(node) == 1:
                kind, body = expression(node)
                if kind:
                    yield kind, body
            waiting.extend(reversed(node.values()))


def place(tree: Node) -> Place:
    """Least line and column of anything in ``tree``; (1, 1) when it holds no span."""
    return min(_places(tree), default=(1, 1))


def lines(rule: Node) -> frozenset[int]:
    """Lines on which something of a rule is evaluated."""
    return frozenset(line for line, _ in _places(rule))


def column(text: str, line: int, col: int) -> int:
    """The column as editors and OPA count it: regorus counts a tab as four."""
    lines = text.splitlines()
    source = lines[line - 1] if 0 < line <= len(lines) else ""
    width = 1
    for position, character in enumerate(source, 1):
        if width >= col:
            return position
        width += 4 if character == "\t" else 1
    return len(source) + 1 if source else col


def _places(tree: Node) -> Iterator[Place]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict):
            if "line" in node:
                yield node["line"], node["col"]
            else:
                waiting.extend(node.values())
