"""Which files are meant, and what they are: CSV, Parquet, or recordings of live traffic."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .baseline_csv import CsvSource
from .baseline_events import is_recording
from .baseline_parquet import PARQUET, ParquetFile, plain
from .baseline_source import BATCH_ROWS, Named, Source, Table
from .errors import CliError

if TYPE_CHECKING:
    from ..analysis.reference_plan import Batch

#: Bytes at a file's beginning that say what it is.
_HEAD: Final = 4096
_RECORDING: Final = "a recording"
#: Of a file that was rotated: the higher, the older.
_ROTATED: Final = re.compile(r"(.*)\.([0-9]{1,4})")


def files_of(paths: Sequence[Path], *, but: Path) -> list[Path]:
    """Folders as the files in them, in the order in which they were written; `but`: which is none of them.

    Hidden files are not looked at: somebody is still writing them. Raises CliError.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        try:
            inside = [one for one in path.iterdir() if one.is_file() and not one.name.startswith(".")]
            inside = [one for one in inside if one.resolve() != but.resolve() and one.stat().st_size]
        except OSError as error:
            raise CliError(f"{path}: cannot be read: {error.strerror}", code=2) from error
        if not inside:
            raise CliError(f"{path}: has no file with anything in it", code=2)
        found += sorted(inside, key=_written)
    return found


def _written(path: Path) -> tuple[str, int]:
    """`log.jsonl.2` comes before `log.jsonl.1`, and `log.jsonl` at last."""
    rotated = _ROTATED.fullmatch(path.name)
    return (rotated[1], -int(rotated[2])) if rotated else (path.name, 1)


def open_source(paths: Sequence[Path], named: Named) -> Source:
    """By what the files' first bytes are, whatever they are called. Raises CliError."""
    kinds: dict[str, Path] = {}
    for path in paths:
        kinds.setdefault(_kind(path), path)
    if len(kinds) > 1:
        raise CliError("; ".join(f"{path} is {kind}" for kind, path in kinds.items()) + ": give one kind", code=2)
    (kind,) = kinds
    if kind == _RECORDING:
        from .baseline_recording import RecordingSource

        return RecordingSource(paths, named)
    make: Callable[[Path], Source] = ParquetSource if kind == "Parquet" else CsvSource
    sources = [make(path) for path in paths]
    return sources[0] if len(sources) == 1 else SeveralSources(paths, sources)


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
    if head.startswith(PARQUET):
        return _RECORDING if is_recording(path) else "Parquet"
    if head.lstrip().startswith(b"{"):
        return _RECORDING
    if b"\0" in head:
        raise CliError(f"{path}: is neither CSV, Parquet nor a recording (CloudEvents in JSON lines)", code=2)
    return "CSV"


class ParquetSource(Table):
    """Columns of numbers, text, truth values and times; nested ones are left out."""

    def __init__(self, path: Path) -> None:
        self._file = ParquetFile(path)
        self.columns: Sequence[str] = self._file.columns

    def notes(self) -> Sequence[str]:
        return [f"column {name!r} is nested: left out" for name in self._file.nested]

    def batches(self, wanted: Sequence[str]) -> Iterator[tuple[Batch, float]]:
        for batch, share in self._file.batches(wanted, rows=BATCH_ROWS):
            yield {name: plain(values) for name, values in batch.items()}, share


class SeveralSources(Table):
    """Files of one kind and the same columns, one after the other."""

    def __init__(self, paths: Sequence[Path], sources: Sequence[Source]) -> None:
        self._paths = paths
        self._sources = sources
        self._starts: list[int] = []
        self.columns = sources[0].columns
        for path, source in zip(paths, sources, strict=True):
            if other := set(self.columns) ^ set(source.columns):
                raise CliError(f"{path}: has other columns than {paths[0]}: {', '.join(sorted(other)[:5])}", code=2)

    def notes(self) -> Sequence[str]:
        return list(dict.fromkeys(note for source in self._sources for note in source.notes()))

    def batches(self, wanted: Sequence[str]) -> Iterator[tuple[Batch, float]]:
        self._starts = []
        rows = 0
        for i, source in enumerate(self._sources):
            self._starts.append(rows)
            for batch, share in source.batches(wanted):
                rows += len(next(iter(batch.values())))
                yield batch, (i + share) / len(self._sources)

    def place(self, row: int) -> tuple[Path | None, int]:
        at = bisect.bisect_right(self._starts, row) - 1
        return self._paths[at], row - self._starts[at]
