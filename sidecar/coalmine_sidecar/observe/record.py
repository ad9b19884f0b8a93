"""From the outputs of one answer to counters."""

from __future__ import annotations

from ..protocols import Answer
from ..telemetry import EpochCell, Series
from ..telemetry.counters import bump
from ..telemetry.generations import counters_of


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
        if len(values) == 1:
            chosen = values[0]
            counter.add(chosen)
        else:
            counter.add_all(values)
            chosen = values[int(draw * len(values))]
        series.keep_value(counter.name, chosen)
        if cell is not None and (counted := cell.outputs.get(counter.name)) is not None:
            counted.add(chosen)
    if answer.generation is not None:
        counters_of(series, answer.generation.operation).add(answer.generation)
    for reason in failures:
        bump(series.extract_failures, reason)
