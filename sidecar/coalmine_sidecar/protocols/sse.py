"""Server-sent events, read as they come: however the bytes are cut, the events are the same.

Source: the WHATWG's HTML standard, "Server-sent events", 9.2.6. Only `data` is of interest here.
"""

from __future__ import annotations

from typing import Final

#: Bytes of one event's data that are kept; a longer event is told of, not read.
MAX_EVENT: Final = 64 << 10

_BOM: Final = b"\xef\xbb\xbf"
#: Of a line that is too long: enough to tell whether it is data.
_HEAD: Final = len(_BOM) + len(b"data:")


class EventReader:
    """The events of one stream. Holds at most two events' bytes, whatever comes."""

    __slots__ = ("_after_cr", "_data", "_first", "_limit", "_long_line", "_partial", "_size")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._limit = limit
        #: The line that has no end yet.
        self._partial = bytearray()
        self._long_line = False
        self._first = True
        #: The last byte was a CR, which may be half of a CRLF.
        self._after_cr = False
        #: Data lines of the event that has no end yet; None once they are too long together.
        self._data: list[bytes] | None = []
        self._size = 0

    def feed(self, piece: bytes) -> list[bytes | None]:
        """The data of the events that end in this piece, in their order; None for one that is too long.

        An event that the end of the stream cuts off is none (9.2.6), so nothing asks for it.
        """
        if self._after_cr:
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        if not piece:
            return []
        if b"\r" in piece:
            self._after_cr = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = piece.split(b"\n")
        events: list[bytes | None] = []
        if lines and (self._partial or self._long_line):
            self._keep(lines[0])
            lines[0] = bytes(self._partial)
            self._partial.clear()
        for line in lines:
            self._take(line, events)
        if rest:
            self._keep(rest)
        return events

    def _keep(self, rest: bytes) -> None:
        if self._long_line:
            return
        self._partial += rest
        if len(self._partial) > self._limit:
            self._long_line = True
            del self._partial[_HEAD:]

    def _take(self, line: bytes, events: list[bytes | None]) -> None:
        too_long = self._long_line or len(line) > self._limit
        self._long_line = False
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            self._end_event(events)
        elif self._data is not None and (line.startswith(b"data:") or line == b"data"):
            # Its end counts too: empty lines are not free either.
            self._size += len(line)
            if too_long or self._size > self._limit:
                self._data = None
            else:
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])

    def _end_event(self, events: list[bytes | None]) -> None:
        data = self._data
        if data is None:
            events.append(None)
        elif data:
            events.append(data[0] if len(data) == 1 else b"\n".join(data))
        else:
            return
        self._data = []
        self._size = 0
