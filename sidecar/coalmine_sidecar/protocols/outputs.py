"""What every wire format is read into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

#: Rows that are read of one answer; more are counted, not read.
MAX_ROWS: Final = 4096
#: Wider outputs (embeddings, images) say nothing by their single columns.
MAX_WIDTH: Final = 8
#: Columns that are read of one answer.
MAX_COLUMNS: Final = 64

#: Why something of an answer was not read.
EXTRACT_FAILURES: Final = (
    "not_json",
    "truncated",
    "shape",
    "datatype",
    "wide",
    "no_outputs",
    "unknown_protocol",
    "too_many_rows",
    "too_many_outputs",
)

#: One value of one output: a number, a label, or None where there is none.
Value = float | int | bool | str | None


class Column(NamedTuple):
    """One output: a value of each row, at most MAX_ROWS of them."""

    name: str
    values: Sequence[Value]


class Answer(NamedTuple):
    """What was read of one answer.

    `rows`: predictions in it, also those beyond MAX_ROWS. `failures`: reasons of EXTRACT_FAILURES, each at most once.
    An answer that is no prediction (a model's metadata, its health) has neither rows nor failures.
    """

    rows: int = 0
    columns: Sequence[Column] = ()
    failures: Sequence[str] = ()


NOTHING: Final = Answer()


class UnreadableError(ValueError):
    """One output can't be read; the message is a reason of EXTRACT_FAILURES."""


def failure(reason: str) -> Answer:
    return Answer(failures=(reason,))


def split_columns(name: str, values: Sequence[Value], width: int) -> list[Column]:
    """Columns of a row-major tensor of `width` values a row: `name` alone, or `name.0`, `name.1`, …"""
    if width == 1:
        return [Column(name, values)]
    return [Column(f"{name}.{i}", values[i::width]) for i in range(width)]


class Gathering:
    """Columns and failures of one answer on the way, bounded."""

    __slots__ = ("_columns", "_failures", "_rows")

    def __init__(self) -> None:
        self._rows = 0
        self._columns: list[Column] = []
        self._failures: list[str] = []

    @property
    def full(self) -> bool:
        return len(self._columns) >= MAX_COLUMNS

    def fail(self, reason: str) -> None:
        if reason not in self._failures:
            self._failures.append(reason)

    def add(self, columns: Sequence[Column]) -> None:
        if len(columns) > MAX_COLUMNS - len(self._columns):
            self.fail("too_many_outputs")
            columns = columns[: MAX_COLUMNS - len(self._columns)]
        self._columns.extend(columns)

    def saw(self, rows: int) -> None:
        """An output has this many rows; outputs of one answer normally agree."""
        self._rows = max(self._rows, rows)
        if rows > MAX_ROWS:
            self.fail("too_many_rows")

    def answer(self) -> Answer:
        return Answer(self._rows, self._columns, self._failures)
