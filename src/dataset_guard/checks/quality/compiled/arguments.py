"""Reading an expectation's arguments strictly: whatever is unusual is left to Great Expectations.

So a suite that Great Expectations would refuse is never quietly accepted, and an argument that a later
version adds is never quietly ignored.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dataset_guard.checks.quality.compiled.block import Family, Mask, family

_WITHOUT_EFFECT = frozenset({"result_format", "catch_exceptions", "batch_id", "mostly"})


class NotCompiled(Exception):
    """This expectation, with these arguments on this column, is Great Expectations' to evaluate."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A range with ends that may be open or absent."""

    low: Any
    high: Any
    low_open: bool
    high_open: bool

    def hold(self, value: Any) -> bool:
        """Whether ``value`` is within."""
        if self.low is not None and (value <= self.low if self.low_open else value < self.low):
            return False
        return not (self.high is not None and (value >= self.high if self.high_open else value > self.high))

    def outside(self, values: npt.NDArray[Any]) -> Mask:
        """Which numbers are not within; NaN is not."""
        good: Any = True
        if self.low is not None:
            good = values > self.low if self.low_open else values >= self.low
        if self.high is not None:
            good = good & (values < self.high if self.high_open else values <= self.high)
        return np.asarray(~good)


class Arguments:
    """The arguments of one expectation on columns of ``schema``; each is taken once, none may be left."""

    def __init__(self, kwargs: Mapping[str, Any], schema: pa.Schema) -> None:
        self._left = {k: v for k, v in kwargs.items() if v is not None and k not in _WITHOUT_EFFECT}
        self._schema = schema
        mostly = kwargs.get("mostly")
        if mostly is not None and not (is_number(mostly) and 0 <= mostly <= 1):
            raise NotCompiled

    def take(self, name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """The argument ``name`` if it is a ``kind`` (bool is no int), ``default`` when it is not given."""
        value = self._left.pop(name, default)
        if value is None or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
            return value
        raise NotCompiled

    def take_any(self, name: str) -> Any:
        """The argument ``name`` whatever it is; None when it is not given."""
        return self._left.pop(name, None)

    @property
    def names(self) -> list[str]:
        """The names of all columns."""
        return list(self._schema.names)

    def need(self, name: str, kind: type | tuple[type, ...]) -> Any:
        """As :meth:`take`; it must be given."""
        value = self.take(name, kind)
        if value is None:
            raise NotCompiled
        return value

    def choice(self, name: str, *options: str) -> str:
        """One of ``options``; the first when it is not given."""
        value = str(self.take(name, str, options[0]))
        if value not in options:
            raise NotCompiled
        return value

    def column(self, name: str = "column") -> tuple[str, Family]:
        """The name of a column and what family it is of."""
        return self.known(self.need(name, str))

    def columns(self) -> list[tuple[str, Family]]:
        """``column_list``: at least two columns."""
        names = self.need("column_list", (list, tuple))
        if len(names) < 2 or len(set(map(str, names))) < len(names):
            raise NotCompiled
        return [self.known(name) for name in names]

    def kind(self, column: str) -> pa.DataType:
        """The Arrow type of ``column``."""
        return self._schema.field(column).type

    def known(self, name: Any) -> tuple[str, Family]:
        """A column by its name, and what family it is of. Raises NotCompiled when no one column has it."""
        if not isinstance(name, str) or self._schema.names.count(name) != 1:
            raise NotCompiled
        return name, family(self._schema.field(name).type)

    def bounds(self, column: str | None = None) -> Bounds:
        """``min_value`` to ``max_value`` in the terms of ``column``'s numbers or times; plain numbers when it
        is None. Texts and booleans have no range in Great Expectations.
        """
        low, high = (self._left.pop(end, None) for end in ("min_value", "max_value"))
        kind = pa.float64() if column is None else self.kind(column)
        if family(kind) in ("text", "bool", "other"):
            raise NotCompiled
        ends: list[Any] = [None if end is None else constant(end, kind) for end in (low, high)]
        strict = [bool(self.take(end, bool, False)) for end in ("strict_min", "strict_max")]
        if all(e is None for e in ends) or (None not in ends and ends[0] > ends[1]):
            raise NotCompiled  # it will be refused
        return Bounds(ends[0], ends[1], strict[0], strict[1])

    def constants(self, name: str, column: str) -> list[Any]:
        """A set of values of ``column``'s kind, without duplicates. Numbers, texts and booleans only."""
        kind = self.kind(column)
        if family(kind) in ("time", "date", "other"):
            raise NotCompiled
        values = self.need(name, (list, tuple, set))
        found = list(dict.fromkeys(constant(v, kind) for v in values))
        if not found:
            raise NotCompiled
        return found

    def patterns(self) -> list[str]:
        """``regex_list``."""
        found = self.need("regex_list", (list, tuple))
        if not found or not all(isinstance(p, str) for p in found):
            raise NotCompiled
        return list(found)

    def done(self) -> None:
        """Nothing may be left."""
        if self._left:
            raise NotCompiled


def is_number(value: Any) -> bool:
    """A number other than NaN; a boolean is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def constant(value: Any, kind: pa.DataType) -> Any:
    """``value`` as it compares with a column of ``kind``: times become counts of their unit.

    Raises NotCompiled for a value of another family, or one that the column's unit cannot hold.
    """
    wanted = family(kind)
    if wanted in ("int", "float") and is_number(value):
        return value
    if (wanted == "text" and isinstance(value, str)) or (wanted == "bool" and isinstance(value, bool)):
        return value
    if wanted in ("time", "date") and isinstance(value, str | dt.date):
        return _moment(value, kind)
    raise NotCompiled


def _moment(value: Any, kind: Any) -> int:
    try:
        moment = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
        if family(kind) == "date":
            if isinstance(moment, dt.datetime):
                if moment.time() != dt.time() or moment.tzinfo:
                    raise NotCompiled
                moment = moment.date()
            return int(pa.scalar(moment, kind).cast(pa.int32()).as_py())
        if not isinstance(moment, dt.datetime) or (moment.tzinfo is None) != (kind.tz is None):
            raise NotCompiled
        return int(pa.scalar(moment, kind).cast(pa.int64()).as_py())
    except (ValueError, pa.ArrowException) as error:
        raise NotCompiled from error
