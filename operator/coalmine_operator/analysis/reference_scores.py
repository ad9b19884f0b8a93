"""Scores, and a regression's truth, have to be numbers: what becomes of those that are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from .reference import RowError, RowsError, Value, numbers, present

_NO_NUMBER: Final = "is no number"
_NO_PROBABILITY: Final = "is no probability: a binary task has scores from 0 to 1, --task ranking takes any"


class _Wrong(Struct):
    """Values of a column that it cannot have; `first`: one of them, with why."""

    rows: int = 0
    wrong: int = 0
    first: str = ""


class Scores:
    """Looks at these columns, batch by batch. `probable`: those that are from 0 to 1.

    In rows that somebody made a wrong value is a fault of theirs. In `live` traffic one answer may be odd: it is
    counted, as the sidecar does, and what is no probability is taken for missing.
    """

    def __init__(self, columns: Sequence[str], probable: Sequence[str], *, live: bool) -> None:
        self._wrong = {name: _Wrong() for name in columns}
        self._probable = probable
        self._live = live
        self._rows = 0

    def look(self, batch: Mapping[str, Sequence[Value]]) -> Mapping[str, Sequence[Value]]:
        """The batch without what is no probability. Raises RowError at the first wrong value of rows not live."""
        cleaned = dict(batch)
        for name, tally in self._wrong.items():
            values = batch[name]
            found, unseen = numbers(values)
            beyond = (found < 0) | (found > 1) if name in self._probable else np.zeros(len(found), dtype=np.bool_)
            tally.rows += int(present(values).sum())
            if not unseen and not beyond.any():
                continue
            wrong = [i for i, value in enumerate(values) if beyond[i] or isinstance(value, str)]
            # Text is told first: what is wrong with it is plainer.
            at = next((i for i in wrong if isinstance(values[i], str)), wrong[0])
            value = values[at]
            why = f"{value[:60]!r} {_NO_NUMBER}" if isinstance(value, str) else f"{value} {_NO_PROBABILITY}"
            if not self._live:
                raise RowError(name, self._rows + at, why)
            tally.wrong += len(wrong)
            tally.first = tally.first or f"row {self._rows + at + 1}: {why}"
            cleaned[name] = [None if beyond[i] else value for i, value in enumerate(values)]
        self._rows += len(next(iter(batch.values())))
        return cleaned

    def notes(self) -> list[str]:
        """Raises RowsError where most values of a column are wrong: another column, or task, is meant."""
        lines = []
        for name, tally in self._wrong.items():
            if tally.wrong:
                line = f"column {name!r}: {tally.wrong} of {tally.rows} values are wrong, first {tally.first}"
                if 2 * tally.wrong > tally.rows:
                    raise RowsError(line)
                lines.append(line)
        return lines
