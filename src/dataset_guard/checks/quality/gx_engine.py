"""Great Expectations' own validator on pandas frames with Arrow types, without a context.

A context would be a process-wide setting (a notebook's own would be replaced) and writes metadata; the
validator and the pandas engine need none. Measured with 1.24: 2 to 3 CPU-seconds to import, 4 ms per
expectation and block.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from dataset_guard.checks.quality.gx_suite import Expected
from dataset_guard.scanning.profile import plain
from guard_core.errors import MissingExtra, UserError

_NUMBER = "trainguard_number"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one expectation said about some rows, whoever evaluated it. ``rows`` are the numbers of the
    unexpected ones, ``observed`` what an aggregate saw, for our eyes only. ``raised``: it could not tell.
    """

    success: bool
    raised: bool
    elements: int = 0
    missing: int = 0
    unexpected: int = 0
    rows: Sequence[int] | npt.NDArray[np.int64] = ()
    observed: Any = None


def installed() -> bool:
    """Whether Great Expectations and pandas are there; imports neither."""
    return find_spec("great_expectations") is not None and find_spec("pandas") is not None


@cache
def _library() -> Any:
    """Great Expectations, imported once, its telemetry off. Raises MissingExtra."""
    if not installed():
        raise MissingExtra.of("great_expectations", "gx")
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.validator.validator import Validator

    return gx, PandasExecutionEngine, ExpectationConfiguration, Validator


def version() -> str:
    """The version of Great Expectations, found without importing it; empty when it is not installed."""
    try:
        return metadata.version("great_expectations")
    except metadata.PackageNotFoundError:
        return ""


def reject_invalid(expectations: Mapping[int, Expected]) -> None:
    """Raise UserError for the first expectation (by its number in the suite) that Great Expectations does
    not know or accept."""
    gx, _, configuration, _ = _library()
    for number, expected in expectations.items():
        place = f"expectation {number} of the suite ({expected.type})"
        try:
            configuration(type=expected.type, kwargs=dict(expected.kwargs)).to_domain_obj()
        except gx.exceptions.ExpectationNotFoundError as error:
            raise UserError(f"{place} is not known to Great Expectations {gx.__version__}") from error
        except (ValueError, TypeError, gx.exceptions.GreatExpectationsError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{place} is not valid: {reason}") from error


def frame(columns: pa.RecordBatch | pa.Table, names: Sequence[str], first_row: int = 0) -> Any:
    """A pandas frame of ``names`` with Arrow types, indexed by row number; numbers are not copied."""
    import pandas as pd

    arrays = [_readable(plain(columns.column(n))) for n in names]
    index = pd.RangeIndex(first_row, first_row + columns.num_rows)
    # Series one by one: building a table first would refuse two columns of one name.
    series = [pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array([a])), index=index) for a in arrays]
    return pd.DataFrame(dict(zip(names, series, strict=True)), index=index)


def plain_frame(columns: pa.RecordBatch | pa.Table, names: Sequence[str], first_row: int = 0) -> Any:
    """The same with numpy's types: integers with nulls become floats."""
    import pandas as pd

    table = pa.table([_readable(plain(columns.column(n))) for n in names], names=list(names))
    data = table.to_pandas()
    data.index = pd.RangeIndex(first_row, first_row + columns.num_rows)
    return data


def empty_frame(rows: int) -> Any:
    """``rows`` rows without a column: enough to count them."""
    import pandas as pd

    return pd.DataFrame(index=pd.RangeIndex(rows))


def _readable(array: Any) -> Any:
    """pandas has no string views, and one word for null and NaN."""
    if pt.is_floating(array.type) and pc.any(pc.is_nan(array)).as_py():
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    if pt.is_string_view(array.type):
        return array.cast(pa.large_string())
    return array.cast(pa.large_binary()) if pt.is_binary_view(array.type) else array


def evaluate(data: Any, expectations: Sequence[Expected], *, rows: bool = False) -> list[Outcome]:
    """Each expectation on the frame ``data``, in order; with ``rows`` also which rows are unexpected."""
    if not expectations:
        return []
    _, engine, configuration, validator = _library()
    asked = validator(execution_engine=engine(batch_data_dict={"block": data}))
    asked.metrics_calculator.show_progress_bars = False
    wanted = {"result_format": "COMPLETE" if rows else "BASIC", "partial_unexpected_count": 0}
    # Results of expectations that raise come first, so each is told by a number of ours, not by its place.
    results = asked.graph_validate(
        configurations=[
            configuration(type=e.type, kwargs=dict(e.kwargs), meta={_NUMBER: i})
            for i, e in enumerate(expectations)
        ],
        runtime_configuration={"result_format": wanted},
    )
    outcomes = {r.expectation_config.meta[_NUMBER]: _outcome(r) for r in results}
    return [outcomes[i] for i in range(len(expectations))]


def evaluate_columns(
    columns: pa.RecordBatch | pa.Table,
    names: Sequence[str],
    expectations: Sequence[Expected],
    first_row: int = 0,
) -> list[Outcome]:
    """As :func:`evaluate` with ``rows``, on Arrow columns.

    Naming the rows costs as much again, so it is done only where there are any. What fails on Arrow types
    (comparing two columns with nulls does, in 1.24) is asked again on numpy's.
    """
    data = frame(columns, names, first_row)
    outcomes = evaluate(data, expectations)
    again = [i for i, o in enumerate(outcomes) if o.unexpected and not o.raised]
    named = evaluate(data, [expectations[i] for i in again], rows=True)
    raised = [i for i, o in enumerate(outcomes) if o.raised]
    if raised:
        retried = plain_frame(columns, names, first_row)
        named += evaluate(retried, [expectations[i] for i in raised], rows=True)
    for i, outcome in zip([*again, *raised], named, strict=True):
        outcomes[i] = outcome
    return outcomes


def _outcome(result: Any) -> Outcome:
    said = result.result or {}
    return Outcome(
        success=bool(result.success),
        raised=_raised(result.exception_info or {}),
        elements=int(said.get("element_count") or 0),
        missing=int(said.get("missing_count") or 0),
        unexpected=int(said.get("unexpected_count") or 0),
        rows=tuple(int(i) for i in said.get("unexpected_index_list") or ()),
        observed=said.get("observed_value"),
    )


def _raised(info: Any) -> bool:
    """Great Expectations tells it of the whole, or of each metric."""
    if "raised_exception" in info:
        return bool(info["raised_exception"])
    return any(_raised(v) for v in info.values() if isinstance(v, dict))
