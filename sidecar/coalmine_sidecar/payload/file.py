"""Events to a file, one a line, in bounded room: `NAME`, and before it `NAME.1`, `NAME.2` and so on."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .event import Event, to_line
from .sink import SinkError

#: With the one that is written a quarter of a GiB.
MAX_BYTES: Final = 64 << 20
KEPT: Final = 3
_BLOCK: Final = 65536


def own_file(file: str, pod: str) -> Path:
    """The file of a pod: `DIR/NAME.POD.jsonl` for `DIR/NAME.jsonl`. Pods, and on a laptop processes, share a setting
    and perhaps a folder, and a file that two of them rotate loses lines."""
    path = Path(file)
    suffix = path.suffix or ".jsonl"
    return path.with_name(f"{path.stem}.{pod.replace('/', '_')}{suffix}")


class FileSink:
    """Lines are written whole or not at all: what a full disk left of one is taken away again.

    `max_bytes`: of a file; `kept`: older ones. Nothing is synced: a log is not worth a disk's patience.
    """

    batch = 64
    workers = 1
    linger = 0.0
    #: 75 us of CPU for each event: a quarter of a core.
    rate = 1600.0

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        self.name = f"payload log to {path}"
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._file = -1
        self._size = 0
        #: A task that was cancelled does not end its thread.
        self._lock = threading.Lock()

    async def send(self, events: Sequence[Event]) -> None:
        lines = []
        for event in events:
            lines.append(to_line(event))
            await asyncio.sleep(0)  # the requests' turn
        await asyncio.to_thread(self._write, lines)

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _write(self, lines: Sequence[bytes]) -> None:
        """Raises SinkError."""
        sent = 0
        with self._lock:
            try:
                self._reopen()
                while sent < len(lines):
                    room = self._room(lines[sent:])
                    if room:
                        self._append(b"".join(lines[sent : sent + room]))
                    else:
                        self._rotate()
                    sent += room
            except OSError as error:
                self._shut()
                raise SinkError(error.strerror or str(error), sent) from None

    def _room(self, lines: Sequence[bytes]) -> int:
        """How many of the lines the present file takes; an empty one takes a line of any length."""
        size = self._size
        for at, line in enumerate(lines):
            if size and size + len(line) > self._max_bytes:
                return at
            size += len(line)
        return len(lines)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        written = 0
        try:
            while written < len(view):
                written += os.write(self._file, view[written:])
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += written

    def _reopen(self) -> None:
        """Open the file if there is none, or another one than ours: somebody took it away."""
        if self._file >= 0:
            try:
                if os.path.samestat(os.fstat(self._file), self._path.stat()):
                    return
            except FileNotFoundError:
                pass
            self._shut()
        self._open()

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size = _whole(self._file)
        # What a process that was killed left of a line: readers take a file line by line.
        os.ftruncate(self._file, self._size)

    def _rotate(self) -> None:
        self._shut()
        for number in range(self._kept - 1, -1, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        if not self._kept:
            self._path.unlink(missing_ok=True)
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def _close(self) -> None:
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def _whole(file: int) -> int:
    """Bytes up to the end of the last whole line."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - _BLOCK)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
