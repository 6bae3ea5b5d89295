"""``row_condition``: which rows an expectation is about, as Great Expectations on pandas picks them.

Compiled are the conditions that people write: a column against constants (``==``, ``!=``, ``<``, ``<=``,
``>``, ``>=``, ``in``, ``not in``, chains such as ``0 < x <= 9``), ``isnull()`` and ``notnull()`` of a column,
joined by ``and``, ``or``, ``not`` or by ``&``, ``|``, ``~`` around parentheses; as pandas text
(``condition_parser="pandas"``) or as Great Expectations' condition objects. Everything else (arithmetic,
methods, backticks, ``@`` names, times, one column against another) is left to Great Expectations.

A missing value meets no comparison but ``!=`` and ``not in``, as in pandas.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import and_, or_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from dataset_guard.checks.quality.compiled.arguments import Arguments, NotCompiled, constant
from dataset_guard.checks.quality.compiled.block import Block, Mask
from dataset_guard.checks.quality.compiled.rows import RowRule, member
from dataset_guard.checks.quality.gx_engine import Outcome

Condition = Callable[[Block], Mask]
"""From a block to the rows that it is about."""

_ORDER = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_SIGNS: dict[type, str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
_NULLS = {"isnull": True, "isna": True, "notnull": False, "notna": False}


@dataclass(frozen=True, slots=True)
class RowCondition:
    """A condition; two that were ``said`` in the same words are equal, so their rows are picked once."""

    said: str
    picks: Condition = field(compare=False)

    def __call__(self, block: Block) -> Mask:
        """The rows of ``block`` that it picks, shape (rows,)."""
        return self.picks(block)


def condition_of(arguments: Arguments) -> RowCondition | None:
    """The condition among ``arguments``; None without one. Raises NotCompiled."""
    parser = arguments.take("condition_parser", str)
    given = arguments.take_any("row_condition")
    if parser != "pandas" and (parser is not None or isinstance(given, str)):
        raise NotCompiled
    if given is None:
        return None
    if isinstance(given, str):
        return RowCondition(given, _text(given, arguments))
    return RowCondition(repr(given), _object(_as_mapping(given), arguments))


def limited(rule: RowRule, condition: RowCondition) -> RowRule:
    """``rule`` for the rows of a block that ``condition`` picks."""

    def judge(block: Block) -> Outcome:
        return rule(block.where(condition))

    return judge


def _as_mapping(given: Any) -> Mapping[str, Any]:
    """A condition object as its JSON; in Great Expectations it is a pydantic model."""
    if isinstance(given, Mapping):
        return given
    found = given.dict() if hasattr(given, "dict") else None
    if not isinstance(found, Mapping):
        raise NotCompiled
    return found


def _object(given: Mapping[str, Any], arguments: Arguments) -> Condition:
    kind = given.get("type")
    if kind in ("and", "or"):
        parts = given.get("conditions")
        if not isinstance(parts, Sequence) or not parts:
            raise NotCompiled
        found = [_object(_as_mapping(p), arguments) for p in parts]
        return _joined(found, both=kind == "and")
    if kind == "pass_through" and isinstance(given.get("pass_through_filter"), str):
        return _text(given["pass_through_filter"], arguments)
    column = given.get("column")
    name = column.get("name") if isinstance(column, Mapping) else None
    if kind == "nullity" and isinstance(given.get("is_null"), bool):
        return _null(name, arguments, wanted=given["is_null"])
    if kind == "comparison":
        sign = str(getattr(given.get("operator"), "value", given.get("operator"))).lower().replace("_", " ")
        return _compared(name, sign, given.get("parameter"), arguments)
    raise NotCompiled


def _text(text: str, arguments: Arguments) -> Condition:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise NotCompiled from None
    return _node(tree, arguments)


def _node(node: ast.expr, arguments: Arguments) -> Condition:
    match node:
        case ast.BoolOp(op, values):
            return _joined([_node(v, arguments) for v in values], both=isinstance(op, ast.And))
        # Of & and | the operands are comparisons only if they stand in parentheses: without, Python reads
        # another condition than pandas does, and one that is none here.
        case ast.BinOp(left, ast.BitAnd() | ast.BitOr() as op, right):
            both = isinstance(op, ast.BitAnd)
            return _joined([_node(left, arguments), _node(right, arguments)], both=both)
        case ast.UnaryOp(ast.Not() | ast.Invert(), operand):
            inner = _node(operand, arguments)
            return lambda block: ~inner(block)
        case ast.Compare(left, ops, comparators):
            sides = [left, *comparators]
            pairs = [
                _pair(a, _SIGNS.get(type(op), ""), b, arguments)
                for a, op, b in zip(sides[:-1], ops, sides[1:], strict=True)
            ]
            return _joined(pairs, both=True)
        case ast.Call(ast.Attribute(ast.Name(name), method), [], []) if method in _NULLS:
            return _null(name, arguments, wanted=_NULLS[method])
    raise NotCompiled


def _pair(left: ast.expr, sign: str, right: ast.expr, arguments: Arguments) -> Condition:
    if isinstance(left, ast.Name):
        return _compared(left.id, sign, _literal(right), arguments)
    if isinstance(right, ast.Name) and sign in _MIRRORED:
        return _compared(right.id, _MIRRORED[sign], _literal(left), arguments)
    raise NotCompiled


def _literal(node: ast.expr) -> Any:
    """A number, a text, a boolean, or a list of them."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        raise NotCompiled from None


def _joined(parts: Sequence[Condition], *, both: bool) -> Condition:
    combine = and_ if both else or_
    return lambda block: reduce(combine, (part(block) for part in parts))


def _null(name: Any, arguments: Arguments, *, wanted: bool) -> Condition:
    arguments.known(name)

    def picked(block: Block) -> Mask:
        missing = block.column(name).missing
        found = np.zeros(block.rows, bool) if missing is None else missing
        return found if wanted else ~found

    return picked


def _compared(name: Any, sign: str, value: Any, arguments: Arguments) -> Condition:
    """A column against a constant, or a list of them."""
    _, kind = arguments.known(name)
    if kind not in ("int", "float", "text", "bool") or _narrow(arguments.kind(name)):
        raise NotCompiled
    if sign in ("in", "not in"):
        if not isinstance(value, list | tuple) or not value or kind == "bool":
            raise NotCompiled
        values = [constant(v, arguments.kind(name)) for v in value]
        return partial(_among, name=name, values=values, wanted=sign == "in")
    limit = constant(value, arguments.kind(name))
    if sign in ("==", "!="):
        return partial(_among, name=name, values=[limit], wanted=sign == "==")
    if sign not in _ORDER or kind not in ("int", "float"):
        raise NotCompiled
    return partial(_ordered, name=name, compare=_ORDER[sign], limit=limit)


def _narrow(kind: pa.DataType) -> bool:
    """Numbers that pandas compares in their own precision."""
    return bool(pt.is_float16(kind) or pt.is_float32(kind))


def _among(block: Block, *, name: str, values: list[Any], wanted: bool) -> Mask:
    column = block.column(name)
    found = member(column, values)
    if column.missing is not None:
        found = found & ~column.missing
    return found if wanted else ~found


def _ordered(block: Block, *, name: str, compare: Any, limit: Any) -> Mask:
    column = block.column(name)
    found = np.asarray(compare(column.numbers, limit))
    return found if column.missing is None else found & ~column.missing
