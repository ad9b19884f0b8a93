"""Where reference rows come from: CSV, Parquet, or a recording of live traffic. Each can be read more than once."""

from __future__ import annotations

import csv
import datetime as dt
import decimal
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from .errors import CliError

if TYPE_CHECKING:
    # At run time they would bring numpy, which takes a while, to every command.
    from ..analysis.reference import Value
    from ..analysis.reference_plan import Batch

#: Rows that are in memory at a time.
BATCH_ROWS: Final = 8192
#: Bytes at a file's beginning that say what it is.
_HEAD: Final = 4096
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
_PYARROW: Final = "reading Parquet needs pyarrow: pip install 'coalmine[parquet]', or write the data as CSV"


class Source(Protocol):
    """`columns` in their order; `outputs`: those of them that a model answered. `notes`: what was left out, so far."""

    @property
    def columns(self) -> Sequence[str]: ...

    @property
    def outputs(self) -> Sequence[str]: ...

    def batches(self, wanted: Sequence[str]) -> Iterator[tuple[Batch, float]]:
        """All rows of the wanted columns, and the share of the file that is read by then. Raises CliError."""

    def notes(self) -> Sequence[str]: ...


def open_source(paths: Sequence[Path], *, version: str) -> Source:
    """By what the files' first bytes are, whatever they are called. Raises CliError.

    `version`: whose answers are read from a recording of several.
    """
    kinds = {path: _kind(path) for path in paths}
    if len(set(kinds.values())) > 1:
        raise CliError("; ".join(f"{path} is {kind}" for path, kind in kinds.items()) + ": give one kind", code=2)
    (kind,) = set(kinds.values())
    if kind == "a recording":
        from .baseline_recording import RecordingSource

        return RecordingSource(paths, version=version)
    make: Callable[[Path], Source] = ParquetSource if kind == "Parquet" else CsvSource
    sources = [make(path) for path in paths]
    return sources[0] if len(sources) == 1 else SeveralSources(paths, sources)


def spelled(paths: Sequence[Path]) -> str:
    """Files for a line: the first, and how many more."""
    return f"{paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def _kind(path: Path) -> str:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise CliError(f"{path}: is read twice, so it has to be a file", code=2)
    try:
        with path.open("rb") as opened:
            head = opened.read(_HEAD)
    except OSError as error:
        raise CliError(f"{path}: cannot be read: {error.strerror}", code=2) from error
    if not head:
        raise CliError(f"{path}: is empty", code=2)
    if head.startswith(b"PAR1"):
        return "Parquet"
    if head.lstrip().startswith(b"{"):
        return "a recording"
    if b"\0" in head:
        raise CliError(f"{path}: is neither CSV, Parquet nor a recording (CloudEvents in JSON lines)", code=2)
    return "CSV"


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


class CsvSource:
    """UTF-8 with names in the first line; cells apart by comma, semicolon, tab or bar, as that line has them."""

    outputs: Sequence[str] = ()

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


class ParquetSource:
    """Columns of numbers, text, truth values and times; nested ones are left out."""

    outputs: Sequence[str] = ()

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as arrow  # 170 MB that only Parquet needs
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise CliError(f"{path}: {_PYARROW}", code=2) from error
        self._path = path
        self._broken: tuple[type[Exception], ...] = (arrow.ArrowException, OSError)
        try:
            self._file: Any = parquet.ParquetFile(path)
        except self._broken as error:
            raise CliError(f"{path}: is no Parquet that can be read: {_first_line(error)}", code=2) from error
        schema = self._file.schema_arrow
        nested = [field.name for field in schema if arrow.types.is_nested(field.type)]
        self.columns: Sequence[str] = [field.name for field in schema if field.name not in nested]
        self._notes = [f"column {name!r} is nested: left out" for name in nested]

    def notes(self) -> Sequence[str]:
        return self._notes

    def batches(self, wanted: Sequence[str]) -> Iterator[tuple[Batch, float]]:
        total, read = max(self._file.metadata.num_rows, 1), 0
        try:
            for batch in self._file.iter_batches(batch_size=BATCH_ROWS, columns=list(wanted)):
                read += batch.num_rows
                yield {name: _values(batch.column(name)) for name in wanted}, read / total
        except self._broken as error:
            raise CliError(f"{self._path}: cannot be read: {_first_line(error)}", code=2) from error


class SeveralSources:
    """Files of one kind and the same columns, one after the other."""

    outputs: Sequence[str] = ()

    def __init__(self, paths: Sequence[Path], sources: Sequence[Source]) -> None:
        self._sources = sources
        self.columns = sources[0].columns
        for path, source in zip(paths, sources, strict=True):
            if other := set(self.columns) ^ set(source.columns):
                raise CliError(f"{path}: has other columns than {paths[0]}: {', '.join(sorted(other)[:5])}", code=2)

    def notes(self) -> Sequence[str]:
        return list(dict.fromkeys(note for source in self._sources for note in source.notes()))

    def batches(self, wanted: Sequence[str]) -> Iterator[tuple[Batch, float]]:
        for i, source in enumerate(self._sources):
            for batch, share in source.batches(wanted):
                yield batch, (i + share) / len(self._sources)


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


def _values(column: Any) -> list[Value]:
    """An Arrow array's; times and long decimals as what JSON would have of them."""
    if hasattr(column, "dictionary_decode"):
        column = column.dictionary_decode()  # a tenth of the time
    values: list[Any] = column.to_pylist()
    if set(map(type, values)) <= {float, int, str, bool, type(None)}:
        return values
    return [_plain_value(value) for value in values]


def _plain_value(value: Any) -> Value:
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


def _values_for(count: int) -> str:
    return f"{count} value{'' if count == 1 else 's'}"


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
