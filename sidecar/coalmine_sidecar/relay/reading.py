"""Reading a client's requests of HTTP/1.1: bytes become exchanges that stand in a queue."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from .asked import heed_specials, heed_target
from .errors import Refusal, refusal_of
from .heads import (
    COLON,
    CRLF,
    HOST,
    HOSTS,
    KINDS,
    LENGTH,
    REQUEST_ID,
    TRACEPARENT,
    TRACESTATE,
    TYPE,
    Special,
    check_host,
    head_size,
    kind_of,
)
from .resume import resumed_parser
from .sweeper import Timed
from .trace import identified
from .trailers import passed_on
from .upstream import HIGH_WATER

if TYPE_CHECKING:
    from .exchange import Exchange
    from .front import Front

#: Requests a client may send ahead of their answers.
MAX_PIPELINED: Final = 64
#: Requests read ahead, with bodies of HIGH_WATER bytes together. Up to there a connection is read while an answer is
#: under way: one that is not read does not tell that its client left.
READ_AHEAD: Final = 8
#: Bytes of a head that is remembered.
MAX_KNOWN: Final = 1024

_END: Final = b"\r\n\r\n"
#: In the place of a parser that has done its work. One holds its reader's methods: the two would be a circle, and wait
#: for a garbage collector that is told to look seldom.
_DONE: Final = HttpRequestParser(None)


class Known:
    """A head that was read. Clients that keep a connection send the same one time and again, byte by byte."""

    __slots__ = ("head", "held", "length", "lines", "method", "size", "table", "url")

    def __init__(self, head: bytes, size: int, exchange: Exchange, lines: list[bytes], length: int) -> None:
        """`size`: of head and body. `lines`: those of the head, nothing added."""
        self.head = head
        self.size = size
        self.length = length
        self.lines = lines
        self.method = exchange.method
        self.url = exchange.url
        self.held = exchange.held
        self.table = exchange.table


class RequestReader(Timed):
    """The half of a client's connection that reads; `ClientConnection` is the whole."""

    __slots__ = (
        "_ahead", "_fed", "_final", "_hosts", "_incoming", "_known", "_length", "_lines", "_parser", "_plain", "_queue",
        "_request_id", "_special", "_traceparent", "_tracestate", "_url", "front",
    )  # fmt: skip

    def __init__(self, front: Front) -> None:
        super().__init__()
        self.front = front
        self._parser = HttpRequestParser(self)
        #: Read, and waiting for their turn; the last one perhaps not read whole.
        self._queue: deque[Exchange] = deque()
        #: Not read whole yet.
        self._incoming: Exchange | None = None
        #: Nothing is read after the last request.
        self._final = False
        #: What came after an upgrade was asked for; whose bytes these are is for the model to say.
        self._ahead: bytes | None = None
        # The head being read; `_fed` are its bytes so far, or what a chunked body carried beside its data.
        self._fed = 0
        self._url = b""
        self._lines: list[bytes] = []
        self._length: int | None = None
        self._hosts = 0
        self._special: Special | None = None
        self._traceparent: bytes | None = None
        self._tracestate = False
        self._request_id = b""
        #: The items of the last head's lines, if it was like nearly all heads are; 0 if it was not.
        self._plain = 0
        self._known: Known | None = None

    # httptools' side: takes notes only; what follows from them is done after the feed

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        try:
            kind = KINDS[name]
        except KeyError:
            kind = kind_of(name)
        if kind:
            if self._incoming is not None:
                return  # A trailer.
            if kind == LENGTH:
                self._length = int(value)
            elif kind == HOST:
                self._hosts += 1
                if value not in HOSTS:
                    check_host(value)
            elif kind >= TRACEPARENT:
                self._note_identity(kind, value)
            elif kind != TYPE:
                if self._special is None:
                    self._special = Special()
                if not self._special.note(kind, value):
                    return
        lines = self._lines
        lines += (name, COLON, value, CRLF)

    def on_headers_complete(self) -> None:
        parser = self._parser
        limits = self.front.table.limits
        lines, self._lines = self._lines, []
        url, self._url = self._url, b""
        special, self._special = self._special, None
        length, self._length = self._length, None
        hosts, self._hosts = self._hosts, 0
        traceparent, self._traceparent = self._traceparent, None
        tracestate, self._tracestate = self._tracestate, False
        request_id, self._request_id = self._request_id, b""
        self._incoming = exchange = self._exchange(parser.get_method(), url, lines)
        if self._fed > limits.head_bytes and head_size(lines) + len(url) > limits.head_bytes:
            raise Refusal(431, f"the head is longer than {limits.head_bytes} bytes")
        plain = len(lines) if special is None and traceparent is None and not (tracestate or request_id) else 0
        ids = self.front.ids
        if ids is not None:
            exchange.lines, exchange.request_id, exchange.trace = identified(
                lines, ids, self.front.table.new_trace, traceparent, tracestate, request_id
            )
        if len(self._queue) >= MAX_PIPELINED:
            raise Refusal(503, f"more than {MAX_PIPELINED} requests sent ahead", "too_far_ahead")
        keep_alive = parser.should_keep_alive()
        if not keep_alive or special is not None:
            # Only these can be of another version than 1.1; asking for it costs as much as all the rest here.
            version = parser.get_http_version()
            if version not in ("1.1", "1.0"):
                raise Refusal(505, "HTTP/1.1 and HTTP/1.0 are spoken here")
            exchange.http10 = version == "1.0"
            exchange.close = not keep_alive
        if hosts > 1 or (hosts == 0 and not exchange.http10):
            raise Refusal(400, "one Host header is needed")
        if url[:1] != b"/":
            heed_target(exchange)
        if special is not None:
            heed_specials(exchange, special, length or 0)
        if exchange.length is not None:
            exchange.length = length = length or 0
            if length > limits.body_bytes:
                raise Refusal(413, f"the body is longer than {limits.body_bytes} bytes")
            exchange.held = length <= limits.replay_bytes
        if exchange.method == b"CONNECT":
            raise Refusal(501, "CONNECT: no tunnels here")
        self._plain = plain if keep_alive and url[:1] == b"/" else 0

    def on_body(self, data: bytes) -> None:
        self._fed = 0
        if self._incoming is not None:
            self._incoming.take(data)

    def on_message_complete(self) -> None:
        exchange = self._incoming
        self._fed = 0
        if exchange is None or exchange.ignores_upgrade:
            return
        if self._lines:
            trailers, self._lines = self._lines, []
            if head_size(trailers) > self.front.table.limits.head_bytes:
                raise Refusal(431, f"the trailers are longer than {self.front.table.limits.head_bytes} bytes")
            exchange.trailers = passed_on(trailers)
        self._incoming = None
        exchange.whole = True
        self._final = exchange.close
        self._enqueue(exchange)

    # Inside

    def _read_known(self, data: bytes) -> bool:
        """Read a request that is here as a whole and has the last one's head; whether it is one.

        What llhttp made of those bytes then it would make of them now, and it stands where it stood: behind a message.
        """
        known = self._known
        if (
            known is None
            or len(data) != known.size
            or not data.startswith(known.head)
            or self._fed
            or self._incoming is not None
            or self._queue
        ):
            return False
        front = self.front
        table = front.table
        if known.table is not table:
            # Other limits, perhaps.
            return False
        lines = known.lines.copy()
        exchange = self._exchange(known.method, known.url, lines)
        ids = front.ids
        if ids is not None:
            own, exchange.request_id, exchange.trace = ids.begin(table.new_trace)
            lines += own
        exchange.length = exchange.size = length = known.length
        if length:
            exchange.body.append(data[-length:])
        exchange.held = known.held
        exchange.whole = True
        self._enqueue(exchange)
        return True

    def _remember(self, data: bytes, *, begins: bool) -> None:
        """A plain head has come, by the last bytes of `data`; `begins`: these are from the first of a request on."""
        plain, self._plain = self._plain, 0
        if not begins or self._incoming is not None or not self._queue:
            return
        exchange = self._queue[-1]
        length = exchange.length
        end = data.find(_END) + len(_END)
        if length is not None and end + length == len(data) and end <= MAX_KNOWN:
            self._known = Known(data[:end], len(data), exchange, exchange.lines[:plain], length)

    def _note_identity(self, kind: int, value: bytes) -> None:
        if kind == TRACEPARENT:
            # Two of them are as good as none (W3C Trace Context 3.2.1).
            self._traceparent = value.strip(b" \t") if self._traceparent is None else b""
        elif kind == REQUEST_ID:
            self._request_id = self._request_id or value.strip(b" \t")
        elif kind == TRACESTATE:
            self._tracestate = True

    def _go_on_after(self, upgrade: HttpParserUpgrade, data: bytes) -> None:
        """llhttp stops after a head that offers an upgrade and drops the body."""
        rest = data[upgrade.args[0] :]
        exchange = self._incoming
        if exchange is None:
            if not self._final:
                self._final = True
                self._ahead = b""
                self._keep_ahead(rest)
            return
        # The offer is passed over: another parser takes up there.
        exchange.ignores_upgrade = False
        try:
            self._parser = resumed_parser(self, exchange.length)
            if rest and not self._final:
                self._fed = len(rest)
                self._parser.feed_data(rest)
        except HttpParserUpgrade as another:
            self._go_on_after(another, rest)
        except HttpParserError as error:
            if not self._final:
                self._refuse(refusal_of(error))

    def _read_no_more(self) -> None:
        self._parser = _DONE
        self._known = None

    def _enqueue(self, exchange: Exchange) -> None:
        if not exchange.queued:
            exchange.queued = True
            self._queue.append(exchange)

    def _far_ahead(self) -> bool:
        # After the last request nothing is kept of what comes.
        queue = self._queue
        return not self._final and (len(queue) >= READ_AHEAD or sum(exchange.size for exchange in queue) >= HIGH_WATER)

    # What the whole connection does

    def _exchange(self, method: bytes, url: bytes, lines: list[bytes]) -> Exchange:
        """A request whose head came."""
        raise NotImplementedError

    def _keep_ahead(self, data: bytes) -> None:
        """Bytes came that nothing here reads."""
        raise NotImplementedError

    def _refuse(self, refusal: Refusal) -> None:
        """No to the request being read, in its turn; nothing is read after it."""
        raise NotImplementedError
