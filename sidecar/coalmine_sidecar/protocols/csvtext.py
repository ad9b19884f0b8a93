"""Rows as comma-separated values (RFC 4180), with a header or without."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO

from .outputs import MAX_ROWS, UnreadableError, Value
from .tables import converted, from_text, read_arrays
from .wanted import Asked, Wanted


def read_csv(body: bytes, content_type: bytes, wanted: Wanted, asked: Asked) -> None:
    """The first line is a header if the content type says so, else if it has a wanted column's name in it."""
    rows, count = csv_rows(body, MAX_ROWS + 1)
    if not rows:
        return
    kind = content_type.lower().replace(b" ", b"")
    names = None
    if b"header=absent" not in kind and (
        b"header=present" in kind or any(name in wanted.asks for name in map(str.strip, rows[0]) if name)
    ):
        names = [cell.strip() for cell in rows[0]]
        del rows[0]
        count -= 1
    read_arrays(rows[:MAX_ROWS], names, "", wanted, asked)
    if count > asked.rows:
        asked.rows = count
        asked.fail("too_many_rows")
    converted(asked, from_text)


def has_header(rows: Sequence[Sequence[Value]]) -> bool:
    """Whether the first of these rows looks like names: it has words only, and the next one has a number."""
    return len(rows) > 1 and all(map(_wordy, rows[0])) and not all(map(_wordy, rows[1]))


def _wordy(cell: Value) -> bool:
    return isinstance(cell, str)


def csv_rows(body: bytes, most: int) -> tuple[list[list[str]], int]:
    """The first rows, and how many there are. Raises UnreadableError where the bytes are no such text."""
    try:
        lines = csv.reader(StringIO(str(body, "utf-8-sig"), newline=""))
        rows: list[list[str]] = []
        count = 0
        for row in lines:
            if row:
                count += 1
                if count <= most:
                    rows.append(row)
    except (csv.Error, UnicodeDecodeError):
        raise UnreadableError("not_csv") from None
    return rows, count
