"""KServe v1 and TensorFlow Serving's REST: `predictions` by rows, `outputs` by columns, `result` of a regression."""

from __future__ import annotations

from typing import Any, Final

from .jsontext import read_json
from .outputs import (
    MAX_COLUMNS,
    MAX_ROWS,
    MAX_WIDTH,
    Answer,
    UnreadableError,
    failure,
)
from .wanted import Wanted

#: TensorFlow's specification says `result`, its examples `results`.
KEYS: Final = ("predictions", "outputs", "result", "results")

_SCALARS: Final = (float, int, str, bool, type(None))


def read(body: bytes, wanted: Wanted | None = None) -> Answer:
    """The outputs of an answer; a list without names is called by its key. `wanted`: columns of wide ones."""
    try:
        document = read_json(body)
    except (ValueError, RecursionError):
        return failure("not_json")
    return read_document(document, wanted)


def read_document(document: Any, wanted: Wanted | None = None) -> Answer:
    """The same of an answer's JSON."""
    if not isinstance(document, dict):
        return failure("no_outputs")
    for key in KEYS:
        if (found := document.get(key)) is not None:
            break
    else:
        return failure("no_outputs")
    answer = Answer()
    if isinstance(found, dict):
        _read_named(found, answer, wanted)
    else:
        read_rows(key, found if isinstance(found, list) else [found], answer, wanted)
    return answer


def _read_named(columns: dict[str, Any], answer: Answer, wanted: Wanted | None) -> None:
    """Columns by name, each a list of rows (or one scalar for one row)."""
    for name in list(columns)[:MAX_COLUMNS]:
        rows = columns[name]
        read_rows(name, rows if isinstance(rows, list) else [rows], answer, wanted, objects=False)
    if len(columns) > MAX_COLUMNS:
        answer.fail("too_many_outputs")


def read_rows(
    name: str, rows: list[Any], answer: Answer, wanted: Wanted | None = None, *, objects: bool = True
) -> None:
    """Rows that are objects (unless they may not be), vectors or single values."""
    answer.saw(len(rows))
    rows = rows[:MAX_ROWS]
    first = next((row for row in rows if row is not None), None)
    try:
        if isinstance(first, dict) and objects:
            _read_objects(rows, answer, wanted)
        elif isinstance(first, list):
            _read_vectors(name, rows, len(first), answer, wanted)
        elif rows:
            _read_scalars(name, rows, answer)
    except UnreadableError as reason:
        answer.fail(str(reason))


def _read_scalars(name: str, rows: list[Any], answer: Answer) -> None:
    if not all(isinstance(row, _SCALARS) for row in rows):
        raise UnreadableError("shape")
    answer.add(name, rows, 1)


def _read_objects(rows: list[Any], answer: Answer, wanted: Wanted | None) -> None:
    """One object a row; a key that a row lacks is a missing value of that row."""
    names: dict[str, None] = {}
    for row in rows:
        if not isinstance(row, dict):
            raise UnreadableError("shape")
        if len(names) <= MAX_COLUMNS:
            names.update(dict.fromkeys(row))
    for name in list(names)[:MAX_COLUMNS]:
        read_rows(name, [row.get(name) for row in rows], answer, wanted, objects=False)
    if len(names) > MAX_COLUMNS:
        answer.fail("too_many_outputs")


def _read_vectors(name: str, rows: list[Any], width: int, answer: Answer, wanted: Wanted | None) -> None:
    few = wanted.positions(name) if wanted is not None and width > MAX_WIDTH else ()
    if width > MAX_WIDTH and not few:
        raise UnreadableError("wide")
    flat: list[Any] = []
    for row in rows:
        if not isinstance(row, list) or len(row) != width or not all(isinstance(item, _SCALARS) for item in row):
            raise UnreadableError("shape")
        flat.extend(row)
    if few:
        answer.add_few(name, flat, width, few)
    elif width:
        answer.add(name, flat, width)
