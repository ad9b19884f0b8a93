"""From the outputs of one answer to counters."""

from __future__ import annotations

from typing import Final, TypeGuard

from ..protocols import Answer, Value
from ..telemetry import EpochCell, Series
from ..telemetry.counters import bump

#: Numbers beyond it have no place in a histogram's raw values (whole numbers can be larger than any float).
_LARGEST: Final = 1e300


def record(series: Series, cell: EpochCell | None, answer: Answer, draw: float) -> None:
    """Count one answer.

    All rows count in the bins of `series`. For the analysis the units are requests, so `cell` (None where the request
    was not drawn for this revision) and the raw values take one row: the one at `draw`, uniform in [0, 1).
    """
    series.predictions += answer.rows
    failures = answer.failures
    for name, values in answer.columns:
        counter = series.outputs.get(name)
        if counter is None:
            if "too_many_outputs" not in failures:
                failures = [*failures, "too_many_outputs"]
            continue
        for value in values:
            counter.add(value)
        chosen = values[int(draw * len(values))]
        if _is_number(chosen):
            series.keep_value(counter.name, float(chosen))
        if cell is not None and (counted := cell.outputs.get(counter.name)) is not None:
            counted.add(chosen)
    for reason in failures:
        bump(series.extract_failures, reason)


def _is_number(value: Value) -> TypeGuard[float]:
    return isinstance(value, float | int) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST
