"""A connection to a model, or to the sidecar of another pod: one request at a time, used again while it lives."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from .errors import Refusal, phrase_of, refusal_of, status_line
from .heads import (
    COLON,
    CONNECTION,
    CRLF,
    KINDS,
    LENGTH,
    TYPE,
    Special,
    first_line,
    head_size,
    kind_of,
    without,
)
from .sweeper import NEVER, Timed
from .trailers import passed_on

if TYPE_CHECKING:
    from .asker import Asker
    from .endpoints import Endpoint

#: Bytes of an answer's head, and of whatever a chunked body carries beside its data.
HEAD_LIMIT: Final = 65536
#: Bytes waiting in a socket's write buffer before its other side is told to stop.
HIGH_WATER: Final = 262144
#: Bytes of a head that is remembered.
MAX_KNOWN: Final = 1024
_END: Final = b"\r\n\r\n"
#: In the place of a parser that has done its work, as in `reading`.
_DONE: Final = HttpResponseParser(None)
#: The status of an answer after which the connection speaks what the client offered.
SWITCHING: Final = 101


class Answer:
    """One answer as it arrives. `body` holds what came and was not yet taken; `length` None: until EOF or chunked.

    `head`: status line and `lines` in one piece, where that was made before; else empty.
    """

    __slots__ = ("body", "complete", "content_type", "head", "length", "lines", "phrase", "special", "status")

    def __init__(self) -> None:
        #: 0 until the head is whole.
        self.status = 0
        self.phrase = b""
        self.head = b""
        self.lines: list[bytes] = []
        self.body: list[bytes] = []
        self.length: int | None = None
        self.content_type = b""
        self.special: Special | None = None
        self.complete = False


class UpstreamConnection(Timed, asyncio.Protocol):
    __slots__ = (
        "_dirty", "_keep", "_known", "_lines", "_parser", "answer", "endpoint", "exchange", "fed", "lost", "paused",
        "transport", "used",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self.endpoint = endpoint
        self.transport: asyncio.Transport
        self.exchange: Asker | None = None
        self.answer = Answer()
        #: Requests answered on this connection; the first one can't have met a stale connection.
        self.used = 0
        #: The peer does not take more bytes for now.
        self.paused = False
        self.lost = False
        self._parser = HttpResponseParser(self)
        self._lines = self.answer.lines
        #: Bytes read since the request was sent or since a body last made progress.
        self.fed = 0
        self._keep = False
        self._dirty = False
        #: The last answer's head and length of all, if it was like nearly all answers are, and what was read of it.
        self._known: tuple[bytes, int, Answer] | None = None

    # The exchange's side

    def begin(self, exchange: Asker) -> None:
        """Take on a request; the caller writes it to `transport`."""
        self.exchange = exchange
        self.answer = answer = Answer()
        self._lines = answer.lines
        self.fed = 0
        self.deadline = NEVER

    def release(self, now: float, *, reusable: bool) -> None:
        """Give the connection back after an answer; where it can't be used again it is closed."""
        self.exchange = None
        self.used += 1
        if reusable and self._keep and not self._dirty and not self.lost and not self.paused:
            self.endpoint.park(self, now)
        else:
            self.transport.abort()
        self.endpoint.left()

    def drop(self) -> None:
        """Give up a request under way: the server learns of it by the end of its connection."""
        self.exchange = None
        if not self.lost:
            self.transport.abort()
        self.endpoint.left()

    def leave(self) -> asyncio.Transport:
        """Another protocol takes the connection over; the endpoint stays charged with it."""
        self.exchange = None
        self._parser = _DONE
        self.endpoint.sweeper.forget(self)
        return self.transport

    def expire(self, now: float) -> None:
        """Idle for too long. While a request is under way its client's connection keeps the time."""
        if self.exchange is None:
            self.endpoint.unpark(self)
            self.transport.close()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of what they stand for.
        self.transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            # Bytes nobody asked for: whose answer would they be?
            self.transport.abort()
            return
        begins = not self.fed and not self.answer.status
        if begins and self._read_known(data):
            exchange.answer_arrived(self, self.answer, monotonic())
            return
        self.fed += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            refusal_of(error)
            if not self.answer.complete:
                exchange.upstream_lost(self, clean=False)
                return
            # What follows a whole answer is nobody's, and no reason to withhold it.
            self._dirty = True
        except HttpParserUpgrade as upgrade:
            exchange.switched(self, data[upgrade.args[0] :])
            return
        answer = self.answer
        if self.fed > HEAD_LIMIT and not answer.complete:
            exchange.upstream_lost(self, clean=False)
        elif answer.status:
            if begins and answer.complete:
                self._remember(data, answer)
            exchange.answer_arrived(self, answer, monotonic())

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.endpoint.sweeper.forget(self)
        if self.exchange is not None:
            self.exchange.upstream_lost(self, clean=exc is None)
        else:
            self.endpoint.unpark(self)
        self._parser = _DONE

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.exchange is not None:
            self.exchange.pump()

    # httptools' side

    def on_message_begin(self) -> None:
        if self.answer.complete:
            # More than was asked for: its end would be taken for the beginning of the next answer.
            self._dirty = True

    def on_status(self, phrase: bytes) -> None:
        self.answer.phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        try:
            kind = KINDS[name]
        except KeyError:
            kind = kind_of(name)
        if not kind:
            lines = self._lines
            lines += (name, COLON, value, CRLF)
        elif not self.answer.status:
            answer = self.answer
            if kind == LENGTH:
                answer.length = int(value)
            elif kind == TYPE:
                answer.content_type = value
            elif kind == CONNECTION and (value == b"keep-alive" or value == b"close"):
                return  # llhttp has heeded it.
            else:
                if answer.special is None:
                    answer.special = Special()
                if not answer.special.note(kind, value):
                    return
            self._lines += (name, COLON, value, CRLF)

    def on_headers_complete(self) -> None:
        answer = self.answer
        if answer.complete:
            return
        parser = self._parser
        status = parser.get_status_code()
        if status < 200 and status != SWITCHING:
            self._pass_hint(status)
            return
        if status == SWITCHING and not (
            self.exchange is not None and self.exchange.upgrade and parser.should_upgrade()
        ):
            raise Refusal(502, "the model changes a protocol that nobody asked it to change")
        if self.fed > HEAD_LIMIT and head_size(self._lines) > HEAD_LIMIT:
            raise Refusal(502, "the answer's head is too long")
        answer.lines = self._lines
        # From here on they are trailers.
        self._lines = []
        answer.status = status
        special = answer.special
        if special is not None:
            named = special.named()
            if special.blames and self.exchange is not None and self.endpoint is self.exchange.table.own.model:
                # A sidecar says who failed; what a model says under that name would make it a question again.
                named.add(b"coalmine-error")
            if named:
                answer.lines = without(answer.lines, named)
        if self.exchange is not None and self.exchange.method == b"HEAD":
            answer.complete = True
            self._keep = self._parser.should_keep_alive()
            # llhttp can't be told that no body follows; a parser that has not read a head does not wait for one.
            self._parser = HttpResponseParser(self)

    def on_body(self, data: bytes) -> None:
        answer = self.answer
        if answer.complete:
            self._dirty = True
            return
        self.fed = 0
        answer.body.append(data)

    def on_message_complete(self) -> None:
        answer = self.answer
        if answer.status and not answer.complete:
            if self._lines and answer.special is not None:
                if head_size(self._lines) > HEAD_LIMIT:
                    raise Refusal(502, "the answer's trailers are too long")
                answer.special.trailers = passed_on(self._lines)
            answer.complete = True
            self._keep = self._parser.should_keep_alive()

    # Inside

    def _read_known(self, data: bytes) -> bool:
        """Read an answer that is here as a whole and has the last one's head; whether it is one.

        What llhttp made of those bytes then it would make of them now, and it stands where it stood: behind a message.
        """
        if self._known is None:
            return False
        head, size, known = self._known
        if len(data) != size or not data.startswith(head) or self.exchange is None or self.exchange.method == b"HEAD":
            return False
        answer = self.answer
        answer.status = known.status
        answer.phrase = known.phrase
        answer.head = known.head
        answer.lines = known.lines
        answer.length = known.length
        answer.content_type = known.content_type
        if known.length:
            answer.body.append(data[-known.length :])
        answer.complete = True
        self._keep = True
        return True

    def _remember(self, data: bytes, answer: Answer) -> None:
        """`data` held a whole answer from its first byte."""
        length = answer.length
        if length is None or answer.special is not None or not self._keep or self._dirty or answer.status in (204, 304):
            return
        end = data.find(_END) + len(_END)
        if end + length == len(data) and end <= MAX_KNOWN:
            known = Answer()
            known.status = answer.status
            known.phrase = answer.phrase
            known.lines = answer.lines
            known.head = b"".join((first_line(answer.status, answer.phrase), *answer.lines))
            known.length = length
            known.content_type = answer.content_type
            self._known = (data[:end], len(data), known)

    def _pass_hint(self, status: int) -> None:
        """103 and the like. The 100 that a client waits for is the relay's own."""
        answer, self.answer = self.answer, Answer()
        self._lines = self.answer.lines
        if status < 100:
            raise Refusal(502, "the answer has no status")
        if status > SWITCHING and self.exchange is not None:
            special = answer.special
            lines = without(answer.lines, special.named()) if special is not None else answer.lines
            self.exchange.hint([status_line(status, phrase_of(status)), *lines, CRLF])
