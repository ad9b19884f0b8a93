"""The log file of a process: its last lines for people, its size kept within bounds."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 8 << 20
#: What stays of a log that grew over MAX_BYTES, in `<name>.old`.
KEPT_BYTES: Final = 1 << 20
TAIL_LINES: Final = 5
TAIL_CHARACTERS: Final = 600


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


def _last(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - count))
            return file.read(count)
    except OSError:
        return b""


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else " " for c in line).strip()
