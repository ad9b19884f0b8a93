"""Rows as JSON has them: objects, arrays with or without names, columns, single values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from .jsonpick import ABSENT, column, only_objects, pick_keys, present
from .outputs import MAX_ROWS, UnreadableError, Value
from .wanted import SCALARS, Asked, Wanted

#: What may stand for the names and the rows of a table: pandas' and MLflow's, Azure's, H2O's.
SPLIT: Final = (("columns", "data"), ("ColumnNames", "Values"), ("fields", "rows"), ("names", "ndarray"))
#: Text of a number is no longer than this; int() takes ever longer.
_LONGEST_NUMBER: Final = 32


def read_rows(node: Any, key: str, wanted: Wanted, asked: Asked) -> None:
    """A list of rows in any form, or one row. `key`: what rows without names are called."""
    if isinstance(node, list):
        if not node:
            asked.saw(0)
        elif isinstance(node[0], dict):
            read_objects(node, wanted, asked)
        elif isinstance(node[0], list):
            read_arrays(node, None, key, wanted, asked)
        else:
            _read_scalars(node, key, wanted, asked)
    elif isinstance(node, dict):
        for names, rows in SPLIT:
            if names in node and isinstance(node.get(rows), list):
                read_split(node[names], node[rows], key, wanted, asked)
                return
        read_columns(node, wanted, asked)
    else:
        _read_scalars([node], key, wanted, asked)


def read_objects(rows: list[Any], wanted: Wanted, asked: Asked) -> None:
    """One object a row."""
    asked.saw(len(rows))
    columns = asked.columns
    if len(rows) == 1:
        row = rows[0]
        pick_keys(row, wanted.keys, asked)
        for name, key, at in wanted.indexed:
            value = row.get(key)
            if isinstance(value, list) and at < len(value):
                columns[name] = [asked.cell(value[at])]
        return
    rows = rows[:MAX_ROWS]
    objects = only_objects(rows)
    if objects is not rows:
        asked.fail("shape")
    for name, key in wanted.plain:
        if values := present([row.get(key, ABSENT) for row in objects], asked):
            columns[name] = values
    for name, key, at in wanted.indexed:
        if values := present([_element(row.get(key), at) for row in objects], asked):
            columns[name] = values


def read_arrays(rows: list[Any], names: Sequence[Any] | None, key: str, wanted: Wanted, asked: Asked) -> None:
    """One array a row. Without names its columns are `[i]`, or `key[i]`."""
    asked.saw(len(rows))
    if not rows:
        return
    rows = rows[:MAX_ROWS]
    if set(map(type, rows)) != {list}:
        asked.fail("shape")
        rows = [row if isinstance(row, list) else [] for row in rows]
    places = wanted.places
    if names is not None:
        places = wanted.in_table(names)
        _add_nested(rows, names, wanted, asked)
    if len(rows) == 1 and (found := places.of_one(rows[0])) is not None:
        asked.columns.update(found)
    else:
        for name, at in places.pairs:
            if values := present([row[at] if at < len(row) else ABSENT for row in rows], asked):
                asked.columns[name] = values
    if names is None:
        # `[[0.5], [0.6]]` is a column called by its key, and `key[3]` the fourth of more of them.
        for name, position in wanted.asks.get(key, ()) if key else ():
            if position is None and any(len(row) != 1 for row in rows):
                continue
            if values := present([_element(row, position or 0) for row in rows], asked):
                asked.columns[name] = values


def read_split(names: Any, rows: list[Any], key: str, wanted: Wanted, asked: Asked) -> None:
    """Names once, then arrays (or single values, where there is one name)."""
    if not isinstance(names, list):
        asked.fail("shape")
        names = []
    if rows and not isinstance(rows[0], list):
        rows = [[row] for row in rows[:MAX_ROWS]] + rows[MAX_ROWS:]
    read_arrays(rows, names, key, wanted, asked)


def read_columns(columns: dict[str, Any], wanted: Wanted, asked: Asked) -> None:
    """A list of rows for each name; a single value is every row's."""
    for name, key in wanted.plain:
        values = columns.get(key, ABSENT)
        if isinstance(values, list):
            asked.saw(len(values))
            if values:
                asked.columns[name] = column(values[:MAX_ROWS], asked)
        elif values is not ABSENT:
            asked.columns[name] = [asked.cell(values)]
            asked.constants.append(name)
    for name, key, at in wanted.indexed:
        values = columns.get(key)
        if isinstance(values, list):
            asked.saw(len(values))
            if cells := present([_element(row, at) for row in values[:MAX_ROWS]], asked):
                asked.columns[name] = cells
    if not asked.seen:
        first = next(iter(columns.values()), None)
        asked.saw(len(first) if isinstance(first, list) else 1)


def read_tensor(values: Sequence[Any], rows: int, width: int, names: Any, wanted: Wanted, asked: Asked) -> None:
    """`rows` times `width` values, row by row. Raises UnreadableError where there are not as many."""
    if len(values) != rows * width:
        raise UnreadableError("shape")
    asked.saw(rows)
    end = min(rows, MAX_ROWS) * width
    places = wanted.in_table(names) if isinstance(names, list) else wanted.places
    for name, at in places.pairs:
        if at < width and rows:
            asked.columns[name] = column(list(values[at:end:width]), asked)


def _read_scalars(rows: list[Any], key: str, wanted: Wanted, asked: Asked) -> None:
    """A single value a row: the column `key`, and its own first one."""
    asked.saw(len(rows))
    names = [name for name, of in wanted.plain if of == key]
    names += [name for name, of, at in wanted.indexed if not of and not at]
    if names:
        values = column(rows[:MAX_ROWS], asked)
        for name in names:
            asked.columns[name] = values


def _element(cell: Any, at: int) -> Any:
    return cell[at] if isinstance(cell, list) and at < len(cell) else ABSENT


def _add_nested(rows: list[Any], names: Sequence[Any], wanted: Wanted, asked: Asked) -> None:
    """Elements of cells that are lists themselves."""
    if len(wanted.indexed) == len(wanted.places.pairs):
        return
    places = {str(name): at for at, name in enumerate(names)}
    for name, of, at in wanted.indexed:
        if of in places:
            place = places[of]
            if values := present([_element(_element(row, place), at) for row in rows], asked):
                asked.columns[name] = values


def add_common(document: dict[str, Any], wanted: Wanted, asked: Asked) -> None:
    """What stands once beside the rows and is called as a column that they have not: it is every row's."""
    for name, key in wanted.plain:
        if name not in asked.columns and key in document and type(document[key]) in SCALARS:
            asked.columns[name] = [document[key]]
            asked.constants.append(name)


def converted(asked: Asked, convert: Callable[[str], Value]) -> None:
    """Values that came as text, in formats that have nothing else, by `convert`."""
    for name, values in asked.columns.items():
        asked.columns[name] = [convert(value) if isinstance(value, str) else value for value in values]


def from_text(text: str) -> Value:
    """What a cell of text means: a number if it looks like one, nothing if it is empty, else itself.

    `007` is a label: as a number it would not be what was sent.
    """
    stripped = text.strip()
    if not stripped:
        return None
    if len(stripped) > _LONGEST_NUMBER or "_" in stripped:
        return text
    digits = stripped.lstrip("+-")
    if digits.isascii() and digits.isdecimal():
        if digits[0] == "0" and len(digits) > 1:
            return text
        return int(stripped) if len(stripped) - len(digits) < 2 else text
    try:
        return float(stripped)
    except ValueError:
        return text
