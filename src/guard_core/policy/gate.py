"""The portability gate: Rego that two engines would read differently is refused before it can decide.

regorus (embedded) and OPA (server) agree on a large part of Rego and differ at its edges. Each rule here
has a measured difference behind it (tests/policies/test_gate_is_needed.py shows each one on both engines).
The most dangerous is ``not f(input.x)`` with ``input.x`` missing: OPA looks ``input.x`` up first and the
whole expression is undefined, so a ``deny`` rule written that way never fires on a server.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from guard_core.policy.gate_bodies import check_bodies
from guard_core.policy.gate_expressions import KEYWORDS, check_expressions
from guard_core.policy.gate_file import Scope, SourceFile, check_resolves
from guard_core.policy.portable import PORTABLE
from guard_core.policy.rego_ast import Diagnostic, Module, ParseFault, Rule, parse


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
        file = SourceFile(module, scope, test, source=module.text.encode())
        for check in _CHECKS:
            check(file)
        found += file.found
    return tuple(sorted(set(found)))


def _package(file: SourceFile) -> None:
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


def _duplicates(file: SourceFile) -> None:
    seen: set[str] = set()
    for alias, path, where in file.module.imports:
        if alias in seen:
            file.report(where, "import-shadowed", f"the name {alias} is imported twice; give one an alias")
        seen.add(alias)
        if alias in file.rules:
            file.report(where, "import-shadowed", f"{alias} is also a rule here; give the import an alias")
        if path not in ("rego.v1", "future.keywords"):
            check_resolves(file, tuple(path.split(".")), where)
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


_CHECKS: tuple[Callable[[SourceFile], None], ...] = (_package, _duplicates, check_expressions, check_bodies)
