"""A request of HTTP/1.1: its head, its body, and their way to whoever is asked."""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING, Final

from .attempts import Attempts
from .detour import UNOPENED, Failure
from .errors import Refusal
from .heads import CHUNKED, CRLF, find
from .trailers import last_chunk
from .upstream import Answer

if TYPE_CHECKING:
    from .downstream import ClientConnection
    from .endpoints import Endpoint
    from .reply import Reply
    from .upstream import UpstreamConnection

#: Bytes a second that a request's body has to come at on the whole, beyond the time for silence: who drips keeps a
#: connection, and a model's worker, for as long as somebody who sends nothing.
SLOWEST: Final = 500.0
#: Bytes up to which pieces are joined for one write; longer ones are not worth the copy.
JOINED: Final = 65536

_SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})


class Sending(Attempts[Answer]):
    """The first part of an exchange.

    Up to `limits.replay_bytes` the body is *held*: sent when it is whole, and kept to be sent again. A longer one is
    streamed as soon as its head is read.
    """

    __slots__ = (
        "_began", "_connecting", "_reply", "_sent", "_sent_at", "_uploaded", "_upstream", "body", "client", "ended",
        "expect", "held", "http10", "ignores_upgrade", "length", "lines", "method", "size", "trailers", "upgrade",
        "url", "whole",
    )  # fmt: skip

    client: ClientConnection
    method: bytes
    url: bytes
    lines: list[bytes]
    #: Content-Length; None for a chunked body.
    length: int | None
    http10: bool
    expect: bool
    ignores_upgrade: bool
    #: The client offers another protocol, and the model is to say whether it takes it.
    upgrade: bool
    # The body: `size` counts the bytes read so far, `whole` says that no more will come.
    body: list[bytes]
    size: int
    whole: bool
    held: bool
    #: Header lines after a chunked body, to be passed on.
    trailers: list[bytes]
    #: When the body began to come.
    _began: float
    #: Bytes of the body went upstream that are no longer in `body`.
    _sent: bool
    _uploaded: bool
    _upstream: UpstreamConnection | None
    _connecting: Endpoint | None
    _sent_at: float
    #: Set with the first byte of an answer to the client; from then on nobody else can answer.
    _reply: Reply | None
    ended: bool

    def lookup(self, name: bytes) -> bytes | None:
        return find(self.lines, name)

    def take(self, data: bytes) -> None:
        """A piece of the request's body. Raises Refusal where it grows too long."""
        self.body.append(data)
        self.size += len(data)
        limits = self.table.limits
        if self.size > limits.body_bytes:
            raise Refusal(413, f"the body is longer than {limits.body_bytes} bytes")
        if self.size > limits.replay_bytes:
            self.held = False

    def pump(self) -> None:
        """Send on what has come of a streamed body; the client is not read faster than upstream takes it."""
        upstream = self._upstream
        if self.held or self.ended or self._uploaded:
            return
        if upstream is None:
            self.client.block_upload(True)
            return
        body = self.body
        if body:
            self.body = []
            self._sent = True
            if self.length is None:
                body = [b"%x\r\n" % sum(map(len, body)), *body, CRLF]
            self.client.front.outbox.flush()
            upstream.transport.writelines(body)
        now = monotonic()
        deadline = self.body_deadline(now)
        if self.whole:
            self._uploaded = True
            deadline = now + self.table.timeouts.response
            if self.length is None:
                upstream.transport.write(last_chunk(self.trailers))
        elif self._reply is not None:
            # A conversation goes at its own pace.
            deadline = now + self.table.timeouts.idle
        self.client.block_upload(upstream.paused and not self.whole)
        self.client.watch(deadline)

    def body_deadline(self, now: float) -> float:
        """When more of the body has to be here: it may neither pause for long nor drip."""
        if not self._began:
            self._began = now
        idle = self.table.timeouts.idle
        return min(now, self._began + self.size / SLOWEST) + idle

    # What endpoints call

    def connected(self, connection: UpstreamConnection) -> None:
        if self._connecting is None:
            # The client left meanwhile; the next request may use what it paid for.
            connection.endpoint.park(connection, monotonic())
            return
        self._connecting = None
        if connection.lost:
            connection.endpoint.left()
            self._failed(Failure.RESET, connection.endpoint, monotonic())
        else:
            self._send(connection, monotonic())

    def refused(self, endpoint: Endpoint, *, timed_out: bool) -> None:
        if self._connecting is not None:
            self._connecting = None
            endpoint.left()
            self._failed(Failure.CONNECT_TIMEOUT if timed_out else Failure.REFUSED, endpoint, monotonic())

    # What upstream connections call, once the request is sent

    def hint(self, head: list[bytes]) -> None:
        """An interim answer."""
        raise NotImplementedError

    def answer_arrived(self, connection: UpstreamConnection, answer: Answer, now: float) -> None:
        """The answer's head, or more of its body, or its end."""
        raise NotImplementedError

    def switched(self, connection: UpstreamConnection, rest: bytes) -> None:
        """101: the model takes the protocol that the client offered. `rest` are its first bytes of it."""
        raise NotImplementedError

    def upstream_lost(self, connection: UpstreamConnection, *, clean: bool) -> None:
        """The connection ended; `clean` says by an orderly end, which is how some answers end as well."""
        raise NotImplementedError

    # Inside

    def _ask(self, endpoint: Endpoint, now: float, *, fresh: bool = False) -> None:
        endpoint.outstanding += 1
        connection = None if fresh else endpoint.take()
        if connection is not None:
            self._send(connection, now)
            return
        self._connecting = endpoint
        endpoint.connect(self, self.table.timeouts.connect)

    def _watch_queue(self, deadline: float) -> None:
        self.client.watch(deadline)

    def _send(self, connection: UpstreamConnection, now: float) -> None:
        connection.begin(self)
        self._upstream = connection
        self._sent_at = now
        self._target.series.last_routed = time()
        head = [self.method, b" ", self.url, b" HTTP/1.1\r\n", *self.lines]
        if self.http10 and find(self.lines, b"host") is None:
            head.append(b"host: %s\r\n" % str(connection.endpoint).encode())
        in_chunks = False
        if self.length is None:
            # A chunked body that was held has a length by now, which every server understands.
            in_chunks = not self.held or bool(self.trailers)
            head.append(CHUNKED if in_chunks else b"content-length: %d\r\n" % self.size)
        head.append(CRLF)
        if self.held:
            if in_chunks and self.size:
                head += (b"%x\r\n" % self.size, *self.body, CRLF)
            else:
                head += self.body
            if in_chunks:
                head.append(last_chunk(self.trailers))
            if self.size < JOINED:
                self.client.front.outbox.write(connection.transport, b"".join(head))
            else:
                self.client.front.outbox.flush()
                connection.transport.writelines(head)
            self.client.watch(now + self.table.timeouts.response)
        else:
            self.client.front.outbox.flush()
            connection.transport.write(b"".join(head))
            self.pump()

    @property
    def _kept_whole(self) -> bool:
        return not self._sent

    def _may_be_sent_again(self, failure: Failure) -> bool:
        if self._sent:
            return False
        if failure in UNOPENED or failure is Failure.STATUS:
            return True
        return self.table.idempotent or self.method in _SAFE

    def _drop_upstream(self) -> None:
        if self._upstream is not None:
            upstream, self._upstream = self._upstream, None
            upstream.drop()
        if self._connecting is not None:
            endpoint, self._connecting = self._connecting, None
            endpoint.left()
        self._stop_waiting()
