"""Parquet, row group by row group, as plain values."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from .errors import CliError

#: A file's first bytes.
PARQUET: Final = b"PAR1"
#: Its last bytes: the length of the footer before them, and the same four.
_END: Final = 8
_NO_READER: Final = "reading Parquet needs arro3: pip install 'coalmine[parquet]', or write the data as CSV"


class ParquetFile:
    """`columns` of numbers, text, truth values, bytes and times; `nested` ones are left out."""

    def __init__(self, path: Path) -> None:
        """Raises CliError."""
        try:
            from arro3.core import DataType  # 35 MB that only Parquet needs
            from arro3.io import read_parquet
        except ImportError as error:
            raise CliError(f"{path}: {_NO_READER}", code=2) from error
        self._path = path
        self._read: Any = read_parquet
        schema = self._schema()
        self.nested = [field.name for field in schema if DataType.is_nested(field.type)]
        self.columns = [field.name for field in schema if field.name not in self.nested]

    def batches(self, wanted: Sequence[str], *, rows: int) -> Iterator[tuple[dict[str, list[Any]], float]]:
        """All rows of the wanted columns, so many at a time, and the share of the file that is read by then.

        Raises CliError.
        """
        try:
            with self._path.open("rb") as opened:
                size = os.fstat(opened.fileno()).st_size
                for batch in self._read(opened, batch_size=rows):
                    yield {name: batch.column(name).to_pylist() for name in wanted}, min(opened.tell() / size, 1.0)
        except OSError as error:
            raise CliError(f"{self._path}: cannot be read: {error.strerror}", code=2) from error
        except Exception as error:  # arro3 has no type of its own
            raise CliError(f"{self._path}: cannot be read: {_first_line(error)}", code=2) from error

    def _schema(self) -> Any:
        broken = f"{self._path}: is no Parquet that can be read"
        try:
            whole = _ended(self._path)
        except OSError as error:
            raise CliError(f"{self._path}: cannot be read: {error.strerror}", code=2) from error
        if not whole:
            raise CliError(f"{broken}: its end is missing", code=2)
        try:
            return self._read(self._path).schema
        except Exception as error:
            raise CliError(f"{broken}: {_first_line(error)}", code=2) from error
        except BaseException as error:
            # A damaged footer makes arro3 0.9 panic, which for Python is no Exception.
            if type(error).__name__ != "PanicException":
                raise
            raise CliError(f"{broken}: its end is damaged", code=2) from error


def plain(values: list[Any]) -> list[float | int | bool | str | None]:
    """Of one column; times and long decimals as what JSON would have of them."""
    if set(map(type, values)) <= {float, int, str, bool, type(None)}:
        return values
    return [_plain(value) for value in values]


def _plain(value: Any) -> float | int | bool | str | None:
    match value:
        case None | float() | int() | str():
            return value
        case decimal.Decimal():
            return float(value)
        case dt.date() | dt.time():
            return value.isoformat()
        case dt.timedelta():
            return value.total_seconds()
        case bytes():
            return value.decode("utf-8", "replace")
    return math.nan


def _ended(path: Path) -> bool:
    """Whether the end of a file is Parquet's: of one that is cut off it is not."""
    with path.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - _END))
        end = opened.read()
    return len(end) == _END and end.endswith(PARQUET) and int.from_bytes(end[:4], "little") + _END < size


def _first_line(error: BaseException) -> str:
    """Without the names of the layers that it came through."""
    return " ".join(str(error).split()).rpartition(" error: ")[2][:200]
