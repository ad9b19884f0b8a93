"""A connection of HTTP/2, whichever side opened it: frames in and out, flow control, and what a peer may not do.

Memory a connection can take: a window of LINK_WINDOW bytes not passed on yet, a header block, a write buffer.
Credit is given back when bytes have gone on, not when they came; so a slow reader on one side slows the sender on the
other.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final, cast

from ..sweeper import NEVER, Sweeper, Timed
from ..upstream import HIGH_WATER
from . import frames
from .fields import Fields, Reader
from .frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEAD,
    HEAD_SIZE,
    HEADERS,
    LARGEST,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    LinkError,
    unpadded,
)
from .stream import STREAM_WINDOW, Stream

#: Bytes a peer may send on all streams together before we have passed them on. Sixteen stuck streams hold up the rest.
LINK_WINDOW: Final = 16 * STREAM_WINDOW
#: Frames without use (PING, SETTINGS, empty DATA, ...) that a peer may send between two of use.
CHATTER: Final = 1000
#: Bytes joined for one write; more is handed over piece by piece.
_JOINED: Final = 65536
_ALIVE: Final = b"coalmine"


class Link(Timed, asyncio.Protocol):
    """Subclasses say what streams mean: `heard_*`, `sent`, `stream_closed`, `ended`."""

    __slots__ = (
        "_asked", "_block", "_block_flags", "_block_stream", "_call_soon", "_greeted", "_heard", "_out", "_reader",
        "_rest", "_uncredited", "_written", "blocked", "chatter", "closing", "head_limit", "idle", "last", "lost",
        "paused", "peer_streams", "peer_window", "receive_window", "streams", "sweeper", "transport", "window",
    )  # fmt: skip

    def __init__(self, sweeper: Sweeper, head_limit: int, idle: float) -> None:
        """`idle`: seconds of silence after which a peer with streams under way is asked whether it is there."""
        super().__init__()
        self.sweeper = sweeper
        self.head_limit = head_limit
        self.idle = idle
        self.transport: asyncio.Transport
        self.streams: dict[int, Stream] = {}
        #: The newest stream that the peer has opened, or we.
        self.last = 0
        self.window = DEFAULT_WINDOW
        self.receive_window = LINK_WINDOW
        self.peer_window = DEFAULT_WINDOW
        self.peer_streams = LARGEST
        #: Streams that would send if they could, the one that waits longest first.
        self.blocked: dict[Stream, None] = {}
        self.paused = False
        self.closing = False
        self.lost = False
        self.chatter = 0
        self._call_soon = asyncio.get_running_loop().call_soon
        self._reader = Reader(head_limit)
        self._rest = b""
        self._out: list[bytes] = []
        self._greeted = False
        self._uncredited = 0
        # The header block being read.
        self._block: bytearray | None = None
        self._block_stream = self._block_flags = 0
        #: Monotonic seconds: when the peer was last heard, and asked whether it is there (0: it is).
        self._heard = monotonic()
        self._asked = 0.0

    # Subclasses

    def heard_headers(self, number: int, fields: Fields, *, end: bool) -> None:
        raise NotImplementedError

    def heard_data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        raise NotImplementedError

    def heard_reset(self, stream: Stream, code: int) -> None:
        raise NotImplementedError

    def heard_goaway(self, last: int, code: int) -> None:
        raise NotImplementedError

    def heard_settings(self) -> None:
        """The first settings of the peer have come."""

    def heard_pong(self, payload: bytes) -> None:
        """An answer to a PING."""

    def sent(self, stream: Stream, size: int) -> None:
        raise NotImplementedError

    def stream_closed(self, stream: Stream) -> None:
        self.streams.pop(stream.number, None)
        self.blocked.pop(stream, None)

    def idle_number(self, number: int) -> bool:
        """Whether a stream of this number has never been opened."""
        raise NotImplementedError

    def failed(self, error: LinkError) -> None:
        """The peer broke the rules; the connection is about to end."""

    def ended(self) -> None:
        """The connection is gone with what was under way on it."""
        raise NotImplementedError

    # Sending

    def greet(self, settings: dict[int, int], preface: bytes = b"") -> None:
        values = {frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW, frames.MAX_HEADER_LIST_SIZE: self.head_limit} | settings
        update = frames.window_update(0, LINK_WINDOW - DEFAULT_WINDOW)
        self.queue(preface, frames.settings(values), update)

    def queue(self, *parts: bytes) -> None:
        """Send at the end of this turn of the loop, with what else comes until then."""
        if not self._out:
            self._call_soon(self.flush)
        self._out += parts

    def flush(self) -> None:
        out, self._out = self._out, []
        if out and not self.lost:
            if sum(map(len, out)) <= _JOINED:
                self.transport.write(b"".join(out))
            else:
                self.transport.writelines(out)

    def credit(self, size: int) -> None:
        """Bytes of whatever stream have been passed on."""
        self._uncredited += size
        if self._uncredited >= LINK_WINDOW // 2:
            self.receive_window += self._uncredited
            self.queue(frames.window_update(0, self._uncredited))
            self._uncredited = 0

    def fail(self, error: LinkError) -> None:
        """Say why and end."""
        if not self.closing:
            self.failed(error)
            self.queue(frames.goaway(self.taken(), error.code, str(error)[:256]))
            self.close()

    def taken(self) -> int:
        """The last stream of the peer's own that was taken on."""
        return self.last

    def close(self) -> None:
        """End after what is queued has been sent."""
        self.closing = True
        self.flush()
        if not self.lost:
            self.transport.close()
            self.watch(monotonic() + self.idle)

    def watch(self, deadline: float) -> None:
        self.sweeper.watch(self, deadline)

    def expire(self, now: float) -> None:
        """Silence: a peer with streams under way has to show that it is there."""
        if self.closing or self._asked:
            self.transport.abort()
        elif now - self._heard < self.idle:
            self.watch(self._heard + self.idle)
        elif self._block is not None or not self._greeted:
            self.fail(LinkError(PROTOCOL_ERROR, "what was begun did not come in time"))
        elif self.streams:
            self._asked = now
            self.queue(frames.ping(_ALIVE))
            self.watch(now + self.idle)
        else:
            self.expire_idle(now)

    def expire_idle(self, now: float) -> None:
        """The deadline came with no stream under way."""
        raise NotImplementedError

    def _pump_blocked(self) -> None:
        for stream in list(self.blocked):
            if self.window <= 0 or self.paused:
                return
            del self.blocked[stream]
            stream.pump()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of what they stand for.
        self.transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=HIGH_WATER)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._pump_blocked()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self.closing = True
        self._out = []
        self.deadline = NEVER
        self.sweeper.forget(self)
        self.ended()
        self.streams.clear()
        self.blocked.clear()

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        self._heard = monotonic()
        self._asked = 0.0
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        try:
            while end - at >= HEAD_SIZE:
                high, low, kind, flags, number = HEAD.unpack_from(data, at)
                length = high << 16 | low
                stop = at + HEAD_SIZE + length
                if length > FRAME_SIZE:
                    self.fail(LinkError(FRAME_SIZE_ERROR, f"a frame longer than {FRAME_SIZE} bytes"))
                    return
                if stop > end:
                    break
                payload = data[at + HEAD_SIZE : stop]
                at = stop
                self._frame(kind, flags, number & LARGEST, payload)
                if self._ended_by_that():
                    return
        except LinkError as error:
            self.fail(error)
            return
        self._rest = data[at:] if at < end else b""

    def _ended_by_that(self) -> bool:
        # mypy, and mypyc with it, would take `closing` to be False still: nobody set it before its eyes.
        return self.closing

    # Frames

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None:
            if kind != CONTINUATION or number != self._block_stream:
                raise LinkError(PROTOCOL_ERROR, "a header block that does not go on")
            self._add_to_block(payload, flags)
        elif not self._greeted:
            if kind != SETTINGS or flags & ACK:
                raise LinkError(PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._settings(flags, payload)
            self._greeted = True
            self.heard_settings()
        elif kind == DATA:
            self._data(flags, number, payload)
        elif kind == HEADERS:
            payload = unpadded(flags, payload)
            if flags & WITH_PRIORITY:
                payload = payload[5:]
            if not number:
                raise LinkError(PROTOCOL_ERROR, "HEADERS without a stream")
            self._block = bytearray()
            self._block_stream, self._block_flags = number, flags
            self._add_to_block(payload, flags)
        elif kind == WINDOW_UPDATE:
            self._window_update(number, frames.read_long(payload))
        elif kind == RST_STREAM:
            code = frames.read_long(payload)
            self._count_chatter()
            stream = self.streams.get(number)
            if stream is not None:
                stream.local_closed = stream.remote_closed = True
                self.stream_closed(stream)
                self.heard_reset(stream, code)
            elif self.idle_number(number):
                raise LinkError(PROTOCOL_ERROR, "RST_STREAM of a stream that was never opened")
        elif kind == PING:
            if len(payload) != 8:
                raise LinkError(FRAME_SIZE_ERROR, "PING of a broken length")
            if flags & ACK:
                self.heard_pong(payload)
            else:
                self._count_chatter()
                self.queue(frames.ping(payload, ack=True))
        elif kind == SETTINGS:
            self._settings(flags, payload)
        elif kind == GOAWAY:
            self.heard_goaway(*frames.read_goaway(payload))
        elif kind in (PUSH_PROMISE, CONTINUATION):
            raise LinkError(PROTOCOL_ERROR, "PUSH_PROMISE or CONTINUATION out of place")
        else:
            # PRIORITY means nothing any more (RFC 9113, 5.3.2); unknown frames are passed over (5.5).
            self._count_chatter()
            if kind == PRIORITY and len(payload) != 5:
                raise LinkError(FRAME_SIZE_ERROR, "PRIORITY of a broken length")

    def _count_chatter(self) -> None:
        self.chatter += 1
        if self.chatter > CHATTER:
            raise LinkError(ENHANCE_YOUR_CALM, f"{CHATTER} frames without use")

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self.receive_window -= size
        if self.receive_window < 0:
            raise LinkError(FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        stream = self.streams.get(number)
        end = bool(flags & END_STREAM)
        if stream is None or stream.remote_closed:
            if stream is None and self.idle_number(number):
                raise LinkError(PROTOCOL_ERROR, "DATA of a stream that was never opened")
            self._count_chatter()
            self.credit(size)
            if stream is not None:
                stream.reset(STREAM_CLOSED)
                self.heard_reset(stream, STREAM_CLOSED)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            stream.credit(size)
            stream.reset(FLOW_CONTROL_ERROR)
            self.heard_reset(stream, FLOW_CONTROL_ERROR)
            return
        data = unpadded(flags, payload)
        if len(data) < size:
            stream.credit(size - len(data))
        if not data and not end:
            self._count_chatter()
            return
        self.chatter = 0
        self.heard_data(stream, data, end=end)

    def _add_to_block(self, payload: bytes, flags: int) -> None:
        block = self._block
        assert block is not None  # noqa: S101 - the two callers have just seen to it
        block += payload
        if len(block) > self.head_limit or (not payload and not flags & END_HEADERS):
            raise LinkError(ENHANCE_YOUR_CALM, "the header block is too long, or drips")
        if flags & END_HEADERS:
            self._block = None
            fields = self._reader.read(bytes(block))
            self.heard_headers(self._block_stream, fields, end=bool(self._block_flags & END_STREAM))

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            return
        self._count_chatter()
        for key, value in frames.read_settings(payload):
            if key == frames.INITIAL_WINDOW_SIZE:
                if value > LARGEST:
                    raise LinkError(FLOW_CONTROL_ERROR, "a window that is too large")
                grown, self.peer_window = value - self.peer_window, value
                for stream in self.streams.values():
                    stream.window += grown
            elif key == frames.MAX_CONCURRENT_STREAMS:
                self.peer_streams = value
        self.queue(frames.SETTINGS_ACK)
        self._pump_blocked()

    def _window_update(self, number: int, size: int) -> None:
        self._count_chatter()
        size &= LARGEST
        if number == 0:
            self.window += size
            if not size or self.window > LARGEST:
                raise LinkError(FLOW_CONTROL_ERROR, "a window that is too large, or grows by nothing")
            self._pump_blocked()
            return
        stream = self.streams.get(number)
        if stream is None:
            if self.idle_number(number):
                raise LinkError(PROTOCOL_ERROR, "WINDOW_UPDATE of a stream that was never opened")
            return
        stream.window += size
        if not size or stream.window > LARGEST:
            stream.reset(FLOW_CONTROL_ERROR)
            self.heard_reset(stream, FLOW_CONTROL_ERROR)
            return
        if stream in self.blocked:
            del self.blocked[stream]
            stream.pump()
