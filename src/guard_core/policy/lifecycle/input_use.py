"""Which parts of its input a decision can depend on, read from the policy's own text.

Two recorded questions that agree in these parts get the same answer from this policy, whatever else they
hold: so replay asks once for all of them. The analysis errs to one side only: where it cannot follow a
reference it counts more of the input as used, in doubt all of it. It relies on the portability gate, which
admits no `with input`, no clock, no network and no randomness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from guard_core.policy.rego_ast import Module, Node, expression, nodes, parse, place

Path = tuple[str, ...]
"""Keys from the top of the input; the value there and all below it."""

CLOCK: Path = ("now_ns",)
TYPE_TESTS = frozenset({"is_number", "is_string", "is_boolean", "is_array", "is_object", "is_null"})
_REFERENCES = ("Var", "RefDot", "RefBrack")


@dataclass(frozen=True, slots=True)
class InputUse:
    """``whole``: parts whose value counts. ``typed``: parts of which only the JSON type or absence counts."""

    whole: frozenset[Path]
    typed: frozenset[Path]
    everything: bool = False
    clock_places: frozenset[tuple[str, int]] = frozenset()
    """Files and lines that read the value of ``input.now_ns``, which is another one in every record."""

    def without_clock(self) -> InputUse:
        """The same, for an evaluation that came by none of :attr:`clock_places`."""
        return replace(self, whole=self.whole - {CLOCK}, typed=self.typed | {CLOCK})

    def touches(self, part: Path) -> bool:
        """Whether the answer could differ for another value, or another type, at ``part``."""
        if self.everything:
            return True
        return any(_above(used, part) or _above(part, used) for used in self.whole) or any(
            _above(part, used) for used in self.typed
        )

    def projector(self) -> Callable[[Any], Any]:
        """A function from an input to what counts of it: equal results mean equal answers."""
        if self.everything:
            return lambda value: value
        return self.parts().plan()

    def parts(self) -> Part:
        """What counts as a tree of keys, unless everything does."""
        root = Part()
        for path in self.whole:
            _part(root, path).whole = True
        for path in self.typed:
            _part(root, path).typed = True
        return root


class Part:
    """One key of the input in use: ``whole``, or only the type of what stands there, or its ``children``."""

    __slots__ = ("children", "typed", "whole")

    def __init__(self) -> None:
        self.whole = False
        self.typed = False
        self.children: dict[str, Part] = {}

    def plan(self) -> Callable[[Any], Any]:
        """The function that takes this part of an input."""
        if self.whole:
            return lambda value: value
        if not self.children:
            return lambda value: {} if isinstance(value, dict) else _kind(value)
        steps = [(key, None if c.whole else c.plan()) for key, c in sorted(self.children.items())]

        def of(value: Any) -> Any:
            if type(value) is not dict:
                return value  # not an object, where one was expected: rare, so all of it counts
            return {
                key: value[key] if inner is None else inner(value[key])
                for key, inner in steps
                if key in value
            }

        return of


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return {str: "string", list: "array", type(None): "null"}.get(type(value), "?")


def _part(root: Part, path: Path) -> Part:
    for key in path:
        root = root.children.setdefault(key, Part())
    return root


def _variables(node: Node) -> Iterator[str]:
    """Names of the variables in ``node``, those that begin references included."""
    for kind, body in nodes(node):
        if kind == "Var":
            yield str(body["value"])


def _above(upper: Path, lower: Path) -> bool:
    return lower[: len(upper)] == upper


def input_use(
    modules: Mapping[str, str] | Iterable[Module], path: str, *, config: Mapping[str, Any] | None = None
) -> InputUse:
    """What the rule at ``path`` reads of its input, through every rule it reaches.

    ``modules`` are texts by file name, or already parsed. ``config`` is the policy data they will run with:
    what is said only of members of an empty collection of it (no waivers, no holidays) does not count.
    Raises ParseFault for a text that is no Rego.
    """
    parsed = (
        [parse(name, text) for name, text in modules.items()]
        if isinstance(modules, Mapping)
        else list(modules)
    )
    reader = _Reader(parsed, config or {})
    *package, rule = path.split("/")
    reader.reach(".".join(package), rule)
    return reader.read()


class _Reader:
    """Follows references from rule to rule and notes those that begin at ``input``."""

    def __init__(self, modules: list[Module], config: Mapping[str, Any]) -> None:
        self._config = config
        self._packages: dict[str, list[Module]] = {}
        for module in modules:
            self._packages.setdefault(module.package, []).append(module)
        self._todo: list[tuple[str, str]] = []
        self._seen: set[tuple[str, str]] = set()
        self._whole: set[Path] = set()
        self._typed: set[Path] = set()
        self._everything = False
        self._clock_places: set[tuple[str, int]] = set()

    def reach(self, package: str, rule: str) -> None:
        if (package, rule) not in self._seen:
            self._seen.add((package, rule))
            self._todo.append((package, rule))

    def read(self) -> InputUse:
        while self._todo:
            package, name = self._todo.pop()
            for module in self._packages.get(package, ()):
                for rule in module.rules:
                    if rule.name == name:
                        self._visit(rule.node, module)
        whole = {p for p in self._whole if not any(q != p and _above(q, p) for q in self._whole)}
        typed = {p for p in self._typed if not any(_above(q, p) for q in whole)}
        return InputUse(frozenset(whole), frozenset(typed), self._everything, frozenset(self._clock_places))

    def _visit(self, node: Node, module: Module) -> None:
        kind, body = expression(node)
        if kind in _REFERENCES:
            self._reference(node, module)
            return
        if kind == "Call" and self._known_call(body, module):
            return
        inner = body if kind else node
        if isinstance(inner, Mapping):
            if inner.get("with_mods"):
                self._everything = True
            never = self._never_bound(inner.get("stmts"), module)
            for key, value in inner.items():
                if key == "stmts" and never:
                    self._visit([s for s in value if not never & set(_variables(s))], module)
                elif key != "span":
                    self._visit(value, module)
        elif isinstance(inner, list):
            for value in inner:
                self._visit(value, module)

    def _never_bound(self, statements: Any, module: Module) -> set[str]:
        """Variables that range over an empty collection of the data: what needs them is never evaluated."""
        found: set[str] = set()
        for statement in statements or ():
            kind, body = expression(statement.get("literal"))
            if kind == "SomeIn" and self._is_empty(body["collection"], module):
                found |= {body["value"]["Var"]["value"]} if "Var" in body["value"] else set()
        return found

    def _is_empty(self, node: Node, module: Module) -> bool:
        if expression(node)[0] not in _REFERENCES:
            return False
        steps, whole = self._steps(node, module)
        if steps is None or not whole or steps[:3] != ("data", "guard", "config") or len(steps) < 4:
            return False
        value: Any = self._config
        for key in steps[3:]:
            if not isinstance(value, Mapping) or key not in value:
                return False
            value = value[key]
        return value in ([], {})

    def _reference(self, node: Node, module: Module) -> None:
        steps, _ = self._steps(node, module)
        if steps is None:
            return
        if steps[0] == "input":
            if len(steps) == 1:
                self._everything = True
            else:
                self._read_whole(steps[1:], node, module)
        elif steps[0] == "data":
            self._data(steps[1:])
        elif any(steps[0] in m.names for m in self._packages[module.package]):
            self.reach(module.package, steps[0])

    def _steps(self, node: Node, module: Module) -> tuple[Path | None, bool]:
        """The constant beginning of a reference with aliases resolved, and whether that is all of it.

        Visits what stands in brackets. None for a reference that begins with an expression.
        """
        parts: list[str | None] = []
        kind, body = expression(node)
        while kind in ("RefDot", "RefBrack"):
            if kind == "RefDot":
                parts.append(body["field"][1])
            else:
                index_kind, index = expression(body["index"])
                constant = index_kind in ("String", "RawString")
                parts.append(index["value"] if constant else None)
                if not constant:
                    self._visit(body["index"], module)
            kind, body = expression(body["refr"])
        if kind != "Var":
            self._visit({kind: body} if kind else body, module)
            return None, False
        parts.reverse()
        constant_parts: list[str] = []
        for part in parts:
            if part is None:
                break
            constant_parts.append(part)
        root: Path = (body["value"],)
        for alias, target, _ in module.imports:
            if alias == body["value"]:
                root = tuple(target.split("."))
        return (*root, *constant_parts), len(constant_parts) == len(parts)

    def _data(self, path: Path) -> None:
        if path[:2] == ("guard", "config"):
            return
        for length in range(len(path), 0, -1):
            package = ".".join(path[:length])
            if package in self._packages and len(path) > length:
                self.reach(package, path[length])
                return
        # It names a package, several, or (computed in brackets) who knows which: all rules below count.
        dotted = ".".join(path)
        for package, modules in self._packages.items():
            if not dotted or package == dotted or package.startswith(f"{dotted}."):
                for module in modules:
                    for rule in module.rules:
                        self.reach(package, rule.name)

    def _known_call(self, body: Any, module: Module) -> bool:
        """Calls that look at less than the whole of their argument. False for all others."""
        name = self._builtin(body["fcn"], module)
        params = body["params"]
        if name in TYPE_TESTS and len(params) == 1:
            part = self._input_part(params[0], module)
            if part:
                self._typed.add(part)
                return True
        if name == "object.get" and len(params) == 3:
            part = self._input_part(params[0], module)
            kind, key = expression(params[1])
            if part is not None and kind in ("String", "RawString"):
                self._typed |= {part} if part else set()  # the input itself is always an object
                self._read_whole((*part, key["value"]), body, module)
                self._visit(params[2], module)
                return True
        return False

    def _builtin(self, node: Node, module: Module) -> str:
        kind, body = expression(node)
        if kind == "Var":
            found = str(body["value"])
        elif kind == "RefDot" and expression(body["refr"])[0] == "Var":
            found = f"{expression(body['refr'])[1]['value']}.{body['field'][1]}"
        else:
            return ""
        first = found.split(".")[0]
        mine = any(first in m.names for m in self._packages[module.package])
        return "" if mine or any(first == alias for alias, _, _ in module.imports) else found

    def _input_part(self, node: Node, module: Module) -> Path | None:
        """The part of the input that ``node`` names with constants only (all of it: empty), else None."""
        if expression(node)[0] not in _REFERENCES:
            return None
        steps, whole = self._steps(node, module)
        return steps[1:] if steps is not None and whole and steps[0] == "input" else None

    def _read_whole(self, path: Path, node: Node, module: Module) -> None:
        self._whole.add(path)
        if path == CLOCK:
            self._clock_places.add((module.file, place(node)[0]))
