"""Whether two versions predict the same: the answer that a client got, and the one to a copy of its request."""

from __future__ import annotations

from math import isfinite
from typing import Final

from .outputs import Answer, Value

#: In what an answer to a copy disagrees. `value`: numbers too far apart; `class`: another label; `missing`: only
#: one has a value; `outputs`: other rows, or an output that is not there; `status`: no 200; `failed`: no answer at all.
DISAGREEMENTS: Final = ("value", "class", "missing", "outputs", "status", "failed")


def comparable(answer: Answer, output: str) -> bool:
    """Whether an answer holds what is compared; `output`: the only one that is, empty: all there are."""
    return any(values and output in ("", name) for name, values in answer.columns)


def disagreement(answer: Answer, copy: Answer, *, tolerance: float, output: str, draw: float) -> str:
    """One of DISAGREEMENTS, or empty where both predict the same.

    Requests are the units, so one row is compared: the one at `draw`, uniform in [0, 1). An output that only `copy` has
    is no disagreement: nobody misses it.
    """
    if answer.rows != copy.rows:
        return "outputs"
    copied = dict(copy.columns)
    for name, values in answer.columns:
        if not values or output not in ("", name):
            continue
        others = copied.get(name, ())
        if len(others) != len(values):
            return "outputs"
        row = int(draw * len(values))
        if found := _difference(values[row], others[row], tolerance):
            return found
    return ""


def _difference(one: Value, other: Value, tolerance: float) -> str:
    """Labels, booleans and whole numbers (which are labels as often as not) agree if they are equal.

    Of other numbers see `contract.Mirror`: below 1 the tolerance is absolute, above relative.
    """
    one, other = _present(one), _present(other)
    if one is None or other is None:
        return "" if one is other else "missing"
    if one == other:
        return ""
    if isinstance(one, str) or isinstance(other, str) or not (isinstance(one, float) or isinstance(other, float)):
        return "class"
    try:
        apart = abs(one - other) > tolerance * max(1.0, abs(one), abs(other))
    except OverflowError:  # a whole number that no float can hold
        apart = True
    return "value" if apart else ""


def _present(value: Value) -> Value:
    """NaN and the infinities are no values either."""
    return None if isinstance(value, float) and not isfinite(value) else value
