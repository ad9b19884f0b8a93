"""One stream of a connection: what waits to be sent on it, and the windows of both directions."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from .fields import Fields, write
from .frames import END_STREAM, FRAME_SIZE, data_head, headers, rst_stream, window_update

if TYPE_CHECKING:
    from .call import Call
    from .link import Link

#: Bytes a peer may send on a stream before we have passed them on.
STREAM_WINDOW: Final = 262_144

_NOTHING: Final = b""


class Stream:
    """`call` is whose it is; None once that has no further interest in it."""

    __slots__ = (
        "_ending", "_pending", "_uncredited", "call", "link", "local_closed", "number", "receive_window",
        "remote_closed", "window",
    )  # fmt: skip

    def __init__(self, link: Link, number: int, call: Call | None = None) -> None:
        self.link = link
        self.number = number
        self.call = call
        #: Bytes we may still send; what the peer may still send.
        self.window = link.peer_window
        self.receive_window = STREAM_WINDOW
        self.local_closed = False
        self.remote_closed = False
        self._pending: deque[bytes] = deque()
        #: Trailers (or nothing) that end the stream once `_pending` is out; None while more may come.
        self._ending: bytes | None = None
        self._uncredited = 0

    @property
    def closed(self) -> bool:
        return self.local_closed and self.remote_closed

    # Sending

    def send_headers(self, fields: Fields, *, end: bool = False) -> None:
        link = self.link
        link.queue(headers(write(fields), END_STREAM if end else 0, self.number, FRAME_SIZE))
        if end:
            self._close_local()

    def send_data(self, data: bytes, *, end: bool = False) -> None:
        """As soon as windows and the connection let it; `call` is told when it is on its way."""
        if data:
            self._pending.append(data)
        if end:
            self._ending = _NOTHING
        self.pump()

    def finish(self, trailers: Fields | None = None) -> None:
        """Nothing more is sent after this."""
        if self.local_closed or self._ending is not None:
            return
        self._ending = write(trailers) if trailers else _NOTHING
        self.pump()

    def pump(self) -> None:
        """Send what can be sent."""
        if self.local_closed:
            return
        link = self.link
        pending = self._pending
        sent = 0
        while pending:
            room = min(self.window, link.window, FRAME_SIZE)
            if room <= 0 or link.paused:
                link.blocked[self] = None
                break
            piece = pending[0]
            size = len(piece)
            if size > room:
                pending[0] = piece[room:]
                piece, size = piece[:room], room
            else:
                pending.popleft()
            last = not pending and self._ending is not None and not self._ending
            link.queue(data_head(size, END_STREAM if last else 0, self.number), piece)
            self.window -= size
            link.window -= size
            sent += size
            if last:
                self._close_local()
        if not pending and self._ending is not None and not self.local_closed:
            if self._ending:
                link.queue(headers(self._ending, END_STREAM, self.number, FRAME_SIZE))
            else:
                link.queue(data_head(0, END_STREAM, self.number))
            self._close_local()
        if sent:
            link.chatter = 0
            link.sent(self, sent)

    def reset(self, code: int) -> None:
        """End both directions at once."""
        if not self.closed:
            self.link.queue(rst_stream(self.number, code))
            self.local_closed = self.remote_closed = True
            self._pending.clear()
            self.link.stream_closed(self)

    # Receiving

    def credit(self, size: int) -> None:
        """`size` bytes have been passed on or thrown away: the peer may send as many again."""
        self.link.credit(size)
        if not self.remote_closed:
            self._uncredited += size
            if self._uncredited >= STREAM_WINDOW // 2:
                self.link.queue(window_update(self.number, self._uncredited))
                self.receive_window += self._uncredited
                self._uncredited = 0

    def close_remote(self) -> None:
        self.remote_closed = True
        if self.local_closed:
            self.link.stream_closed(self)

    def _close_local(self) -> None:
        self.local_closed = True
        if self.remote_closed:
            self.link.stream_closed(self)
