"""The portable part of Rego's library: builtins that answer alike in regorus and in OPA.

Every name here was compared on thousands of random inputs (tests/policies/test_builtin_parity.py runs that
again). A name that is missing here is refused by the gate; the reasons below say what to write instead.
"""

from __future__ import annotations

from collections.abc import Mapping

PORTABLE: frozenset[str] = frozenset(
    {
        "abs",
        "array.concat",
        "array.reverse",
        "array.slice",
        "base64.encode",
        "concat",
        "contains",
        "count",
        "endswith",
        "format_int",
        "intersection",
        "is_array",
        "is_boolean",
        "is_null",
        "is_number",
        "is_object",
        "is_set",
        "is_string",
        "max",
        "min",
        "numbers.range",
        "object.get",
        "object.keys",
        "object.remove",
        "object.union",
        "regex.match",
        "replace",
        "sort",
        "split",
        "sprintf",
        "startswith",
        "strings.any_prefix_match",
        "strings.any_suffix_match",
        "substring",
        "sum",
        "time.clock",
        "time.date",
        "time.parse_rfc3339_ns",
        "time.weekday",
        "trim",
        "trim_left",
        "trim_prefix",
        "trim_right",
        "trim_space",
        "trim_suffix",
        "type_name",
        "union",
    }
)

COLLECTION_BUILTINS: frozenset[str] = frozenset(
    {
        "array.concat",
        "array.reverse",
        "array.slice",
        "intersection",
        "numbers.range",
        "object.keys",
        "object.remove",
        "object.union",
        "sort",
        "split",
        "time.clock",
        "time.date",
        "union",
    }
)
"""Builtins whose result is surely an array, set or object."""

_CLOCK = "pass the time in input.now_ns"
_OUTSIDE = "policies see only input and data: put the fact in input"
_TEXT = "engines differ outside ASCII: compare the exact text, or send it prepared in input"

INSTEAD: Mapping[str, str] = {
    "http.send": _OUTSIDE,
    "net.lookup_ip_addr": _OUTSIDE,
    "opa.runtime": _OUTSIDE,
    "providers.aws.sign_req": _OUTSIDE,
    "time.now_ns": _CLOCK,
    "rand.intn": "a decision must repeat: send the number in input",
    "uuid.rfc4122": "a decision must repeat: send the identifier in input",
    "lower": _TEXT,
    "upper": _TEXT,
    "indexof": "use contains, startswith or split",
    "strings.count": "it panics on an empty pattern: use count(split(text, part))",
    "print": "remove it; trainguard policy why shows what a decision saw",
    "trace": "remove it; trainguard policy why shows what a decision saw",
    "yaml.unmarshal": "send the value itself in input",
    "json.unmarshal": "send the value itself in input",
    "json.filter": "pick fields with object.get",
    "json.remove": "use object.remove",
    "time.format": "compare time.date and time.clock",
    "time.parse_ns": "use time.parse_rfc3339_ns with a T and a Z",
    "time.parse_duration_ns": "write whole seconds times 1000000000",
    "units.parse": "write whole numbers in the data",
    "units.parse_bytes": "write whole bytes in the data",
    "round": "fractions differ between engines: use whole numbers",
    "ceil": "fractions differ between engines: use whole numbers",
    "floor": "fractions differ between engines: use whole numbers",
    "to_number": "send the number itself in input",
    "product": "engines round large products differently",
    "walk": "name the fields you mean",
    "io.jwt.decode_verify": "credentials are verified before policy: use input.principal",
    "net.cidr_contains": "send the network's name in input",
    "glob.match": "use regex.match with an ASCII pattern",
}
"""For builtins people reach for: the portable way."""


def instead(name: str) -> str:
    """The portable way to do what ``name`` does."""
    if name in INSTEAD:
        return INSTEAD[name]
    family = name.partition(".")[0]
    if family == "crypto" or name.startswith("io.jwt"):
        return "credentials and digests are verified before policy: send the result in input"
    return "it is not on the list of functions that answer alike on both engines (docs/admin/policy.md)"
