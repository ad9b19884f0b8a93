"""Notices that the routing file changed.

By stat and not by inotify: Kubernetes swaps symbolic links two levels up, editors rename, some file systems send no
events, and one stat in 75 ms costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..contract import Routing, RoutingError, decode_routing

PERIOD: Final = 0.075
#: Far above any routing file of 16 revisions with 1,000 endpoints each.
MAX_BYTES: Final = 4 << 20

log = logging.getLogger(__name__)

_Mark = tuple[int, int, int]


class RoutingFile:
    """Reads the file when it changed. A broken one is reported once for each content; the last good one holds."""

    def __init__(self, path: Path, use: Callable[[Routing], None], failed: Callable[[str], None]) -> None:
        self._path = path
        self._use = use
        self._failed = failed
        self._mark: _Mark | None = None
        self._data = b""
        self._unreadable = ""
        self._timer: asyncio.TimerHandle | None = None

    def read_first(self) -> bool:
        """Whether the file is there. Raises RoutingError if it can't be read or used."""
        try:
            self._mark = self._stat()
            self._data = self._read()
        except FileNotFoundError:
            self._mark = None
            return False
        except OSError as error:
            raise RoutingError(f"routing file {self._path}: {error.strerror}") from error
        self._use(decode_routing(self._data))
        return True

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self.poll()
        self._timer = loop.call_later(PERIOD, self.watch, loop)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def poll(self) -> None:
        """Look once."""
        try:
            mark = self._stat()
            if mark == self._mark:
                return
            data = self._read()
        except FileNotFoundError:
            return  # Between a rename's two halves, or gone: what was read last holds.
        except OSError as error:
            # Perhaps only for now (rights, a disk): looked at again each time, reported once.
            message = f"routing file {self._path}: {error.strerror}"
            if message != self._unreadable:
                self._unreadable = message
                self._report(message)
            return
        self._unreadable = ""
        # The mark was taken before the read: a write in between makes the next look see a change again.
        self._mark = mark
        if data == self._data:
            return
        self._data = data
        try:
            self._use(decode_routing(data))
        except RoutingError as error:
            self._report(str(error))

    def _report(self, message: str) -> None:
        log.error("%s; the last good one stays in force", message)
        self._failed(message)

    def _stat(self) -> _Mark:
        status = os.stat(self._path)
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise OSError(None, f"longer than {MAX_BYTES} bytes")
        return data
