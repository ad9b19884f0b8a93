"""The prediction among the columns of an answer, and what it is called."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from ..jsonpath import column_of_path
from ..monitoring import Monitoring
from .outputs import Answer, Value, id_of
from .requestid import id_of_request
from .wanted import Wanted


def wanted_of_answers(monitoring: Monitoring) -> Wanted | None:
    """What `extract` is to read beyond what it finds: the outputs by path, and the prediction's; None: nothing.

    Raises ValueError for a wrong path.
    """
    pairs = [(one.name, one.path) for one in monitoring.outputs]
    for path in {monitoring.prediction.score: None, monitoring.prediction.label: None}:
        if path and all(path != name for name, _ in pairs):
            pairs.append((path, path))
    return Wanted(pairs) if pairs else None


def column_of(answer: Answer, path: str, kind: Literal["number", "label"] = "number") -> Sequence[Value] | None:
    """The values that a path of monitoring.Prediction means, one a row; None where the answer has none.

    An empty path: the first column of this kind. Whole numbers are both, where nothing else is there.
    """
    if not path:
        return _first(answer, kind)
    if path.startswith("$"):
        return answer.picked.get(path)
    name, column, position = _meaning(path)
    for called, values in answer.columns:
        if called in (name, path):
            return values
    for called, values in answer.columns:
        # `x[0]` of an `x` that has one column; `[1]` of whichever has more.
        if (position == 0 and called == column) or (not column and called.endswith(f".{position}")):
            return values
    return None


def prediction_id(
    path: bytes, content_type: bytes, body: bytes, answer: Answer, json_length: int | None = None
) -> str | None:
    """What client and server call a prediction inside their bodies: the request's word, else the answer's.

    `path`, `content_type`, `json_length` and `body` are the request's.
    """
    return id_of(id_of_request(path, content_type, body, json_length)) or answer.id or None


@lru_cache(maxsize=64)
def _meaning(path: str) -> tuple[str, str, int | None]:
    """As the columns of an answer are called; the column and the position in it."""
    column, position = column_of_path(path)
    return (column if position is None else f"{column}.{position}"), column, position


def _first(answer: Answer, kind: str) -> Sequence[Value] | None:
    either = None
    for _, values in answer.columns:
        sample = next((value for value in values if value is not None), None)
        if isinstance(sample, float):
            found = "number"
        elif isinstance(sample, str | bool):
            found = "label"
        elif sample is not None:
            either = values if either is None else either
            continue
        else:
            continue
        if found == kind:
            return values
    return either
