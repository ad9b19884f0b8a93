"""Reference rows from CSV, and what a cell of text means."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .baseline_source import BATCH_ROWS, Table
from .errors import CliError

if TYPE_CHECKING:
    # At run time they would bring numpy, which takes a while, to every command.
    from ..analysis.reference import Value
    from ..analysis.reference_plan import Batch

#: What stands for no value in files of text.
_NOTHING: Final = frozenset({"", "nan", "na", "n/a", "null", "none", "<na>", "\\n"})
_TRUTHS: Final = {"true": True, "false": False}
#: Anything longer, with a zero before it or without digits is no number.
_NUMBER: Final = re.compile(
    r"\s{0,9}[+-]?(?=\.?[0-9])(?:0|[1-9][0-9]{0,31})?((?:\.[0-9]{0,64})?(?:[eE][+-]?[0-9]{1,5})?)\s{0,9}"
)
_INFINITE: Final = frozenset({"inf", "infinity"})
#: Different texts of a column that are remembered with their meaning.
_REMEMBERED: Final = 20_000


def meaning(text: str) -> Value:
    """What a cell of text is: a number if it looks like one, true or false, nothing, or itself.

    `007` is a name: as a number it would not be what was written.
    """
    if (number := _NUMBER.fullmatch(text)) is not None:
        return float(text) if number[1] else int(text)
    plain = text.strip().lower()
    if plain in _NOTHING:
        return None
    if plain in _TRUTHS:
        return _TRUTHS[plain]
    return math.inf if plain.lstrip("+-") in _INFINITE else text


class CsvSource(Table):
    """UTF-8 with names in the first line; cells apart by comma, semicolon, tab or bar, as that line has them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as opened:
            first = opened.readline(1 << 20)
        try:
            line = first.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise CliError(f"{path}: byte {error.start} is no UTF-8: save the file as UTF-8", code=2) from error
        self._delimiter = max(",;\t|", key=line.count)
        names = next(csv.reader([line], delimiter=self._delimiter), [])
        self.columns: Sequence[str] = [name.strip() for name in names]
        twice = [name for name in self.columns if self.columns.count(name) > 1]
        if twice:
            raise CliError(f"{path}: the column {twice[0]!r} stands twice in the first line", code=2)

    def notes(self) -> Sequence[str]:
        return ()

    def batches(self, wanted: Sequence[str]) -> Iterator[tuple[Batch, float]]:
        places = [self.columns.index(name) for name in wanted]
        known: list[dict[str, Value]] = [{} for _ in wanted]
        size = max(self._path.stat().st_size, 1)
        line = 1
        try:
            with self._path.open("rb") as raw:
                reader = csv.reader(io.TextIOWrapper(raw, "utf-8-sig", newline=""), delimiter=self._delimiter)
                next(reader, None)
                rows: list[list[str]] = []
                for row in reader:
                    line = reader.line_num
                    if not row:
                        continue
                    if len(row) != len(self.columns):
                        raise CliError(
                            f"{self._path}:{line}: {_values_for(len(row))} for {len(self.columns)} columns",
                            code=2,
                        )
                    rows.append(row)
                    if len(rows) == BATCH_ROWS:
                        yield _columns(rows, wanted, places, known), raw.tell() / size
                        rows = []
                if rows:
                    yield _columns(rows, wanted, places, known), 1.0
        except UnicodeDecodeError as error:
            raise CliError(f"{self._path}: is no UTF-8 after line {line}: save the file as UTF-8", code=2) from error
        except csv.Error as error:
            raise CliError(f"{self._path}:{line + 1}: {error}", code=2) from error
        except OSError as error:
            raise CliError(f"{self._path}: cannot be read: {error.strerror}", code=2) from error


def _columns(
    rows: list[list[str]], wanted: Sequence[str], places: Sequence[int], known: list[dict[str, Value]]
) -> Batch:
    batch = {}
    for name, place, meanings in zip(wanted, places, known, strict=True):
        texts = [row[place] for row in rows]
        if len(meanings) > _REMEMBERED:
            meanings.clear()
        for text in set(texts) - meanings.keys():
            meanings[text] = meaning(text)
        batch[name] = [meanings[text] for text in texts]
    return batch


def _values_for(count: int) -> str:
    return f"{count} value{'' if count == 1 else 's'}"
