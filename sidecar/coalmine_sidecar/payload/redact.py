"""Values that must not leave the process, replaced where JSON paths say they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ..jsonpath import EVERY, Step, steps_of
from ..protocols.jsontext import read_json

REDACTED: Final = "[redacted]"
#: Reading takes about 4 ms a MiB, and requests wait meanwhile. A longer body is left out.
MAX_READ: Final = 1 << 20


class Redaction:
    """What to replace in every document, of requests and answers alike.

    JSON paths as in `jsonpath`, with `[*]` as often as need be, of objects too. Raises ValueError with one line.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = tuple(map(steps_of, paths))

    def __bool__(self) -> bool:
        return bool(self._paths)

    def apply(self, body: bytes) -> Any:
        """The document without them. Raises ValueError where there is none: nobody can say then where they stand."""
        document = read_json(body)
        for path in self._paths:
            if not path:
                return REDACTED
            _replace(document, path)
        return document


def _replace(document: Any, path: tuple[Step, ...]) -> None:
    *before, last = path
    found = [document]
    for step in before:
        found = [inner for value in found for inner in _inner(value, step)]
    for value in found:
        for key in _keys(value, last):
            value[key] = REDACTED


def _inner(value: Any, step: Step) -> list[Any]:
    return [value[key] for key in _keys(value, step)]


def _keys(value: Any, step: Step) -> Iterable[Any]:
    """Under which keys of an object or a list the step's values stand."""
    if isinstance(value, dict):
        return list(value) if step is EVERY else [step] if step in value else ()
    if isinstance(value, list):
        if step is EVERY:
            return range(len(value))
        return (step,) if isinstance(step, int) and step < len(value) else ()
    return ()
