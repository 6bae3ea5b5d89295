"""The portability gate refuses with file, line, column and the portable way; portable Rego passes."""

from __future__ import annotations

import pytest

from guard_core.errors import UserError
from guard_core.policy.bundle import load_bundle, make_bundle, shipped_policies
from guard_core.policy.engine import accepted
from guard_core.policy.gate import gate
from guard_core.policy.rego_ast import Diagnostic


def faults(body: str, **others: str) -> tuple[Diagnostic, ...]:
    modules = {"guard/t/t.rego": f"package guard.t\n\n{body}\n"}
    modules |= {name.replace("__", "/") + ".rego": text for name, text in others.items()}
    return gate(modules, config={"tenants"})


def only(body: str, **others: str) -> Diagnostic:
    found = faults(body, **others)
    assert len(found) == 1, found
    return found[0]


def test_the_shipped_policies_and_their_tests_pass() -> None:
    bundle = load_bundle(shipped_policies())
    assert gate(bundle.modules, bundle.tests, config=bundle.config) == ()


@pytest.mark.parametrize(
    ("body", "code", "line", "col", "portable"),
    [
        ('p := sprintf("%d", [1])', "sprintf-verb", 3, 6, "write %v"),
        ("p := sprintf(input.f, [1])", "sprintf", 3, 6, "literal text"),
        ("p := 1.5", "number", 3, 6, "milli units"),
        ("p := 1e3", "number", 3, 6, "milli units"),
        ("p := 9007199254740993", "number", 3, 6, "2^53"),
        ("p := input.a / 2 if is_number(input.a)", "division", 3, 6, "compare products"),
        ("p := -input.a", "unary-minus", 3, 6, "0 - value"),
        ("p := time.now_ns()", "builtin", 3, 6, "input.now_ns"),
        ('p := http.send({"url": "x"})', "builtin", 3, 6, "put the fact in input"),
        ('p := crypto.sha256("x")', "builtin", 3, 6, "send the result in input"),
        ("p := opa.runtime()", "builtin", 3, 6, "only input and data"),
        ('p := rand.intn("x", 3)', "builtin", 3, 6, "must repeat"),
        ('p := uper("x")', "builtin", 3, 6, "not on the list"),
        ("p := input.if", "keyword-field", 3, 12, '["if"]'),
        ('p := $"x{input.a}"', "string-interpolation", 3, 6, "sprintf"),
        ('p if {\n\ttrue\n\tnot startswith(input.a, "x")\n}', "negated-lookup", 5, 17, "a rule of its own"),
        ("p := [x | some x in input.a]", "unchecked-collection", 3, 21, "is_array"),
        ("p if every x in input.a { x }", "unchecked-collection", 3, 17, "is_array"),
        ("p := count(input.a)", "unchecked-collection", 3, 12, "is_array"),
        ('p if startswith(input.a, "x")', "unchecked-type", 3, 17, "is_string"),
        ("p := input.a + 1", "unchecked-type", 3, 6, "check it"),
        ("p if input.a == 1 with input.a as 2", "with", 3, 19, "tests"),
        ("count := 1", "rule-name", 3, 1, "rename"),
        ("p := data.guard.config.tenant", "unresolved", 3, 6, "no data file tenant"),
        ("p := data.guard.lib.x", "unresolved", 3, 6, "names no package"),
        ("p if not q", "unsafe-variable", 3, 10, "bind it before"),
        ("default p := 1\ndefault p := 2", "duplicate-default", 4, 1, "keep one"),
        ("p := 1 if", "syntax", 4, 1, "Rego v1"),
    ],
)
def test_what_is_not_portable_is_refused_where_it_stands(
    body: str, code: str, line: int, col: int, portable: str
) -> None:
    found = only(body)
    assert (found.code, found.line, found.col) == (code, line, col)
    assert portable in found.message
    assert str(found).startswith(f"guard/t/t.rego:{line}:{col}: ")


@pytest.mark.parametrize(
    "body",
    [
        'p if not q\n\nq if startswith(input.a, "x")'.replace(
            "if starts", "if {\n\tis_string(input.a)\n\tstarts"
        )
        + "\n}",
        "p if not input.a == input.b",
        "p if not input.a.b",
        "p if {\n\tsome x in [1, 2]\n\tnot x in {1}\n}",
        "p if {\n\txs := input.a\n\tis_array(xs)\n\tsome x in xs\n\tnot x == 3\n}",
        "p if {\n\tis_array(input.a)\n\tevery x in input.a { is_string(x) }\n}",
        "xs contains x if {\n\tis_array(input.a)\n\tsome x in input.a\n}\n\nq if not 3 in xs",
        "f(x) := x + 1\n\np := f(2)",
        "default f(_) := 0\n\nf(x) := 1 if x == 2\n\np := f(2)",
        'p := sprintf("100%% of %v", [input.a]) if is_string(input.a)',
        'p := sprintf("level %v", [input.a]) if input.a in {1, 2}',
        "p := [x | some x in data.guard.config.tenants]",
        "p := input.now_ns - 60 * 1000000000 if is_number(input.now_ns)",
        'p := input["if"]',
    ],
)
def test_the_portable_way_passes(body: str) -> None:
    assert faults(body) == ()


def test_a_check_counts_only_for_what_follows_it() -> None:
    body = "p if {\n\tsome x in input.a\n\tis_array(input.a)\n\tx == 1\n}"
    assert only(body).code == "unchecked-collection"


def test_packages_stay_inside_the_bundles_root_and_their_folder() -> None:
    assert only_code({"guard/t/t.rego": "package other\n\np := 1\n"}) == "package"
    assert only_code({"guard/t/t.rego": "package guard.config.tenants\n\np := 1\n"}) == "package"
    assert only_code({"guard/t/t.rego": "package guard.u\n\np := 1\n"}) == "package"


def only_code(modules: dict[str, str]) -> str:
    (found,) = gate(modules)
    return found.code


def test_a_misspelt_import_or_rule_of_another_package_is_found() -> None:
    lib = "package guard.lib\n\nok := true\n"
    assert faults("import data.guard.lib\n\np := lib.ok", guard__lib__lib=lib) == ()
    assert only("import data.guard.lib\n\np := lib.okay", guard__lib__lib=lib).code == "unresolved"
    assert only("import data.guard.libs\n\np := 1", guard__lib__lib=lib).code == "unresolved"
    assert only("import data.guard.lib\n\np := data.guard.lib.nope", guard__lib__lib=lib).code == "unresolved"


def test_a_function_is_called_with_its_arguments() -> None:
    assert only("f(x) := x\n\np := f(1, 2)").code == "arguments"
    assert only("f := 1\n\np := f(1)").code == "arguments"


def test_imports_do_not_hide_each_other_or_a_rule() -> None:
    lib, other = "package guard.lib\n\nok := 1\n", "package guard.u.lib\n\nok := 1\n"
    twice = "import data.guard.lib\nimport data.guard.u.lib\n\np := lib.ok"
    assert {d.code for d in faults(twice, guard__lib__lib=lib, guard__u__lib__lib=other)} == {
        "import-shadowed"
    }
    assert only("import data.guard.lib\n\nlib := 1", guard__lib__lib=lib).code == "import-shadowed"


def test_tests_may_use_with_but_not_other_builtins() -> None:
    module = {"guard/t/t.rego": "package guard.t\n\np := input.a\n"}
    good = {
        "guard/t/t_test.rego": "package guard.t_test\n\nimport data.guard.t\n\n"
        'test_p if t.p == 1 with input as {"a": 1}\n'
    }
    assert gate(module, good) == ()
    bad = {"guard/t/t_test.rego": "package guard.t_test\n\ntest_p if time.now_ns() > 1\n"}
    assert [d.code for d in gate(module, bad)] == ["builtin"]


def test_an_engine_is_not_made_of_a_policy_that_is_not_portable() -> None:
    bundle = make_bundle({"guard/t/t.rego": "package guard.t\n\np := 1.5\nq := 2.5\n"}, {})
    with pytest.raises(UserError, match=r"guard/t/t\.rego:3:6: .*and 1 more"):
        accepted(bundle)
    fine = make_bundle({"guard/t/t.rego": "package guard.t\n\np := 1\n"}, {})
    assert accepted(fine) is fine


@pytest.mark.parametrize(
    "text", ["", "package", "package guard.t\np := {", "\x00", "package guard.t\n" + "(" * 3000]
)
def test_text_that_is_not_rego_is_a_fault_and_not_a_crash(text: str) -> None:
    assert [d.code for d in gate({"guard/t/t.rego": text})] == ["syntax"]
