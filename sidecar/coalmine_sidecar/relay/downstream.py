"""A client's connection: has its requests answered one after the other, keeps the time for both sides."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from ..contract import OUTCOMES
from .errors import SIDECAR, Refusal, error_answer, refusal_of
from .exchange import Exchange
from .h2.client import ClientLink
from .h2.frames import PREFACE
from .reading import RequestReader
from .upstream import HIGH_WATER

if TYPE_CHECKING:
    from .answering import Answering
    from .front import Front

#: Seconds a client has to take the last answer while what it still sends is thrown away.
LINGER: Final = 2.0
#: Seconds a keep-alive connection has to be idle before a sidecar that was told to end ends it. A client about to send
#: its next request gets an answer with `Connection: close` instead of a reset.
DRAIN_IDLE: Final = 1.0

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
#: llhttp, exactly behind the preface of HTTP/2 (HPE_PAUSED_H2_UPGRADE).
_PREFACE_CAME: Final = "Pause on PRI/Upgrade"
_REJECTED: Final = OUTCOMES.index("rejected")


class ClientConnection(RequestReader, asyncio.Protocol):
    __slots__ = ("_blocked", "_current", "_idle_since", "_reading", "closing", "paused", "transport")

    def __init__(self, front: Front) -> None:
        super().__init__(front)
        self.transport: asyncio.Transport
        #: The client does not take more bytes for now.
        self.paused = False
        #: The last answer is written; whatever still comes is thrown away.
        self.closing = False
        #: Being answered; it may be `_incoming` still.
        self._current: Exchange | None = None
        self._reading = True
        self._blocked = False
        #: Monotonic seconds; 0 once the next request has begun to come.
        self._idle_since = monotonic()

    # What the front calls

    @property
    def busy(self) -> bool:
        return self._current is not None or self._incoming is not None or bool(self._queue) or self._fed > 0

    def drain(self, now: float) -> None:
        if not self.busy:
            self.watch(max(now, self._idle_since + self.front.drain_idle))

    def abort(self) -> None:
        """End at once. Where an answer was under way its missing end is what the client has to see."""
        self.closing = True
        self.front.outbox.flush()
        self.transport.abort()

    # What the exchange calls

    def watch(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.wake:
            self.front.sweeper.schedule(self)

    def block_upload(self, blocked: bool) -> None:
        if blocked is not self._blocked:
            self._blocked = blocked
            self._set_reading()

    def leave(self) -> bytes:
        """A tunnel takes the transport over, and what came ahead."""
        self._current = None
        self._read_no_more()
        self.front.connections.discard(self)
        self.front.sweeper.forget(self)
        return self._ahead or b""

    def stay(self) -> None:
        """The model does not take the upgrade: what came after it are further requests."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            self._final = False
            self._parser = HttpRequestParser(self)
            self.block_upload(False)
            if ahead:
                self.data_received(ahead)

    def exchange_ended(self, exchange: Answering, now: float) -> None:
        """Its answer is written. The next request, or the end of the connection."""
        self._current = None
        self._blocked = False
        if exchange.close:
            self._close(now, linger=not exchange.whole or exchange.refusal is not None)
            return
        self._idle_since = now
        if self._queue:
            self._next(now)
        elif self._fed or self._incoming is not None or not self._reading:
            self._wait(now)
        else:
            front = self.front
            # A drain may have begun after the head of this answer, which promised to stay.
            self.deadline = deadline = now + (front.drain_idle if front.draining else front.table.timeouts.keepalive)
            if deadline < self.wake:
                self.front.sweeper.schedule(self)

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of what they stand for.
        self.transport = transport = cast(asyncio.Transport, transport)
        front = self.front
        now = monotonic()
        transport.set_write_buffer_limits(high=HIGH_WATER)
        if len(front.connections) >= front.max_connections:
            front.table.own.series.done(_REJECTED, 503, 0.0, 0.0, 0, 0)
            why = "too_many_connections"
            front.table.own.series.refused(SIDECAR, 503, why)
            protocol = front.table.protocol
            transport.write(error_answer(503, "too many connections", SIDECAR, close=True, protocol=protocol, why=why))
            self._close(now, linger=True)
        else:
            self.watch(now + (front.drain_idle if front.draining else front.table.timeouts.idle))
        front.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self.closing or self._final:
            self._keep_ahead(data)
            return
        now = monotonic()
        if not self._read_known(data) and not self._parse(data):
            return
        if self._fed > self.front.table.limits.head_bytes and not self._final:
            # No head that ends, or chunks that carry no data: extensions and trailers without an end.
            self._refuse(Refusal(431, f"the head is longer than {self.front.table.limits.head_bytes} bytes"))
        incoming = self._incoming
        if incoming is not None and not incoming.held:
            self._enqueue(incoming)
        current = self._current
        if current is not None:
            current.pump()
            if self._queue:
                self._set_reading()
        elif not self._queue or not self._next(now):
            self._wait(now)

    def eof_received(self) -> None:
        # A client that ends its side before the answer came is taken to have left, as Go's and nginx's servers do:
        # its half-close can't be told from a full one, and a model should not compute for nobody.
        if self.busy and not self.closing:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self._read_no_more()
        self.front.connections.discard(self)
        self.front.sweeper.forget(self)
        self._queue.clear()
        self._incoming = None
        if self._current is not None:
            self._current.cancel()
            self._current = None

    def pause_writing(self) -> None:
        self.paused = True
        if self._current is not None:
            self._current.pause_answer()

    def resume_writing(self) -> None:
        self.paused = False
        if self._current is not None:
            self._current.resume_answer()
        elif self._queue and not self.closing:
            self._next(monotonic())

    # Time

    def expire(self, now: float) -> None:
        if self.closing:
            self.transport.abort()
        elif self._current is not None:
            self._current.expire(now)
        elif self.busy:
            self._refuse(Refusal(408, "the request did not come in time"))
            self._next(now)
        else:
            self._close(now, linger=False)

    # Inside

    def _parse(self, data: bytes) -> bool:
        """Read on; whether this object goes on being the connection's."""
        begins = not self._fed and self._incoming is None
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
            if self._plain:
                self._remember(data, begins=begins)
        except HttpParserUpgrade as upgrade:
            self._go_on_after(upgrade, data)
        except HttpParserError as error:
            if str(error) == _PREFACE_CAME and self._current is None and not self._queue:
                self._hand_over(data[len(data) - self._fed + len(PREFACE) :])
                return False
            if not self._final:
                self._refuse(refusal_of(error))
        return True

    def _hand_over(self, rest: bytes) -> None:
        """The client speaks HTTP/2: this object's work is done."""
        self.closing = True
        self._read_no_more()
        self.front.connections.discard(self)
        self.front.sweeper.forget(self)
        ClientLink(self.front).take_over(self.transport, rest)

    def _keep_ahead(self, data: bytes) -> None:
        if self._ahead is not None and not self.closing:
            self._ahead += data
            if len(self._ahead) > HIGH_WATER:
                self.block_upload(True)

    def _refuse(self, refusal: Refusal) -> None:
        """No to the request being read, in its turn; nothing is read after it."""
        exchange, self._incoming = self._incoming, None
        self._final = True
        if exchange is None:
            exchange = self._exchange(b"GET", self._url, [])
        exchange.close = True
        exchange.refusal = refusal
        if exchange is self._current:
            exchange.refuse(refusal)
        else:
            self._enqueue(exchange)

    def _exchange(self, method: bytes, url: bytes, lines: list[bytes]) -> Exchange:
        return Exchange(self, self.front.table, method, url, lines)

    def _next(self, now: float) -> bool:
        """Answer the next request in the queue; whether one is being answered."""
        # Answers the client does not take are not added to: its next request waits until it reads.
        if self._queue and not self.paused:
            self._current = exchange = self._queue.popleft()
            if not self._reading:
                self._set_reading()
            if exchange.expect:
                self._invite(exchange)
            exchange.start(now)
        return self._current is not None

    def _wait(self, now: float) -> None:
        """Nothing to answer: for the rest of a request, or for the next one; unless it is ending."""
        if self.closing:
            return
        incoming = self._incoming
        timeouts = self.front.table.timeouts
        if incoming is not None:
            if incoming.expect:
                self._invite(incoming)
            self.watch(incoming.body_deadline(now))
        elif self._fed:
            # The head as a whole has this long, however it drips.
            if self._idle_since:
                self._idle_since = 0.0
                self.watch(now + timeouts.idle)
        else:
            self.watch(now + (self.front.drain_idle if self.front.draining else timeouts.keepalive))
        self._set_reading()

    def _invite(self, exchange: Exchange) -> None:
        """Answer `Expect: 100-continue` ourselves: a body has to be here before it can be sent twice."""
        exchange.expect = False
        if not exchange.whole and not exchange.size and exchange.refusal is None:
            self.front.outbox.flush()
            self.transport.write(_CONTINUE)

    def _set_reading(self) -> None:
        wanted = self.closing or not (self._blocked or self._far_ahead())
        if wanted is not self._reading:
            self._reading = wanted
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _close(self, now: float, *, linger: bool) -> None:
        """End after what is written has been sent.

        With bytes of the client unread a plain close would be a reset, which may destroy the answer on its way; so
        the answer's end is sent and the rest thrown away for a while.
        """
        self.closing = True
        self._queue.clear()
        self._incoming = None
        self.front.outbox.flush()
        if linger and not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()
            self._set_reading()
            self.watch(now + LINGER)
        else:
            self.transport.close()
            self.watch(now + self.front.table.timeouts.idle)
