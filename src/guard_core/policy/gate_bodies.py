"""The gate's rules about bodies: what is proved before it is used, and what may stand inside ``not``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from guard_core.policy.gate_file import SourceFile, target_of
from guard_core.policy.portable import COLLECTION_BUILTINS, PORTABLE
from guard_core.policy.rego_ast import Node, Rule, expression, nodes, path_of, root_of, text_at

_LITERALS = ("String", "RawString", "Number", "Bool", "Null")
_COMPREHENSIONS = ("ArrayCompr", "SetCompr", "ObjectCompr")


def check_bodies(file: SourceFile) -> None:
    """Report every body that only one engine would evaluate to the same end."""
    if file.test:
        return  # a test that meets a wrong type fails, which is what tests are for
    for rule in file.module.rules:
        for scope in _scopes(rule.node):
            local = _Locals(file, scope)
            for statement in scope.statements:
                literal = statement["literal"]
                local.pass_by(file, literal)
                if statement.get("with_mods") and not file.test:
                    file.report(
                        statement["with_mods"][0], "with", "with is for tests; pass the value as input"
                    )
                if "NotExpr" in literal:
                    _negation(file, literal["NotExpr"]["expr"], local)
                    continue
                if "SomeIn" in literal:
                    _collection(file, literal["SomeIn"]["collection"], local, "some ... in")
                if "Every" in literal:
                    _collection(file, literal["Every"]["domain"], local, "every")
                for kind, body in file.shallow(literal):
                    _operands(file, kind, body, local)
        _head(file, rule)


def _head(file: SourceFile, rule: Rule) -> None:
    """A head's value is computed after its body: what the body proved holds for it."""
    if "head" not in rule.node:
        return
    bodies = rule.node.get("bodies", ())
    statements = tuple(statement for body in bodies for statement in body["query"]["stmts"])
    local = _Locals(file, _Scope((), statements, ()))
    for tree in (rule.node["head"], *(body["assign"] for body in bodies)):
        for kind, body in file.shallow(tree):
            _operands(file, kind, body, local)


@dataclass(frozen=True, slots=True)
class _Scope:
    statements: tuple[Node, ...]
    outer: tuple[Node, ...]
    arguments: tuple[str, ...]


def _scopes(rule: Node) -> Iterator[_Scope]:
    """Every query of a rule (its bodies, comprehensions, ``every``), with the statements around it."""
    head = next(iter(rule["head"].values())) if "head" in rule else rule
    arguments = tuple(
        body["value"] for argument in head.get("args", ()) for kind, body in nodes(argument) if kind == "Var"
    )

    def inside(tree: Node, outer: tuple[Node, ...]) -> Iterator[_Scope]:
        if isinstance(tree, dict):
            if "stmts" in tree:
                statements = tuple(tree["stmts"])
                yield _Scope(statements, outer, arguments)
                for statement in statements:
                    yield from inside(statement, (*outer, *statements))
                return
            for key, value in tree.items():
                if key != "span":
                    yield from inside(value, outer)
        elif isinstance(tree, list):
            for value in tree:
                yield from inside(value, outer)

    bodies = tuple(statement for body in rule.get("bodies", ()) for statement in body["query"]["stmts"])
    for key, value in rule.items():
        if key == "head":
            yield from inside(value, bodies)
        elif key != "span":
            yield from inside(value, ())


class _Locals:
    """What is known about variables of one query: which are bound, which are surely collections."""

    def __init__(self, file: SourceFile, scope: _Scope) -> None:
        self.bound = set(scope.arguments)
        self.collections: set[str] = set()
        self.data: set[str] = set()  # variables that go through admin data, which has passed its schema
        self.typed: set[str] = set()
        for statement in scope.statements:
            self._bind(file, statement["literal"])
        for statement in scope.outer:
            self._bind(file, statement["literal"])
            self.pass_by(file, statement["literal"])

    def _bind(self, file: SourceFile, literal: Node) -> None:
        if "NotExpr" in literal:
            return
        if "SomeVars" in literal:
            self.bound |= {text_at(span, file.source) for span in literal["SomeVars"]["vars"]}
        if "Every" in literal:
            every = literal["Every"]
            self.bound |= {text_at(s, file.source) for s in (every["key"], every["value"]) if s}
        for kind, body in file.shallow(literal):
            if kind == "Var" and body["value"] not in ("input", "data"):
                self.bound.add(body["value"])

    def pass_by(self, file: SourceFile, literal: Node) -> None:
        """Learn what a statement proves for the statements after it."""
        if "NotExpr" in literal:
            return
        if "SomeIn" in literal and _is_data(file, literal["SomeIn"]["collection"], self):
            names = (literal["SomeIn"]["key"], literal["SomeIn"]["value"])
            self.data |= {path[0] for name in names if name and (path := path_of(name))}
        for kind, body in file.shallow(literal):
            target, variable = expression(body["lhs"]) if kind == "AssignExpr" else ("", {})
            if target == "Var" and _surely_collection(file, body["rhs"], self):
                self.collections.add(variable["value"])
            if kind == "Call":
                name = (path_of(body["fcn"]) or ("",))[0]
                checked = path_of(body["params"][0]) if body["params"] else None
                if checked and name in ("is_array", "is_set", "is_object"):
                    self.collections.add(".".join(checked))
                if checked and name.startswith("is_"):
                    self.typed.add(".".join(checked))
            if kind == "Membership" and expression(body["collection"])[0] in ("Array", "Set"):
                self._compared(body["value"], expression(body["collection"])[1]["items"])
            if kind == "BoolExpr" and body["op"] == "Eq":
                self._compared(body["lhs"], [body["rhs"]])
                self._compared(body["rhs"], [body["lhs"]])

    def _compared(self, node: Node, others: list[Node]) -> None:
        path = path_of(node)
        if path and all(expression(other)[0] in _LITERALS for other in others):
            self.typed.add(".".join(path))


def _operands(file: SourceFile, kind: str, body: Node, local: _Locals) -> None:
    """Builtins fail on the wrong type, and only one engine may get as far as calling them."""
    if kind == "ArithExpr":
        parts = [body["lhs"], body["rhs"]]
    elif kind == "Call":
        path = path_of(body["fcn"])
        name = ".".join(path or ())
        if name == "count" and name not in file.rules:
            _collection(file, body["params"][0], local, "count")
            return
        if name not in PORTABLE or name.startswith("is_") or name == "type_name":
            return
        parts = list(body["params"])
        if name == "sprintf" and expression(parts[-1])[0] == "Array":
            parts = list(expression(parts[-1])[1]["items"])
    else:
        return
    for part in parts:
        path = path_of(part)
        if path and path[0] == "input" and len(path) > 1 and ".".join(path) not in local.typed:
            message = f"{'.'.join(path)} may be of any type; check it in the same body first: is_string(x)"
            file.report(part, "unchecked-type", message)


def _surely_collection(file: SourceFile, node: Node, local: _Locals) -> bool:
    kind, body = expression(node)
    if kind in (*_COMPREHENSIONS, "Array", "Set", "Object", "BinExpr"):
        return True
    if kind == "ArithExpr":
        return bool(body["op"] == "Sub")  # set difference; of numbers it is an error on both engines
    if kind == "Call":
        path = path_of(body["fcn"])
        return path is not None and (
            ".".join(path) in COLLECTION_BUILTINS or target_of(file, path) is not None
        )
    root = root_of(node)
    if root is None:
        return False
    path = path_of(node)
    if path and ".".join(path) in local.collections:
        return True
    if _is_data(file, node, local):
        return True
    # A rule is answered for where it is written.
    return target_of(file, root[:1]) is not None or target_of(file, root[:2]) is not None


def _is_data(file: SourceFile, node: Node, local: _Locals) -> bool:
    """Whether a reference leads into admin data: outright, by a rule naming part of it, or a variable."""
    root = root_of(node)
    if root is None:
        return False
    if root[0] == "data" or root[0] in local.data:
        return True
    rule = target_of(file, root[:1]) or target_of(file, root[:2])
    if rule is None or rule.kind != "complete" or rule.node["bodies"]:
        return False
    assigned = expression(rule.node["head"]["Compr"])[1].get("assign")
    value = root_of(assigned["value"]) if assigned else None
    return value is not None and value[:3] == ("data", "guard", "config")


def _collection(file: SourceFile, node: Node, local: _Locals, where: str) -> None:
    if not _surely_collection(file, node, local):
        message = (
            f"engines differ when {where} meets something that is no collection; "
            "check it in the same body first: is_array(x)"
        )
        file.report(node, "unchecked-collection", message)


def _negation(file: SourceFile, node: Node, local: _Locals) -> None:
    """Inside ``not``, OPA evaluates arguments before the negation and regorus after."""
    kind, body = expression(node)
    if kind in ("Var", "RefDot", "RefBrack"):
        _plain_indexes(file, node, local)
    elif (kind == "BoolExpr" and body["op"] == "Eq") or (kind == "AssignExpr" and body["op"] == "Eq"):
        for side in (body["lhs"], body["rhs"]):
            if expression(side)[0] in ("Var", "RefDot", "RefBrack"):
                _plain_indexes(file, side, local)
            else:
                _plain(file, side, local)
    elif kind == "Call":
        for argument in body["params"]:
            _plain(file, argument, local)
    elif kind == "Membership":
        for part in (body["key"], body["value"], body["collection"]):
            if part is not None:
                _plain(file, part, local)
    elif kind in ("BoolExpr", "ArithExpr", "BinExpr"):
        for side in (body["lhs"], body["rhs"]):
            _plain(file, side, local)
    elif kind not in (*_LITERALS, *_COMPREHENSIONS):
        file.report(node, "negation", "put this in a rule of its own and write: not that_rule")


def _plain_indexes(file: SourceFile, node: Node, local: _Locals) -> None:
    kind, body = expression(node)
    if kind == "Var":
        name = body["value"]
        known = name in local.bound or name in ("input", "data") or file.imported(name) or name in file.rules
        if not known:
            file.report(node, "unsafe-variable", f"{name} has no value inside not; bind it before")
    elif kind == "RefDot":
        _plain_indexes(file, body["refr"], local)
    elif kind == "RefBrack":
        _plain_indexes(file, body["refr"], local)
        _plain(file, body["index"], local)


def _plain(file: SourceFile, node: Node, local: _Locals) -> None:
    kind, body = expression(node)
    if kind in _LITERALS or kind in _COMPREHENSIONS:
        return
    if kind in ("Array", "Set"):
        for item in body["items"]:
            _plain(file, item, local)
        return
    if kind == "Var":
        name = body["value"]
        if name in local.bound and name not in file.rules and not file.imported(name):
            return
        if name in file.rules and file.rules[name].kind in ("set", "object"):
            return  # a partial rule is always defined, at least as empty
        if name not in file.rules and not file.imported(name) and name not in ("input", "data"):
            file.report(node, "unsafe-variable", f"{name} has no value inside not; bind it before")
            return
        if name == "input":
            return  # the request itself is always there
    message = (
        "inside not, OPA looks this up first and the expression is undefined when it is missing; "
        "put the positive test in a rule of its own and write: not that_rule"
    )
    file.report(node, "negated-lookup", message)
