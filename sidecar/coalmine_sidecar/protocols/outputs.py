"""What every wire format is read into."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from .generation import Generation

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


#: One output: its name and a value of each row, at most MAX_ROWS of them.
Column = tuple[str, Sequence[Value]]


class UnreadableError(ValueError):
    """One output can't be read; the message is a reason of EXTRACT_FAILURES."""


class Answer(Struct):
    """What was read of one answer.

    `rows`: predictions in it, also those beyond MAX_ROWS. `failures`: reasons of EXTRACT_FAILURES, each at most once.
    An answer that is no prediction (a model's metadata, its health) has neither rows nor failures. `generation`: of an
    answer of a language model, what its server counted. `id`: what its server calls the prediction, or empty. `picked`:
    values by JSON path, of paths that were asked for without a name for an output.
    """

    rows: int = 0
    columns: list[Column] = []
    failures: list[str] = []
    generation: Generation | None = None
    id: str = ""
    picked: dict[str, Sequence[Value]] = {}

    @property
    def full(self) -> bool:
        return len(self.columns) >= MAX_COLUMNS

    def fail(self, reason: str) -> None:
        if reason not in self.failures:
            self.failures.append(reason)

    def add(self, name: str, values: Sequence[Value], width: int) -> None:
        """Columns of a row-major tensor of `width` values a row: `name` alone, or `name.0`, `name.1`, …"""
        columns = self.columns
        if width == 1:
            columns.append((name, values))
        else:
            columns.extend((f"{name}.{i}", values[i::width]) for i in range(width))
        if len(columns) > MAX_COLUMNS:
            self.fail("too_many_outputs")
            del columns[MAX_COLUMNS:]

    def add_few(self, name: str, values: Sequence[Value], width: int, positions: Iterable[int]) -> None:
        """Of a wide tensor the columns at these positions."""
        for at in positions:
            if at < width and not self.full:
                self.columns.append((f"{name}.{at}", values[at::width]))

    def saw(self, rows: int) -> None:
        """An output has this many rows; outputs of one answer normally agree."""
        if rows > self.rows:
            self.rows = rows
        if rows > MAX_ROWS:
            self.fail("too_many_rows")


#: A longer id names nothing.
MAX_ID: Final = 256


def id_of(value: object) -> str:
    """What a document has as an id, if it can be one."""
    return value if isinstance(value, str) and len(value) <= MAX_ID else ""


def failure(reason: str) -> Answer:
    return Answer(failures=[reason])
