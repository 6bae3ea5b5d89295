"""The portability gate: Rego that two engines would read differently is refused before it can decide.

regorus (embedded) and OPA (server) agree on a large part of Rego and differ at its edges. Each rule here
has a measured difference behind it (tests/policies/test_gate_is_needed.py shows each one on both engines).
The most dangerous is ``not f(input.x)`` with ``input.x`` missing: OPA looks ``input.x`` up first and the
whole expression is undefined, so a ``deny`` rule written that way never fires on a server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from guard_core.policy.portable import COLLECTION_BUILTINS, PORTABLE, instead
from guard_core.policy.rego_ast import (
    Diagnostic,
    Module,
    Node,
    ParseFault,
    Place,
    Rule,
    column,
    expression,
    nodes,
    parse,
    path_of,
    place,
    root_of,
    text_at,
)

KEYWORDS = frozenset(
    [
        "as",
        "contains",
        "data",
        "default",
        "else",
        "every",
        "false",
        "if",
        "in",
        "input",
        "import",
        "not",
        "null",
        "package",
        "some",
        "true",
        "with",
    ]
)
_INTEGER = re.compile(rb"^-?[0-9]+$")
_VERB = re.compile(r"%(.?)")
_LITERALS = ("String", "RawString", "Number", "Bool", "Null")
_COMPREHENSIONS = ("ArrayCompr", "SetCompr", "ObjectCompr")


@dataclass(frozen=True, slots=True)
class Scope:
    """What the whole bundle defines: rules by package, and the data that is not Rego."""

    packages: Mapping[str, Mapping[str, Rule]]
    config: Collection[str] | None


@dataclass(slots=True)
class _File:
    """Findings of one file, with what is needed to make them."""

    module: Module
    scope: Scope
    test: bool
    found: list[Diagnostic] = field(default_factory=list)
    source: bytes = b""
    resolved: set[Place] = field(default_factory=set)

    def report(self, where: Node | Place, code: str, message: str) -> None:
        line, col = where if isinstance(where, tuple) else place(where)
        col = column(self.module.text, line, col)
        self.found.append(Diagnostic(self.module.file, line, col, code, message))

    @property
    def rules(self) -> Mapping[str, Rule]:
        return self.scope.packages.get(self.module.package, {})

    def imported(self, name: str) -> str | None:
        return next((path for alias, path, _ in self.module.imports if alias == name), None)


def gate(
    modules: Mapping[str, str],
    tests: Mapping[str, str] | None = None,
    *,
    config: Collection[str] | None = None,
) -> tuple[Diagnostic, ...]:
    """Every reason to refuse these modules, in file order; empty when they are portable.

    ``config`` names the data files, so that a misspelt ``data.guard.config.x`` is found; None skips that.
    """
    found: list[Diagnostic] = []
    parsed: list[tuple[Module, bool]] = []
    for files, test in ((modules, False), (tests or {}, True)):
        for name, text in files.items():
            try:
                parsed.append((parse(name, text), test))
            except ParseFault as fault:
                found.append(fault.diagnostic)
    packages: dict[str, dict[str, Rule]] = {}
    for module, _ in parsed:
        for rule in module.rules:
            known = packages.setdefault(module.package, {})
            if rule.name not in known or known[rule.name].kind == "default":
                known[rule.name] = rule
        packages.setdefault(module.package, {})
    scope = Scope(packages, config)
    for module, test in parsed:
        file = _File(module, scope, test, source=module.text.encode())
        for check in _CHECKS:
            check(file)
        found += file.found
    return tuple(sorted(set(found)))


def _package(file: _File) -> None:
    module = file.module
    where = module.package_place
    if module.package.split(".")[0] != "guard":
        file.report(where, "package", "packages begin with guard, the root this bundle owns")
    elif module.package.startswith("guard.config"):
        file.report(where, "package", "guard.config is where the data files appear; choose another package")
    elif "/" in module.file:
        folder = module.file.rpartition("/")[0].replace("/", ".")
        package = module.package.removesuffix("_test") if file.test else module.package
        if not folder.endswith(package):
            file.report(where, "package", f"package {module.package} belongs in the folder of that name")


def _duplicates(file: _File) -> None:
    seen: set[str] = set()
    for alias, path, where in file.module.imports:
        if alias in seen:
            file.report(where, "import-shadowed", f"the name {alias} is imported twice; give one an alias")
        seen.add(alias)
        if alias in file.rules:
            file.report(where, "import-shadowed", f"{alias} is also a rule here; give the import an alias")
        if path not in ("rego.v1", "future.keywords"):
            _resolves(file, tuple(path.split(".")), where)
    defaults: set[str] = set()
    for rule in file.module.rules:
        first = file.rules[rule.name]
        if rule.kind == "default":
            if rule.name in defaults:
                file.report(rule.place, "duplicate-default", f"{rule.name} has two defaults; keep one")
            defaults.add(rule.name)
        elif first.kind != "default" and (rule.kind, rule.arity) != (first.kind, first.arity):
            message = f"{rule.name} is also a {first.kind} with {first.arity or 0} arguments; rename one"
            file.report(rule.place, "rule-conflict", message)
        if rule.name in PORTABLE or rule.name in KEYWORDS:
            file.report(rule.place, "rule-name", f"{rule.name} is a word of Rego; rename the rule")


def _expressions(file: _File) -> None:
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


def _number_or_field(file: _File, kind: str, body: Node) -> None:
    if kind == "Number":
        literal = file.source[body["span"]["start"] : body["span"]["end"]]
        if not _INTEGER.match(literal) or abs(int(literal)) >= (2**63 if file.test else 2**53):
            text = literal.decode(errors="replace")
            file.report(body, "number", f"{text} is not a whole number below 2^53; use milli units or _ppm")
    elif kind == "RefDot" and body["field"][1] in KEYWORDS:
        name = body["field"][1]
        where = (body["field"][0]["line"], body["field"][0]["col"])
        file.report(where, "keyword-field", f'{name} is a word of Rego; write ["{name}"]')


def _call(file: _File, body: Node) -> None:
    path = path_of(body["fcn"])
    if path is None:
        file.report(body, "call", "a function is named outright, never computed")
        return
    name = ".".join(path)
    if path[0] in file.rules or path[0] == "data" or file.imported(path[0]):
        target = _target(file, path)
        if target is not None and (target.kind != "function" or target.arity != len(body["params"])):
            want = f"takes {target.arity} arguments" if target.kind == "function" else "is not a function"
            file.report(body, "arguments", f"{name} {want}")
        return
    if name not in PORTABLE:
        file.report(body, "builtin", f"{name} is not portable: {instead(name)}")
    elif name == "sprintf":
        _sprintf(file, body)


def _sprintf(file: _File, body: Node) -> None:
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
        target = _target(file, path) if path else None
        if expression(item)[0] in ("Set", "SetCompr") or (target is not None and target.kind == "set"):
            file.report(item, "sprintf-set", "an empty set prints differently; print its count instead")


def _reference(file: _File, kind: str, body: Node) -> None:
    path = path_of({kind: body})
    where = place(body)
    if path and len(path) > 1:
        if where in file.resolved:
            return  # the beginning of a longer reference, which has been looked at
        file.resolved.add(where)
    if path and path[0] == "data" and len(path) > 1 and not file.test:
        _resolves(file, path, where)
    elif path and kind == "RefDot" and (found := file.imported(path[0])):
        _resolves(file, (*found.split("."), *path[1:]), where)


def _resolves(file: _File, path: tuple[str, ...], where: Place) -> None:
    """A reference to a package or data that does not exist is undefined for ever: a typing error."""
    if path[:3] == ("data", "guard", "config"):
        config = file.scope.config
        if len(path) > 3 and config is not None and path[3] not in config:
            message = f"{'.'.join(path[:4])}: there is no data file {path[3]}"
            file.report(where, "unresolved", message)
        return
    package = _package_of(file, path)
    if package is None:
        if not any(name.startswith(".".join(path[1:]) + ".") for name in file.scope.packages):
            file.report(where, "unresolved", f"{'.'.join(path)} names no package of this bundle")
        return
    rest = path[1 + package.count(".") + 1 :]
    if rest and rest[0] not in file.scope.packages[package]:
        file.report(where, "unresolved", f"package {package} has no rule {rest[0]}")


def _package_of(file: _File, path: tuple[str, ...]) -> str | None:
    for end in range(len(path), 1, -1):
        name = ".".join(path[1:end])
        if name in file.scope.packages:
            return name
    return None


def _target(file: _File, path: tuple[str, ...]) -> Rule | None:
    """The rule a constant reference means, through imports and packages."""
    if len(path) == 1 and path[0] in file.rules:
        return file.rules[path[0]]
    imported = file.imported(path[0])
    whole = (*imported.split("."), *path[1:]) if imported else path
    if whole[0] != "data":
        return None
    package = _package_of(file, whole)
    rest = whole[1 + package.count(".") + 1 :] if package else ()
    return file.scope.packages[package].get(rest[0]) if package and len(rest) == 1 else None


def _literals(file: _File) -> None:
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
                for kind, body in _shallow(literal):
                    _operands(file, kind, body, local)
        _head(file, rule)


def _head(file: _File, rule: Rule) -> None:
    """A head's value is computed after its body: what the body proved holds for it."""
    if "head" not in rule.node:
        return
    bodies = rule.node.get("bodies", ())
    statements = tuple(statement for body in bodies for statement in body["query"]["stmts"])
    local = _Locals(file, _Scope((), statements, ()))
    for tree in (rule.node["head"], *(body["assign"] for body in bodies)):
        for kind, body in _shallow(tree):
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
        if isinstance(tree, Mapping):
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


def _shallow(tree: Node) -> Iterator[tuple[str, Any]]:
    """Expressions of a statement without the statements nested inside it."""
    if isinstance(tree, Mapping):
        if "stmts" in tree:
            return
        kind, body = expression(tree)
        if kind:
            yield kind, body
        for key, value in tree.items():
            if key != "span":
                yield from _shallow(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _shallow(value)


class _Locals:
    """What is known about variables of one query: which are bound, which are surely collections."""

    def __init__(self, file: _File, scope: _Scope) -> None:
        self.bound = set(scope.arguments)
        self.collections: set[str] = set()
        self.data: set[str] = set()  # variables that go through admin data, which has passed its schema
        self.typed: set[str] = set()
        for statement in scope.statements:
            self._bind(file, statement["literal"])
        for statement in scope.outer:
            self._bind(file, statement["literal"])
            self.pass_by(file, statement["literal"])

    def _bind(self, file: _File, literal: Node) -> None:
        if "NotExpr" in literal:
            return
        if "SomeVars" in literal:
            self.bound |= {text_at(span, file.source) for span in literal["SomeVars"]["vars"]}
        if "Every" in literal:
            every = literal["Every"]
            self.bound |= {text_at(s, file.source) for s in (every["key"], every["value"]) if s}
        for kind, body in _shallow(literal):
            if kind == "Var" and body["value"] not in ("input", "data"):
                self.bound.add(body["value"])

    def pass_by(self, file: _File, literal: Node) -> None:
        """Learn what a statement proves for the statements after it."""
        if "NotExpr" in literal:
            return
        if "SomeIn" in literal and _is_data(file, literal["SomeIn"]["collection"], self):
            names = (literal["SomeIn"]["key"], literal["SomeIn"]["value"])
            self.data |= {path[0] for name in names if name and (path := path_of(name))}
        for kind, body in _shallow(literal):
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


def _operands(file: _File, kind: str, body: Node, local: _Locals) -> None:
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


def _surely_collection(file: _File, node: Node, local: _Locals) -> bool:
    kind, body = expression(node)
    if kind in (*_COMPREHENSIONS, "Array", "Set", "Object", "BinExpr"):
        return True
    if kind == "ArithExpr":
        return bool(body["op"] == "Sub")  # set difference; of numbers it is an error on both engines
    if kind == "Call":
        path = path_of(body["fcn"])
        return path is not None and (".".join(path) in COLLECTION_BUILTINS or _target(file, path) is not None)
    root = root_of(node)
    if root is None:
        return False
    path = path_of(node)
    if path and ".".join(path) in local.collections:
        return True
    if _is_data(file, node, local):
        return True
    # A rule is answered for where it is written.
    return _target(file, root[:1]) is not None or _target(file, root[:2]) is not None


def _is_data(file: _File, node: Node, local: _Locals) -> bool:
    """Whether a reference goes into the admins' data: outright, by a rule naming a part of it, by a variable."""
    root = root_of(node)
    if root is None:
        return False
    if root[0] == "data" or root[0] in local.data:
        return True
    rule = _target(file, root[:1]) or _target(file, root[:2])
    if rule is None or rule.kind != "complete" or rule.node["bodies"]:
        return False
    assigned = expression(rule.node["head"]["Compr"])[1].get("assign")
    value = root_of(assigned["value"]) if assigned else None
    return value is not None and value[:3] == ("data", "guard", "config")


def _collection(file: _File, node: Node, local: _Locals, where: str) -> None:
    if not _surely_collection(file, node, local):
        message = (
            f"engines differ when {where} meets something that is no collection; "
            "check it in the same body first: is_array(x)"
        )
        file.report(node, "unchecked-collection", message)


def _negation(file: _File, node: Node, local: _Locals) -> None:
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


def _plain_indexes(file: _File, node: Node, local: _Locals) -> None:
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


def _plain(file: _File, node: Node, local: _Locals) -> None:
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


_CHECKS: tuple[Callable[[_File], None], ...] = (_package, _duplicates, _expressions, _literals)
