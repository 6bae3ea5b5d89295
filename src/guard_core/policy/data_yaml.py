"""Read policy data (YAML or JSON) so that every later complaint can name file, line and field.

Policy data is narrower than YAML on purpose, because two policy engines must see the same values:
whole numbers below 2**53, text, ``true``/``false``, ``null``, lists and mappings with text keys.
``yes``/``no`` are text (as in YAML 1.2), and dates, fractions, anchors and duplicate keys are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from guard_core.errors import UserError

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 32

Field = tuple[str | int, ...]
"""Where a value stands: mapping keys and 0-based list positions from the top of the file."""

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _PlainLoader(_BASE):  # type: ignore[misc]  # chosen at run time: the C loader when it was built in
    """YAML 1.2's scalars only: no ``yes``, no dates, no sexagesimal numbers."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # the attribute PyYAML reads


_FLOAT = r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"^(?:true|false|True|False|TRUE|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]+$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$",
        "-+.0123456789",
    ),
):
    _PlainLoader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


@dataclass(frozen=True, slots=True)
class Document:
    """One data file: its ``value``, and the line (from 1) of each field, when the format has lines."""

    path: Path
    value: Any
    lines: Mapping[Field, int]
    max_integer: int = MAX_INTEGER

    def error(self, field: Field, problem: str) -> UserError:
        """A refusal that names this file, the line and the field."""
        return UserError(f"{self.where(field)}: {problem}")

    def where(self, field: Field) -> str:
        """``FILE:LINE: FIELD`` of a field, or of the nearest enclosing one that has a line."""
        probe = field
        while probe and probe not in self.lines:
            probe = probe[:-1]
        line = self.lines.get(probe)
        place = f"{self.path}:{line}" if line else str(self.path)
        return f"{place}: {field_name(field)}" if field else place


def field_name(field: Field) -> str:
    """``queues.acme.resources`` or ``ladder[3].level``."""
    text = ""
    for part in field:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read_document(path: Path, *, max_integer: int = MAX_INTEGER) -> Document:
    """Read one ``.yaml``, ``.yml`` or ``.json`` file. Raises UserError naming file, line and field."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise UserError(f"{path}: byte {exc.start} is not UTF-8 text; save the file as UTF-8") from exc
    except OSError as exc:
        raise UserError(
            f"{path}: cannot be read ({exc.strerror}); check that it exists and its permissions"
        ) from exc
    empty = Document(path, None, {}, max_integer)
    return _read_json(empty, text) if path.suffix == ".json" else _read_yaml(empty, text)


def _read_yaml(empty: Document, text: str) -> Document:
    path = empty.path
    loader = _PlainLoader(text)
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{place}: not valid YAML ({exc.problem or exc.context}); fix this line") from exc
    except yaml.YAMLError as exc:
        raise UserError(f"{path}: not valid YAML ({exc})") from exc
    finally:
        loader.dispose()
    lines: dict[Field, int] = {}
    document = replace(empty, lines=lines)
    if root is None:
        raise UserError(f"{path}: the file is empty; write at least an empty mapping, {{}}")
    value = _build(document, lines, root, (), set())
    return replace(document, value=value)


def _build(document: Document, lines: dict[Field, int], node: Any, field: Field, seen: set[int]) -> Any:
    lines.setdefault(field, node.start_mark.line + 1)
    if id(node) in seen:
        raise document.error(field, "anchors and aliases are not read; write the value out again")
    seen.add(id(node))
    if len(field) > MAX_DEPTH:
        raise document.error(field, f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(node, yaml.MappingNode):
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key_node.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:int"):
                lines[(*field, "?")] = key_node.start_mark.line + 1
                raise document.error((*field, "?"), "a key must be plain text; put it in quotes")
            if key in built:
                lines[(*field, key)] = key_node.start_mark.line + 1
                raise document.error((*field, key), "the key appears twice; remove one of them")
            lines[(*field, key)] = key_node.start_mark.line + 1
            built[key] = _build(document, lines, value_node, (*field, key), seen)
        return built
    if isinstance(node, yaml.SequenceNode):
        return [_build(document, lines, item, (*field, i), seen) for i, item in enumerate(node.value)]
    return _scalar(document, node, field)


def _scalar(document: Document, node: Any, field: Field) -> Any:
    kind = node.tag.rpartition(":")[2]
    if kind == "str":
        return checked_value(document, node.value, field)
    if kind == "null":
        return None
    if kind == "bool":
        return node.value.lower() == "true"
    if kind == "int":
        return checked_value(document, int(node.value), field)
    if kind == "float":
        raise document.error(field, f"{node.value} is a fraction; write a whole number (milli units or _ppm)")
    raise document.error(
        field, f"the YAML tag {node.tag} is not read; write text, a whole number, true, false or null"
    )


def checked_value(document: Document, value: Any, field: Field) -> Any:
    """``value`` itself, after refusing what the two engines would read differently."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > document.max_integer:
        raise document.error(
            field, f"{value} is beyond {document.max_integer}, where engines round; use a larger unit"
        )
    if isinstance(value, str) and ("\x00" in value or any("\ud800" <= c <= "\udfff" for c in value)):
        raise document.error(field, "the text holds a NUL or half a surrogate pair; remove it")
    return value


def _read_json(document: Document, text: str) -> Document:
    path = document.path

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise UserError(f"{path}: the key {key!r} appears twice in one object; remove one of them")
            found[key] = value
        return found

    def fraction(literal: str) -> Any:
        raise UserError(f"{path}: {literal} is a fraction; write a whole number (milli units or _ppm)")

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_float=fraction, parse_constant=fraction)
    except json.JSONDecodeError as exc:
        raise UserError(f"{path}:{exc.lineno}: not valid JSON ({exc.msg}); fix this line") from exc
    except RecursionError as exc:
        raise UserError(f"{path}: nested deeper than {MAX_DEPTH} levels") from exc
    _check_tree(document, value, ())
    return replace(document, value=value)


def _check_tree(document: Document, value: Any, field: Field) -> None:
    if len(field) > MAX_DEPTH:
        raise document.error(field, f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_tree(document, item, (*field, checked_value(document, key, field)))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            _check_tree(document, item, (*field, position))
    else:
        checked_value(document, value, field)
