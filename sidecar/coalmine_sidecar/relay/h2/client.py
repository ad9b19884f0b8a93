"""A client's connection: each stream it opens is a call. Ends by GOAWAY, so that no call is lost with it."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from ...contract import OUTCOMES
from ..errors import SIDECAR
from . import frames
from .call import Call
from .fields import Fields, problem, trailer_problem
from .frames import ENHANCE_YOUR_CALM, LARGEST, NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, LinkError
from .link import Link
from .stream import Stream
from .view import View

if TYPE_CHECKING:
    from ..front import Front

#: Streams a client may have open at once. More wait at the client.
MAX_STREAMS: Final = 256
#: Streams that a client may reset before they are answered, beyond those that were (CVE-2023-44487).
MAX_RESETS: Final = 500
#: Seconds that a connection made while the sidecar drains is open for new calls.
LAST_CALLS: Final = 1.0
#: Seconds for the answer to the PING behind a first GOAWAY.
GOODBYE: Final = 1.0

_REJECTED: Final = OUTCOMES.index("rejected")
_GOODBYE: Final = b"goodbye!"


class ClientLink(Link):
    """Stands in its front's `connections` like one of HTTP/1.1."""

    __slots__ = ("_leaving", "_resets", "front", "kept")

    def __init__(self, front: Front) -> None:
        table = front.table
        super().__init__(front.sweeper, table.limits.head_bytes, table.timeouts.idle)
        self.front = front
        #: Bytes of requests kept by this connection's calls.
        self.kept = 0
        self._resets = 0
        # 0: no; 1: said so, streams under way to us are still taken; 2: no stream is taken any more.
        self._leaving = 0

    def take_over(self, transport: asyncio.Transport, rest: bytes) -> None:
        """A connection whose preface has been read; `rest` are the bytes behind it."""
        transport.set_protocol(self)
        self.connection_made(transport)
        self.front.connections.add(self)
        self.greet({frames.MAX_CONCURRENT_STREAMS: MAX_STREAMS})
        now = monotonic()
        self.watch(now + self.idle)
        if self.front.draining:
            # Not at once: a client that came here has calls to make, and may come here again.
            asyncio.get_running_loop().call_later(LAST_CALLS, self.drain, now)
        if rest:
            self.data_received(rest)

    # What the front calls

    @property
    def busy(self) -> bool:
        return bool(self.streams)

    def drain(self, now: float) -> None:
        """No new streams, please. Those sent before the client could know are served; the PING tells them apart."""
        if not self._leaving and not self.closing:
            self._leaving = 1
            self.queue(frames.goaway(LARGEST, NO_ERROR), frames.ping(_GOODBYE))
            self.watch(now + GOODBYE)

    def abort(self) -> None:
        self.closing = True
        self.flush()
        self.transport.abort()

    # What the link calls

    def heard_pong(self, payload: bytes) -> None:
        if payload == _GOODBYE:
            self._leave()

    def expire_idle(self, now: float) -> None:
        if self._leaving == 1:
            self._leave()
        else:
            self.drain(now)

    def expire(self, now: float) -> None:
        if self._leaving == 1 and not self.closing:
            self._leave()
        else:
            super().expire(now)

    def idle_number(self, number: int) -> bool:
        return number > self.last or not number & 1

    def heard_headers(self, number: int, fields: Fields, *, end: bool) -> None:
        if number <= self.last:
            self._trailers(number, fields, end=end)
            return
        if not number & 1:
            raise LinkError(PROTOCOL_ERROR, "a client opens streams of odd numbers")
        self.last = number
        self.chatter = 0
        if self._leaving == 2 or len(self.streams) >= MAX_STREAMS:
            self.queue(frames.rst_stream(number, REFUSED_STREAM))
            return
        wrong = problem(fields, request=True)
        if wrong:
            self._count_refusal()
            self.queue(frames.rst_stream(number, PROTOCOL_ERROR))
            return
        stream = Stream(self, number)
        stream.remote_closed = end
        if not self.streams:
            self.watch(monotonic() + self.idle)
        self.streams[number] = stream
        front = self.front
        view = front.view
        if view is None or view.source is not front.table:
            view = front.view = View(front.table)
        stream.call = call = Call(self, stream, view.table, fields)
        call.start()

    def _trailers(self, number: int, fields: Fields, *, end: bool) -> None:
        stream = self.streams.get(number)
        if stream is None or stream.call is None:
            return
        wrong = trailer_problem(fields)
        if not end or stream.remote_closed or wrong:
            stream.reset(PROTOCOL_ERROR)
            stream.call.cancel()
            return
        stream.close_remote()
        stream.call.request_trailers(fields)

    def heard_data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        if end:
            stream.close_remote()
        if stream.call is not None:
            stream.call.request_data(data, end=end)
        else:
            stream.credit(len(data))

    def heard_reset(self, stream: Stream, code: int) -> None:
        if stream.call is not None:
            stream.call.cancel()
        self._resets += 1
        if self._resets > MAX_RESETS:
            raise LinkError(ENHANCE_YOUR_CALM, "too many streams were reset")

    def heard_goaway(self, last: int, code: int) -> None:
        self._leaving = 2
        self._close_if_done()

    def sent(self, stream: Stream, size: int) -> None:
        if stream.call is not None:
            stream.call.answer_sent(size)

    def stream_closed(self, stream: Stream) -> None:
        super().stream_closed(stream)
        if not self.streams:
            if self._leaving:
                self._close_if_done()
            else:
                self.watch(monotonic() + self.front.table.timeouts.keepalive)

    def answered(self) -> None:
        """A call came to its own end."""
        if self._resets:
            self._resets -= 1

    def failed(self, error: LinkError) -> None:
        self._count_refusal()

    def ended(self) -> None:
        self.front.connections.discard(self)
        for stream in list(self.streams.values()):
            stream.local_closed = stream.remote_closed = True
            if stream.call is not None:
                stream.call.cancel()

    def close(self) -> None:
        super().close()
        for stream in list(self.streams.values()):
            if stream.call is not None:
                stream.call.cancel()

    # Inside

    def _count_refusal(self) -> None:
        series = self.front.table.own.series
        series.refused(SIDECAR, 400, "malformed")
        series.done(_REJECTED, 400, 0.0, 0.0, 0, 0)

    def _leave(self) -> None:
        if self._leaving == 1:
            self._leaving = 2
            self.queue(frames.goaway(self.last, NO_ERROR))
            self.watch(monotonic() + self.idle)
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._leaving == 2 and not self.streams and not self.closing:
            # What ends the last stream is queued by whoever calls; it has to go out first.
            self._call_soon(self._close_if_still_done)

    def _close_if_still_done(self) -> None:
        if not self.streams and not self.closing:
            self.close()
