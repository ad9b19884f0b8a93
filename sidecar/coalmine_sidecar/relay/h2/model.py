"""Connections to a model, or to the sidecar of another pod, that carry many calls at once."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from ..endpoints import Endpoint
from ..sweeper import NEVER, Sweeper
from . import frames
from .fields import Fields, problem, trailer_problem
from .frames import CANCEL, LARGEST, NO_ERROR, PREFACE, PROTOCOL_ERROR, LinkError
from .link import Link
from .stream import Stream

if TYPE_CHECKING:
    from ..tls import Tls
    from .call import Call

#: Connections to one endpoint; each takes as many streams as the peer allows (100 and more as a rule).
MAX_LINKS: Final = 64
#: Calls that wait for a connection to one endpoint.
MAX_WAITING: Final = 1024
#: Bytes of an answer's header list.
HEAD_LIMIT: Final = 65536
#: Seconds of silence after which a model with calls under way is asked whether it is there.
ALIVE: Final = 30.0
#: Seconds a connection without calls is kept. Its end is announced by GOAWAY, so nothing is lost by keeping it long.
KEEPALIVE: Final = 60.0


class ModelLink(Link):
    """Opens the streams. The peer's settings make it ready: from then on the peer is known to speak HTTP/2."""

    __slots__ = ("_ready", "channel", "going")

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel.sweeper, HEAD_LIMIT, ALIVE)
        self.channel = channel
        self.last = -1
        #: No new streams: the peer said so, or the connection has used up its numbers.
        self.going = False
        self._ready = asyncio.Event()

    async def ready(self) -> None:
        """Raises ConnectionError if the peer's first words are no HTTP/2."""
        await self._ready.wait()
        if self.closing:
            raise ConnectionError("no HTTP/2 is spoken there")

    @property
    def room(self) -> bool:
        return not self.going and not self.closing and len(self.streams) < self.peer_streams

    def open(self, call: Call) -> Stream:
        self.last += 2
        stream = Stream(self, self.last, call)
        if not self.streams:
            self.watch(monotonic() + self.idle)
        self.streams[self.last] = stream
        if self.last > LARGEST - 2:
            self.going = True
        return stream

    # What the link calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.greet({frames.ENABLE_PUSH: 0}, PREFACE)

    def heard_settings(self) -> None:
        self._ready.set()
        self.watch(monotonic() + KEEPALIVE)

    def idle_number(self, number: int) -> bool:
        return number > self.last or not number & 1

    def expire_idle(self, now: float) -> None:
        self.channel.links.discard(self)
        self.queue(frames.goaway(0, NO_ERROR))
        self.close()

    def heard_headers(self, number: int, fields: Fields, *, end: bool) -> None:
        self.chatter = 0
        stream = self.streams.get(number)
        if stream is None or stream.call is None:
            if stream is None and self.idle_number(number):
                raise LinkError(PROTOCOL_ERROR, "HEADERS of a stream that was never opened")
            return
        call = stream.call
        wrong = trailer_problem(fields) if call.answering else problem(fields, request=False)
        if stream.remote_closed or wrong or (call.answering and not end):
            stream.reset(PROTOCOL_ERROR)
            call.answer_reset(stream, PROTOCOL_ERROR)
            return
        if end:
            stream.close_remote()
        if call.answering:
            call.answer_trailers(fields)
        else:
            call.answer_headers(fields, end=end)

    def heard_data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        if end:
            stream.close_remote()
        call = stream.call
        if call is None:
            stream.credit(len(data))
        elif not call.answering:
            stream.reset(PROTOCOL_ERROR)
            call.answer_reset(stream, PROTOCOL_ERROR)
        else:
            call.answer_data(data, end=end)

    def heard_reset(self, stream: Stream, code: int) -> None:
        if stream.call is not None:
            stream.call.answer_reset(stream, code)

    def taken(self) -> int:
        return 0  # models open no streams

    def heard_goaway(self, last: int, code: int) -> None:
        self.going = True
        self.channel.links.discard(self)
        for number, stream in list(self.streams.items()):
            if number > last:
                stream.local_closed = stream.remote_closed = True
                self.stream_closed(stream)
                if stream.call is not None:
                    stream.call.answer_reset(stream, frames.REFUSED_STREAM)
        self._close_if_done()

    def sent(self, stream: Stream, size: int) -> None:
        if stream.call is not None:
            stream.call.request_sent(stream, size)

    def stream_closed(self, stream: Stream) -> None:
        super().stream_closed(stream)
        if not self.streams:
            self._close_if_done()
            if not self.closing:
                self.watch(monotonic() + KEEPALIVE)

    def ended(self) -> None:
        self.channel.links.discard(self)
        self._ready.set()
        self._fail_streams()

    def close(self) -> None:
        self.channel.links.discard(self)
        super().close()
        self._ready.set()
        self._fail_streams()

    def _fail_streams(self) -> None:
        for stream in list(self.streams.values()):
            stream.local_closed = stream.remote_closed = True
            self.stream_closed(stream)
            if stream.call is not None:
                stream.call.answer_reset(stream, CANCEL)

    def _close_if_done(self) -> None:
        if (self.going or self.channel.retired) and not self.streams and not self.closing:
            self.close()


class Channel(Endpoint):
    """An endpoint as gRPC sees it. Its failures are its own: a model that speaks no gRPC still answers HTTP/1.1."""

    __slots__ = ("_opening", "_waiting", "links")

    def __init__(self, host: str, port: int, sweeper: Sweeper, tls: Tls | None = None) -> None:
        super().__init__(host, port, sweeper, tls)
        self.links: set[ModelLink] = set()
        self._waiting: dict[Call, None] = {}
        self._opening: asyncio.Task[None] | None = None

    def link(self) -> ModelLink | None:
        """A connection with room for a stream."""
        for link in self.links:
            if link.room:
                return link
        return None

    def open(self, call: Call, timeout: float) -> bool:
        """Open a connection for a call, which is told by `connected` or `refused`; False: there are too many."""
        if len(self.links) >= MAX_LINKS or len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting[call] = None
        self._open_one(timeout)
        return True

    def _open_one(self, timeout: float) -> None:
        """Unless one is being opened."""
        if self._opening is None:
            if self.failures:
                self._shut(monotonic() + self._pause())
            self._opening = asyncio.get_running_loop().create_task(self._open(timeout))

    def forget(self, call: Call) -> None:
        """It no longer waits."""
        self._waiting.pop(call, None)

    async def _open(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        link: ModelLink | None = None
        try:
            async with asyncio.timeout(timeout):
                _, link = await loop.create_connection(
                    lambda: ModelLink(self), self.host, self.port, **self.options("h2")
                )
                await link.ready()
        except OSError as error:  # TimeoutError and what goes wrong in TLS are some
            if link is not None and not link.lost:
                link.transport.abort()
            self._opening = None
            self.no_connection(error)
            self._refuse(timed_out=isinstance(error, TimeoutError))
            return
        self._opening = None
        self.failures = 0
        self._shut(0.0)
        self.links.add(link)
        served = 0
        while self._waiting and link.room:
            call = next(iter(self._waiting))
            del self._waiting[call]
            served += 1
            call.connected(link)
        if self._waiting and not served:
            # It takes no calls: asking once more would be for ever.
            self._refuse(timed_out=False)
        elif self._waiting:
            self._open_one(timeout)

    def _refuse(self, *, timed_out: bool) -> None:
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            call.refused(self, timed_out=timed_out)

    def retire(self) -> None:
        super().retire()
        for link in list(self.links):
            link._close_if_done()

    def close(self) -> None:
        super().close()
        if self._opening is not None:
            self._opening.cancel()
        for link in list(self.links):
            link.deadline = NEVER
            link.transport.abort()
