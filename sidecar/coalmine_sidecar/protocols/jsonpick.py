"""Follows compiled JSON paths through a document."""

from __future__ import annotations

from typing import Any, Final

from ..jsonpath import Step
from .outputs import MAX_ROWS, Value
from .wanted import SCALARS, Asked, Group, Keys, Wanted

#: What no document holds: there is nothing at the end of this path.
ABSENT: Final = object()


def pick(document: Any, wanted: Wanted, asked: Asked) -> None:
    """Add the columns of the JSON paths. Those with `[*]` have a value of each row, None where a row has none.

    A path without it that ends at a list means its elements, one a row; one that ends at a value means it of all rows.
    """
    for group in wanted.groups:
        node = follow(document, group.way) if group.way else document
        if node is ABSENT:
            continue
        if not group.spread:
            _pick_whole(node, group, asked)
        elif isinstance(node, list):
            asked.saw(len(node))
            if len(node) == 1:
                _pick_one(node[0], group, asked)
            elif node:
                _pick_rows(node[:MAX_ROWS], group, asked)
        else:
            asked.fail("shape")


def follow(node: Any, steps: tuple[Step, ...]) -> Any:
    """What is at the end of the steps, none of which is EVERY; ABSENT where there is nothing."""
    for step in steps:
        if isinstance(step, str):
            if not isinstance(node, dict):
                return ABSENT
            node = node.get(step, ABSENT)
            if node is ABSENT:
                return ABSENT
        else:
            if not isinstance(node, list) or step is None or step >= len(node):
                return ABSENT
            node = node[step]
    return node


def _pick_whole(node: Any, group: Group, asked: Asked) -> None:
    if isinstance(node, dict):
        for name, key in group.keys.pairs:
            if (value := node.get(key, ABSENT)) is not ABSENT:
                _add_whole(name, value, asked)
    for name, steps in group.deep:
        if (value := follow(node, steps)) is not ABSENT:
            _add_whole(name, value, asked)


def _add_whole(name: str, value: Any, asked: Asked) -> None:
    if isinstance(value, list) and len(value) != 1:
        asked.saw(len(value))
        if value:
            asked.columns[name] = column(value[:MAX_ROWS], asked)
    else:
        asked.columns[name] = [value if type(value) in SCALARS else asked.cell(value)]
        asked.constants.append(name)


def _pick_one(row: Any, group: Group, asked: Asked) -> None:
    if isinstance(row, dict):
        pick_keys(row, group.keys, asked)
    for name, steps in group.deep:
        value = follow(row, steps)
        if value is not ABSENT:
            asked.columns[name] = [value if type(value) in SCALARS else asked.cell(value)]


def pick_keys(row: dict[str, Any], keys: Keys[str], asked: Asked) -> None:
    """Columns of the only row."""
    columns = asked.columns
    if (found := keys.of_one(row)) is not None:
        columns.update(found)
        return
    for name, key in keys.pairs:
        value = row.get(key, ABSENT)
        if value is not ABSENT:
            columns[name] = [value if type(value) in SCALARS else asked.cell(value)]


def _pick_rows(rows: list[Any], group: Group, asked: Asked) -> None:
    if group.keys.pairs:
        objects = only_objects(rows)
        for name, key in group.keys.pairs:
            if values := present([row.get(key, ABSENT) for row in objects], asked):
                asked.columns[name] = values
    for name, steps in group.deep:
        if values := present([follow(row, steps) for row in rows], asked):
            asked.columns[name] = values


_NOTHING: Final[dict[str, Any]] = {}


def only_objects(rows: list[Any]) -> list[dict[str, Any]]:
    """The rows, with an empty one in the place of each that is no object."""
    if set(map(type, rows)) == {dict}:
        return rows
    return [row if isinstance(row, dict) else _NOTHING for row in rows]


def present(values: list[Any], asked: Asked) -> list[Value]:
    """A column with None for ABSENT; empty where nothing else is in it."""
    if set(map(type, values)) <= SCALARS:
        return values
    if all(value is ABSENT for value in values):
        return []
    return column([None if value is ABSENT else value for value in values], asked)


def column(values: list[Any], asked: Asked) -> list[Value]:
    """Cells of one column, None for what is no single value."""
    if set(map(type, values)) <= SCALARS:
        return values
    return [value if type(value) in SCALARS else asked.cell(value) for value in values]
