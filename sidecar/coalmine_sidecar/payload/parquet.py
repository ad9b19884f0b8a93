"""Events to Parquet files in bounded room: `NAME.TIME.parquet`, each of them whole from when it is there."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from .event import ATTRIBUTES, DATA, Event, to_row
from .parquetformat import Column, Table
from .sink import SinkError

#: Of all files together, as many as those of JSON lines take.
MAX_BYTES: Final = 256 << 20
#: Of little traffic there is a file a minute.
MAX_FILES: Final = 4096

COLUMNS: Final = (*(Column(name, text=True) for name in ATTRIBUTES), Column(DATA, text=False))

_STAMP: Final = "%Y%m%dT%H%M%S%fZ"
_STAMPED: Final = r"\d{8}T\d{12}Z"
#: One file at a time: a logger may still be closing when the next one of the same name begins.
_writing = threading.Lock()


class ParquetSink:
    """What it is sent at once is a file: `DIR/NAME.TIME.parquet` for `DIR/NAME.parquet`, the time in UTC.

    Nobody can read a Parquet file before its end is written: it gets its name then. Until then it is hidden, and what
    a killed process left there is written over. `max_bytes`, `max_files`: of all of them; the oldest go.
    """

    batch = 2048
    workers = 1
    linger = 60.0
    #: 100 us of CPU for each event with 2 KiB of body, most of it gzip's: a quarter of a core.
    rate = 1200.0

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = MAX_BYTES,
        max_files: int = MAX_FILES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"payload log to {path.with_name(f'{path.stem}.*{path.suffix}')}"
        self._path = path
        self._unfinished = path.with_name(f".{path.name}.unfinished")
        self._own = re.compile(re.escape(path.stem) + r"\." + _STAMPED + re.escape(path.suffix))
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._clock = clock

    async def send(self, events: Sequence[Event]) -> None:
        table = Table(COLUMNS)
        for event in events:
            table.add(to_row(event))
            await asyncio.sleep(0)  # the requests' turn
        await asyncio.to_thread(self._write, table)

    async def close(self) -> None:
        """Nothing is open between files."""

    def _write(self, table: Table) -> None:
        """Raises SinkError."""
        with _writing:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    with open(self._unfinished, "wb", opener=_open) as file:
                        file.writelines(table.pieces())
                    self._make_room(self._unfinished.stat().st_size)
                    self._unfinished.rename(self._stamped())
                except OSError:
                    self._unfinished.unlink(missing_ok=True)
                    raise
            except OSError as error:
                raise SinkError(error.strerror or str(error)) from None

    def _make_room(self, size: int) -> None:
        """For one more file, of so many bytes."""
        held = sorted(self._held())
        room = self._max_bytes - size - sum(length for _, length in held)
        for number, (path, length) in enumerate(held):
            if room >= 0 and len(held) - number < self._max_files:
                return
            path.unlink(missing_ok=True)
            room += length

    def _held(self) -> Iterator[tuple[Path, int]]:
        """The files that there are, by whatever process of this name, and their sizes."""
        with os.scandir(self._path.parent) as entries:
            for entry in entries:
                if self._own.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        yield Path(entry.path), entry.stat().st_size

    def _stamped(self) -> Path:
        """A name that no file has, of the present time."""
        now = dt.datetime.fromtimestamp(self._clock(), dt.UTC)
        while True:
            path = self._path.with_name(f"{self._path.stem}.{now.strftime(_STAMP)}{self._path.suffix}")
            if not path.exists():
                return path
            now += dt.timedelta(microseconds=1)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags, 0o640)
