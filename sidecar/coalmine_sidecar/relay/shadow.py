"""One copy of a request: its way to the canary, and the comparison of its answer with the one that the client got."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from ..protocols import comparable, disagreement, extract
from .attempts import CANCELLED, CLIENT_CLOSED, CLIENT_ERROR, MODEL_ERROR, OK, TIMEOUT
from .detour import Failure
from .heads import COLON, CRLF, MARK, find
from .sweeper import Timed

if TYPE_CHECKING:
    from .endpoints import Endpoint
    from .mirror import Mirroring
    from .sending import Sending
    from .upstream import Answer, UpstreamConnection

_GZIP: Final = b"\x1f\x8b"
#: Bytes up to which pieces are joined for one write.
_JOINED: Final = 65536


class Shadow(Timed):
    """To endpoints and upstream connections it is what an exchange is to them; it has no client.

    Everything of it, the connecting included, has as long as an answer's head of the primary.
    """

    __slots__ = (
        "_answered", "_body", "_connecting", "_head", "_mirroring", "_path", "_primary", "_received", "_request",
        "_sent_at", "_size", "_upstream", "method", "table", "upgrade",
    )  # fmt: skip

    def __init__(self, mirroring: Mirroring, exchange: Sending, answer: Answer, body: bytes) -> None:
        super().__init__()
        self.method = exchange.method
        self.upgrade = False
        self.table = exchange.table
        self._mirroring = mirroring
        self._path = exchange.url
        self._head = exchange.lines
        self._request = exchange.body
        self._size = exchange.size
        #: The client's answer: its type, the length of its JSON, and its body.
        json_length = answer.special.json_length if answer.special is not None else None
        self._primary = (answer.content_type, json_length, body)
        if exchange.length is None:
            self._head = [*self._head, b"content-length", COLON, b"%d" % exchange.size, CRLF]
        if exchange.http10 and find(self._head, b"host") is None:
            self._head = [*self._head, b"host", COLON, mirroring.target.name.encode(), CRLF]
        self._upstream: UpstreamConnection | None = None
        self._connecting: Endpoint | None = None
        self._sent_at = 0.0
        #: The copy's own answer, once it is whole, and the bytes of its body.
        self._answered: Answer | None = None
        self._body: list[bytes] = []
        self._received = 0
        copying = mirroring.copying
        copying.shadows.add(self)
        copying.bytes += self._size + len(body)
        copying.put_off(self)

    # What Copying calls

    def go_on(self) -> None:
        """Send the copy, or compare its answer: whatever is next."""
        if self not in self._mirroring.copying.shadows:
            return
        if self._answered is not None:
            self._compare(self._answered)
        else:
            self._begin()

    def drop(self, reason: str) -> None:
        """Nobody will know what the answer was."""
        if self._sent_at and self._answered is None:
            self._leave()
            self._count(CANCELLED, CLIENT_CLOSED)
        self._mirroring.counters.dropped[reason] += 1
        self._end()

    def expire(self, now: float) -> None:
        self._leave()
        self._fail(TIMEOUT)

    # What endpoints and upstream connections call

    def connected(self, connection: UpstreamConnection) -> None:
        if self._connecting is None:
            connection.endpoint.park(connection, monotonic())
            return
        self._connecting = None
        if connection.lost:
            connection.endpoint.left()
            self._fail(MODEL_ERROR)
        else:
            self._send(connection)

    def refused(self, endpoint: Endpoint, *, timed_out: bool) -> None:
        if self._connecting is not None:
            self._connecting = None
            endpoint.left()
            self._fail(TIMEOUT if timed_out else MODEL_ERROR)

    def pump(self) -> None:
        """The body was written with the head."""

    def hint(self, head: list[bytes]) -> None:
        """Nobody waits for interim answers."""

    def switched(self, connection: UpstreamConnection, rest: bytes) -> None:
        """Never offered, so never taken."""
        self.upstream_lost(connection, clean=False)

    def answer_arrived(self, connection: UpstreamConnection, answer: Answer, now: float) -> None:
        if answer.body:
            size = sum(map(len, answer.body))
            self._body += answer.body
            answer.body = []
            self._received += size
            copying = self._mirroring.copying
            copying.bytes += size
            if self._received > self._mirroring.observe_bytes:
                self.drop("size")
                return
            if copying.overfull:
                self.drop("bytes")
                return
        if answer.complete:
            self._upstream = None
            connection.release(now, reusable=True)
            status = answer.status
            self._count(OK if status < 400 else CLIENT_ERROR if status < 500 else MODEL_ERROR, status)
            self._mirroring.copying.sweeper.forget(self)
            self._answered = answer
            self._mirroring.copying.put_off(self)

    def upstream_lost(self, connection: UpstreamConnection, *, clean: bool) -> None:
        answer = connection.answer
        chunked = answer.special is not None and answer.special.chunked
        if clean and answer.status and answer.length is None and not chunked:
            answer.complete = True
            self.answer_arrived(connection, answer, monotonic())
            return
        stale = connection.used and not connection.fed
        endpoint = connection.endpoint
        self._leave()
        if stale and endpoint.gate is not None and not endpoint.gate.open:
            self.drop("busy")
        elif stale:
            # It was idle for too long: that says nothing of the model.
            self._connect(endpoint)
        else:
            self._fail(MODEL_ERROR)

    # Inside

    def _begin(self) -> None:
        mirroring = self._mirroring
        content_type, json_length, body = self._primary
        if body.startswith(_GZIP):
            self.drop("encoding")
            return
        primary = extract(mirroring.protocol, self._path, content_type, json_length, body)
        if not comparable(primary, mirroring.how.output):
            if primary.rows or primary.failures:
                self.drop("unreadable")
            else:
                self._end()  # no prediction: its metadata, an order to load a model
            return
        now = monotonic()
        target = mirroring.target
        endpoint = target.pick(now, mirroring.below)
        if endpoint is None:
            self.drop("no_endpoint")
            return
        if endpoint.gate is not None and not endpoint.gate.open:
            self.drop("busy")
            return
        mirroring.counters.requests += 1
        target.series.in_flight += 1
        self._sent_at = now
        mirroring.copying.sweeper.watch(self, now + mirroring.timeouts.response)
        connection = endpoint.take()
        if connection is None:
            self._connect(endpoint)
        else:
            endpoint.outstanding += 1
            self._send(connection)

    def _connect(self, endpoint: Endpoint) -> None:
        endpoint.outstanding += 1
        self._connecting = endpoint
        endpoint.connect(self, self._mirroring.timeouts.connect)

    def _send(self, connection: UpstreamConnection) -> None:
        connection.begin(self)
        self._upstream = connection
        request = [self.method, b" ", self._path, b" HTTP/1.1\r\n", *self._head, *MARK, CRLF, *self._request]
        outbox = self._mirroring.copying.outbox
        if self._size < _JOINED:
            outbox.write(connection.transport, b"".join(request))
        else:
            outbox.flush()
            connection.transport.writelines(request)

    def _compare(self, answer: Answer) -> None:
        mirroring = self._mirroring
        if answer.status != 200:
            if answer.special is not None and answer.special.reason == Failure.QUEUE_FULL.reason:
                self.drop("busy")  # the canary's sidecar turned it away; its model never saw it
            else:
                self._judge("status")
            return
        copied = b"".join(self._body)
        if (answer.special is not None and answer.special.coded) or copied.startswith(_GZIP):
            self.drop("encoding")
            return
        json_length = answer.special.json_length if answer.special is not None else None
        how = mirroring.how
        self._judge(
            disagreement(
                extract(mirroring.protocol, self._path, *self._primary),
                extract(mirroring.protocol, self._path, answer.content_type, json_length, copied),
                tolerance=how.tolerance,
                output=how.output,
                draw=mirroring.copying.draw(),
            )
        )

    def _fail(self, outcome: int) -> None:
        self._count(outcome, 504 if outcome == TIMEOUT else 502)
        self._judge("failed")

    def _judge(self, found: str) -> None:
        """Compared: `found` is one of DISAGREEMENTS, or empty."""
        counters, cell = self._mirroring.counters, self._mirroring.cell
        counters.compared += 1
        if cell is not None:
            cell.compared += 1
        if found:
            counters.disagreements[found] += 1
            if cell is not None:
                cell.disagreed += 1
        self._end()

    def _count(self, outcome: int, status: int) -> None:
        """The copy is answered, or will not be."""
        series = self._mirroring.target.series
        took = monotonic() - self._sent_at
        series.done(outcome, status, took, took, self._size, self._received)
        series.in_flight -= 1

    def _leave(self) -> None:
        if self._upstream is not None:
            self._upstream.drop()
            self._upstream = None
        if self._connecting is not None:
            self._connecting.left()
            self._connecting = None

    def _end(self) -> None:
        copying = self._mirroring.copying
        copying.sweeper.forget(self)
        if self in copying.shadows:
            copying.shadows.remove(self)
            copying.bytes -= self._size + len(self._primary[2]) + self._received
