"""Classes and numbers as they come in JSON, in one form: a label has to equal the prediction it is held against."""

from __future__ import annotations

import re
from functools import lru_cache
from math import isfinite
from typing import Final

from ..monitoring import Task, text_of

#: A longer string is free text, not the name of a class.
MAX_LABEL_LENGTH: Final = 128
#: Tasks of two classes.
_TWO: Final = frozenset({"binary", "ranking"})
#: Classes whose other one everybody knows.
_OTHERS: Final = {"1": "0", "0": "1", "yes": "no", "no": "yes", "positive": "negative", "negative": "positive"}
_WORDS: Final = {"true": "1", "false": "0"} | {name: name for name in _OTHERS}
_WHOLE: Final = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,14})(?=(?:\.0*)?\Z)")


def class_text(value: object) -> str | None:
    """`true`, `1`, `1.0` and "1" as they are compared: true, 1, 1, 1. None: no label at all (null, NaN, a list)."""
    if isinstance(value, float | int):
        return None if isinstance(value, float) and not isfinite(value) else text_of(value)
    if isinstance(value, str) and 0 < len(value) <= MAX_LABEL_LENGTH:
        return value if value.isprintable() else None
    return None


@lru_cache(maxsize=1024)
def plain_class(text: str) -> str:
    """One name for classes that are one: "1", "1.0", "true" and "True" are 1, and "Yes" is yes.

    Names of other classes stay as they are spelled.
    """
    whole = _WHOLE.match(text)
    return str(int(whole[0])) if whole else _WORDS.get(text.lower(), text)


class Truths:
    """What is a label of feedback for a model of `task`, whose class `positive` the scores are about."""

    __slots__ = ("_classes", "task")

    def __init__(self, task: Task, positive: str = "1") -> None:
        self.task: Task = task
        name = plain_class(positive)
        other = _OTHERS.get(name)
        #: The only two; empty: any may be one.
        self._classes = (name, other) if task in _TWO and other is not None else ()

    def text(self, value: object) -> str | None:
        """A label as it is kept; None: it is none.

        A regression's is a finite number, a classifier's no fraction (a probability in the place of a label). Of two
        classes it is one, as `plain_class` calls it; where the other one of `positive` isn't known, any is negative.
        """
        if self.task == "regression":
            return _number_text(value)
        text = None if isinstance(value, float) and not value.is_integer() else class_text(value)
        if text is None or self.task not in _TWO:
            return text
        text = plain_class(text)
        return text if not self._classes or text in self._classes else None

    @property
    def remedy(self) -> str:
        """What to send instead of what is none."""
        if self._classes:
            return f"send {self._classes[0]} or {self._classes[1]}, or name another prediction.positive"
        return (
            "send a finite number"
            if self.task == "regression"
            else "send a class's name, a whole number, true or false"
        )


def _number_text(value: object) -> str | None:
    text = None if isinstance(value, bool) else class_text(value)
    if text is None:
        return None
    try:
        return text if isfinite(float(text)) else None
    except ValueError:
        return None
