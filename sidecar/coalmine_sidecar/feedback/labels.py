"""Classes and numbers as they come in JSON, in one form: a label has to equal the prediction it is held against."""

from __future__ import annotations

from math import isfinite
from typing import Final

from ..monitoring import Task, text_of

#: A longer string is free text, not the name of a class.
MAX_LABEL_LENGTH: Final = 128


def class_text(value: object) -> str | None:
    """`true`, `1`, `1.0` and "1" as they are compared: true, 1, 1, 1. None: no label at all (null, NaN, a list)."""
    if isinstance(value, float | int):
        return None if isinstance(value, float) and not isfinite(value) else text_of(value)
    if isinstance(value, str) and 0 < len(value) <= MAX_LABEL_LENGTH:
        return value if value.isprintable() else None
    return None


def truth_text(task: Task, value: object) -> str | None:
    """A label of feedback as it is kept; None: it is none for this task.

    A regression's is a finite number, a classifier's no fraction (a probability in the place of a label).
    """
    if task != "regression":
        return None if isinstance(value, float) and not value.is_integer() else class_text(value)
    if isinstance(value, bool):
        return None
    text = class_text(value)
    if text is None:
        return None
    try:
        return text if isfinite(float(text)) else None
    except ValueError:
        return None
