"""The gate's rules about single expressions: literals, fields, arithmetic, calls, references."""

from __future__ import annotations

import re

from guard_core.policy.gate_file import SourceFile, check_resolves, target_of
from guard_core.policy.portable import PORTABLE, instead
from guard_core.policy.rego_ast import Node, expression, nodes, path_of, place

KEYWORDS = frozenset(
    {"as", "contains", "data", "default", "else", "every", "false", "if", "in", "input", "import", "not"}
    | {"null", "package", "some", "true", "with"}
)
_INTEGER = re.compile(rb"^-?[0-9]+$")
_VERB = re.compile(r"%(.?)")


def check_expressions(file: SourceFile) -> None:
    """Report literals, fields, operators and calls that are not portable, and names that mean nothing."""
    for rule in file.module.rules:
        for kind, body in nodes(rule.node):
            _number_or_field(file, kind, body)
            if kind == "UnaryExpr":
                file.report(body, "unary-minus", "regorus negates literals only; write 0 - value")
            elif kind == "ArithExpr" and body["op"] == "Div":
                file.report(body, "division", "a quotient may be a fraction; compare products instead")
            elif kind == "ArithExpr" and body["op"] == "Mul" and not _has_literal(body):
                file.report(body, "product", "large products round differently; multiply by a literal only")
            elif kind == "Call":
                _call(file, body)
            elif kind in ("RefDot", "RefBrack", "Var"):
                _reference(file, kind, body)


def _has_literal(body: Node) -> bool:
    return "Number" in (expression(body["lhs"])[0], expression(body["rhs"])[0])


def _number_or_field(file: SourceFile, kind: str, body: Node) -> None:
    if kind == "Number":
        literal = file.source[body["span"]["start"] : body["span"]["end"]]
        if not _INTEGER.match(literal) or abs(int(literal)) >= (2**63 if file.test else 2**53):
            text = literal.decode(errors="replace")
            file.report(body, "number", f"{text} is not a whole number below 2^53; use milli units or _ppm")
    elif kind == "RefDot" and body["field"][1] in KEYWORDS:
        name = body["field"][1]
        where = (body["field"][0]["line"], body["field"][0]["col"])
        file.report(where, "keyword-field", f'{name} is a word of Rego; write ["{name}"]')


def _call(file: SourceFile, body: Node) -> None:
    path = path_of(body["fcn"])
    if path is None:
        file.report(body, "call", "a function is named outright, never computed")
        return
    name = ".".join(path)
    if path[0] in file.rules or path[0] == "data" or file.imported(path[0]):
        target = target_of(file, path)
        if target is not None and (target.kind != "function" or target.arity != len(body["params"])):
            want = f"takes {target.arity} arguments" if target.kind == "function" else "is not a function"
            file.report(body, "arguments", f"{name} {want}")
        return
    if name not in PORTABLE:
        file.report(body, "builtin", f"{name} is not portable: {instead(name)}")
    elif name == "sprintf":
        _sprintf(file, body)


def _sprintf(file: SourceFile, body: Node) -> None:
    kind, text = expression(body["params"][0])
    items_kind, items = expression(body["params"][-1])
    if kind not in ("String", "RawString") or items_kind != "Array" or len(body["params"]) != 2:
        file.report(body, "sprintf", 'write sprintf("literal text with %v", [one, value, each])')
        return
    verbs = [verb for verb in _VERB.findall(text["value"]) if verb != "%"]
    if any(verb != "v" for verb in verbs):
        bad = next(verb for verb in verbs if verb != "v")
        file.report(body, "sprintf-verb", f"%{bad} prints differently on the two engines; write %v")
    elif len(verbs) != len(items["items"]):
        message = f"{len(verbs)} times %v for {len(items['items'])} values; make them match"
        file.report(body, "sprintf-arguments", message)
    for item in items["items"]:
        path = path_of(item)
        target = target_of(file, path) if path else None
        if expression(item)[0] in ("Set", "SetCompr") or (target is not None and target.kind == "set"):
            file.report(item, "sprintf-set", "an empty set prints differently; print its count instead")


def _reference(file: SourceFile, kind: str, body: Node) -> None:
    path = path_of({kind: body})
    if path is None or len(path) < 2:
        return
    if path[0] == "data":
        whole = None if file.test else path
    else:
        found = file.imported(path[0])
        whole = (*found.split("."), *path[1:]) if found else None
    if whole is None:
        return
    where = place(body)
    if where not in file.resolved:  # else: the beginning of a longer reference, which has been looked at
        file.resolved.add(where)
        check_resolves(file, whole, where)
