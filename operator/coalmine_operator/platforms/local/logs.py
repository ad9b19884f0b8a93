"""The log file of a process: its last lines for people, its size kept within bounds."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 8 << 20
#: What stays of a log that grew over MAX_BYTES, in `<name>.old`.
KEPT_BYTES: Final = 1 << 20
TAIL_LINES: Final = 5
TAIL_CHARACTERS: Final = 600
#: What is read of a log at one look, at most, if more was written since the last one.
NEWS_BYTES: Final = 64 << 10
#: What a sidecar says of its payload log, as it writes its log's lines.
_PAYLOAD_LOG: Final = re.compile(r"\S+ \S+ ([A-Z]+) sidecar \S+: ((?:payload log to |monitoring\.payloadLog: ).*)")


def tail(path: Path) -> str:
    """The last lines, joined by ` | `: printable, at most TAIL_CHARACTERS; empty where there is no log."""
    data = _last(path, 8192)
    lines = [_printable(line) for line in data.decode("utf-8", "replace").splitlines()]
    return " | ".join([line for line in lines if line][-TAIL_LINES:])[-TAIL_CHARACTERS:]


def trim(path: Path) -> None:
    """Copy the end and truncate. The writer appends, so it goes on at the start; a line written meanwhile is lost."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > MAX_BYTES:
            path.with_name(path.name + ".old").write_bytes(_last(path, KEPT_BYTES))
            os.truncate(path, 0)


class PayloadLogNews:
    """What a sidecar's log says anew of its payload log: whether that takes what it is sent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._failing = False

    def look(self) -> tuple[bool, str]:
        """Whether it fails, and the line that says so or that it does no longer; no line where that is known.

        Of several lines the last counts: it is how things are now.
        """
        found = [match for line in self._lines() if (match := _PAYLOAD_LOG.fullmatch(line))]
        if not found:
            return self._failing, ""
        was, self._failing = self._failing, found[-1][1] != "INFO"
        return self._failing, found[-1][2][:TAIL_CHARACTERS] if was or self._failing else ""

    def _lines(self) -> list[str]:
        """Whole lines since the last look."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                start = max(self._read if self._read <= size else 0, size - NEWS_BYTES)  # it may have been truncated
                file.seek(start)
                data = file.read(NEWS_BYTES)
        except OSError:
            return []
        whole = data.rfind(b"\n") + 1
        self._read = start + whole
        return [_printable(line) for line in data[:whole].decode("utf-8", "replace").splitlines()]


def _last(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - count))
            return file.read(count)
    except OSError:
        return b""


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else " " for c in line).strip()
