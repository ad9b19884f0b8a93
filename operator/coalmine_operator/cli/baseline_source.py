"""What reference rows come from, whatever is in the files: each source can be read more than once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    # At run time it would bring numpy, which takes a while, to every command.
    from ..analysis.reference_plan import Batch

#: Rows that are in memory at a time.
BATCH_ROWS: Final = 8192


class Named(Struct, frozen=True, kw_only=True):
    """What the command line names: columns of tables; of recordings paths, too.

    `features` as `COL` or `NAME=PATH`; `answers`: of what the model answered. `version`: whose answers are read from a
    recording of several.
    """

    features: Sequence[str] = ()
    label: str = ""
    answers: Sequence[str] = ()
    version: str = ""


class Source(Protocol):
    """`columns` in their order; `outputs`: those of them that a model answered, by the names of its live outputs.

    `notes`: what was left out, so far. `live`: the rows are of recorded traffic.
    """

    live: bool

    @property
    def columns(self) -> Sequence[str]: ...

    @property
    def outputs(self) -> Mapping[str, str]: ...

    def feature(self, asked: str) -> str:
        """The column that is meant by one of Named.features."""

    def answer(self, asked: str) -> str:
        """The column that is meant by one of Named.answers."""

    def batches(self, wanted: Sequence[str]) -> Iterator[tuple[Batch, float]]:
        """All rows of the wanted columns, and the share of the file that is read by then. Raises CliError."""

    def notes(self) -> Sequence[str]: ...

    def place(self, row: int) -> tuple[Path | None, int]:
        """Which row of which file is this one of all that came from `batches` so far, each counted from 0.

        None: there is one file, or rows are no file's.
        """


class Table:
    """A source whose columns are called as they are."""

    outputs: Mapping[str, str] = {}
    live = False

    def place(self, row: int) -> tuple[Path | None, int]:
        return None, row

    def feature(self, asked: str) -> str:
        return asked

    def answer(self, asked: str) -> str:
        return asked


def spelled(paths: Sequence[Path]) -> str:
    """Files for a line: the first, and how many more."""
    return f"{paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
