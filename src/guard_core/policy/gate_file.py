"""One file as the gate sees it, inside its bundle: what a name means, what is reported where."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from guard_core.policy.rego_ast import Diagnostic, Module, Node, Place, Rule, column, expression, place


@dataclass(frozen=True, slots=True)
class Scope:
    """What the whole bundle defines: rules by package, and the data that is not Rego."""

    packages: Mapping[str, Mapping[str, Rule]]
    config: Collection[str] | None


@dataclass(slots=True)
class SourceFile:
    """Findings of one file, with what is needed to make them."""

    module: Module
    scope: Scope
    test: bool
    found: list[Diagnostic] = field(default_factory=list)
    source: bytes = b""
    resolved: set[Place] = field(default_factory=set)
    seen: dict[int, list[tuple[str, Any]]] = field(default_factory=dict)  # the AST lives as long as we do

    def report(self, where: Node | Place, code: str, message: str) -> None:
        """Add a diagnostic at a node's first character, or at a place."""
        line, col = where if isinstance(where, tuple) else place(where)
        col = column(self.module.text, line, col)
        self.found.append(Diagnostic(self.module.file, line, col, code, message))

    def shallow(self, tree: Node) -> list[tuple[str, Any]]:
        """Expressions of a statement without the statements nested inside it, parents first."""
        known = self.seen.get(id(tree))
        if known is None:
            known = self.seen[id(tree)] = _shallow(tree)
        return known

    @property
    def rules(self) -> Mapping[str, Rule]:
        """Rules of this file's package, other files of the package included."""
        return self.scope.packages.get(self.module.package, {})

    def imported(self, name: str) -> str | None:
        """The dotted path an imported name stands for."""
        return next((path for alias, path, _ in self.module.imports if alias == name), None)


def check_resolves(file: SourceFile, path: tuple[str, ...], where: Place) -> None:
    """A reference to a package or data that does not exist is undefined for ever: a typing error."""
    if path[:3] == ("data", "guard", "config"):
        config = file.scope.config
        if len(path) > 3 and config is not None and path[3] not in config:
            message = f"{'.'.join(path[:4])}: there is no data file {path[3]}"
            file.report(where, "unresolved", message)
        return
    package = package_of(file, path)
    if package is None:
        if not any(name.startswith(".".join(path[1:]) + ".") for name in file.scope.packages):
            file.report(where, "unresolved", f"{'.'.join(path)} names no package of this bundle")
        return
    rest = path[1 + package.count(".") + 1 :]
    if rest and rest[0] not in file.scope.packages[package]:
        file.report(where, "unresolved", f"package {package} has no rule {rest[0]}")


def package_of(file: SourceFile, path: tuple[str, ...]) -> str | None:
    """The package a path below data lies in: the longest name of the bundle that begins it."""
    for end in range(len(path), 1, -1):
        name = ".".join(path[1:end])
        if name in file.scope.packages:
            return name
    return None


def target_of(file: SourceFile, path: tuple[str, ...]) -> Rule | None:
    """The rule a constant reference means, through imports and packages."""
    if len(path) == 1 and path[0] in file.rules:
        return file.rules[path[0]]
    imported = file.imported(path[0])
    whole = (*imported.split("."), *path[1:]) if imported else path
    if whole[0] != "data":
        return None
    package = package_of(file, whole)
    rest = whole[1 + package.count(".") + 1 :] if package else ()
    return file.scope.packages[package].get(rest[0]) if package and len(rest) == 1 else None


def _shallow(tree: Node) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(reversed(node))
        elif isinstance(node, dict) and "stmts" not in node and "line" not in node:
            if len(node) == 1:
                kind, body = expression(node)
                if kind:
                    found.append((kind, body))
            waiting.extend(reversed(node.values()))
    return found
