"""One request's life: the attempts to have it answered, and the answer's way back.

The rule of the fallback: as long as not one byte of an answer is out and the request can be sent again, somebody
else may answer. A connection that never opened has consumed nothing, so trying again is always right. One that broke
or fell silent may have reached a model, so trying again takes a request that may be served twice (`idempotent`, or a
method that is so by definition).
"""

from __future__ import annotations

from functools import partial
from time import monotonic, time
from typing import TYPE_CHECKING, Final

from ..contract import OUTCOMES
from .detour import FORGIVEN, UNOPENED, Detour, Failure
from .errors import SIDECAR, UPSTREAM, Refusal, error_answer
from .heads import CHUNKED, CRLF, find, without
from .reply import Reply, first_line
from .trailers import last_chunk
from .tunnel import Tunnel, reset
from .upstream import SWITCHING, Answer, UpstreamConnection

if TYPE_CHECKING:
    from ..telemetry import EpochCell
    from .downstream import ClientConnection
    from .endpoints import Endpoint
    from .table import Table, Target

OK, CLIENT_ERROR, MODEL_ERROR, TIMEOUT, REJECTED, CANCELLED = range(len(OUTCOMES))

#: The client left before its answer was whole; nginx's number for it.
CLIENT_CLOSED: Final = 499
#: Bytes a second that a request's body has to come at on the whole, beyond the time for silence: who drips keeps a
#: connection, and a model's worker, for as long as somebody who sends nothing.
SLOWEST: Final = 500.0
#: Bytes of a model's own error that are kept while the fallback is asked.
KEPT_ERROR: Final = 65536
#: Seconds in which it has to be whole.
KEPT_WAIT: Final = 0.5
#: Bytes up to which pieces are joined for one write; longer ones are not worth the copy.
JOINED: Final = 65536
#: What a local sidecar says when its model refused: nothing was consumed, so another pod may be asked.
NEVER_OPENED: Final = b"refused"

_SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})


class Exchange:
    """A request from the end of its head to the end of its answer.

    Up to `limits.replay_bytes` the body is *held*: sent when it is whole, and kept to be sent again. A longer one is
    streamed as soon as its head is read.
    """

    __slots__ = (
        "_began", "_cell", "_chosen", "_connecting", "_detour", "_reply", "_sent", "_sent_at", "_started", "_target",
        "_uploaded", "_upstream", "body", "client", "close", "ended", "expect", "held", "http10",
        "ignores_upgrade", "length", "lines", "method", "queued", "refusal", "size", "table", "trailers", "upgrade",
        "url", "whole",
    )  # fmt: skip

    def __init__(self, client: ClientConnection, table: Table, method: bytes, url: bytes, lines: list[bytes]) -> None:
        self.client = client
        self.table = table
        self.method = method
        self.url = url
        self.lines = lines
        #: Content-Length; None for a chunked body.
        self.length: int | None = 0
        self.http10 = False
        self.expect = False
        self.ignores_upgrade = False
        #: The client offers another protocol, and the model is to say whether it takes it.
        self.upgrade = False
        #: This answer is the connection's last.
        self.close = False
        self.refusal: Refusal | None = None
        self.queued = False
        self.ended = False
        # The body: `size` counts the bytes read so far, `whole` says that no more will come.
        self.body: list[bytes] = []
        self.size = 0
        self.whole = False
        #: Header lines after a chunked body, to be passed on.
        self.trailers: list[bytes] = []
        self.held = True
        self._began = 0.0
        #: Bytes of the body went upstream that are no longer in `body`.
        self._sent = False
        self._uploaded = False
        # The attempts. `_target` is the revision asked now, `_chosen` the one that routing chose.
        self._started = 0.0
        self._target = self._chosen = table.own
        self._cell: EpochCell | None = None
        self._upstream: UpstreamConnection | None = None
        self._connecting: Endpoint | None = None
        self._sent_at = 0.0
        self._detour: Detour | None = None
        # The answer.
        #: Set with the first byte of an answer to the client; from then on nobody else can answer.
        self._reply: Reply | None = None

    # What the client's connection calls

    def start(self, now: float) -> None:
        self._started = now
        self._target.series.in_flight += 1
        if self.refusal is not None:
            self.refuse(self.refusal)
            return
        table = self.table
        if table.waiting:
            self._answer_error(503, "no routing file yet: try again soon", SIDECAR, REJECTED)
            return
        target, self._cell = table.route(self)
        if target is not self._target:
            self._move_to(target)
        self._chosen = target
        endpoint = target.pick(now, table.below)
        if endpoint is None:
            if target.unmet:
                self._cell = None
            self._failed(Failure.NO_ENDPOINT, None, now)
        else:
            self._attempt(endpoint, now)

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

    def refuse(self, refusal: Refusal) -> None:
        """Say no, before the request is sent or in the middle of its body."""
        self._drop_upstream()
        self.close = True
        if self._reply is not None:
            self._end(REJECTED, self._reply.status)
            self.client.abort()
        else:
            self._answer_error(refusal.status, str(refusal), SIDECAR, REJECTED)

    def cancel(self) -> None:
        """The client is gone: so is the reason for the model to go on."""
        if not self.ended:
            self._drop_upstream()
            self._end(CANCELLED, CLIENT_CLOSED)

    def pause_answer(self) -> None:
        if self._upstream is not None:
            self._upstream.transport.pause_reading()

    def resume_answer(self) -> None:
        if self._upstream is not None:
            self._upstream.transport.resume_reading()
            self.client.watch(monotonic() + self.table.timeouts.idle)

    def expire(self, now: float) -> None:
        """The deadline came: somebody was silent for too long."""
        upstream = self._upstream
        if upstream is None:
            # Connecting has a time limit of its own.
            self.client.watch(now + self.table.timeouts.connect)
        elif self._reply is not None:
            client_is_slow = self.client.paused
            self._drop_upstream()
            self._break(self._reply, CANCELLED if client_is_slow else TIMEOUT)
        elif not self.whole and not upstream.paused and not upstream.answer.status:
            self.refuse(Refusal(408, "the request's body did not come in time"))
        else:
            # A status without an end: the fallback does not wait for the rest of an error.
            failure = Failure.STATUS if upstream.answer.status else Failure.TIMEOUT
            self._drop_upstream()
            self._failed(failure, upstream.endpoint, now)

    # What endpoints and upstream connections call

    def connected(self, connection: UpstreamConnection) -> None:
        if self._connecting is None:
            # The client left meanwhile; the next request may use what it paid for.
            connection.endpoint.park(connection, monotonic())
            return
        self._connecting = None
        if connection.lost:
            connection.endpoint.outstanding -= 1
            self._failed(Failure.RESET, connection.endpoint, monotonic())
        else:
            self._send(connection, monotonic())

    def refused(self, endpoint: Endpoint, *, timed_out: bool) -> None:
        if self._connecting is not None:
            self._connecting = None
            endpoint.outstanding -= 1
            self._failed(Failure.CONNECT_TIMEOUT if timed_out else Failure.REFUSED, endpoint, monotonic())

    def upstream_lost(self, connection: UpstreamConnection, *, clean: bool) -> None:
        """The connection ended; `clean` says by an orderly end, which is how some answers end as well."""
        answer = connection.answer
        chunked = answer.special is not None and answer.special.chunked
        if clean and answer.status and answer.length is None and not chunked:
            answer.complete = True
            self.answer_arrived(connection, answer, monotonic())
            return
        self._drop_upstream()
        if self._reply is not None:
            self._break(self._reply, MODEL_ERROR)
        else:
            if answer.status:
                failure = Failure.STATUS
            else:
                failure = Failure.STALE if connection.used and not connection.fed else Failure.RESET
            self._failed(failure, connection.endpoint, monotonic())

    def hint(self, head: list[bytes]) -> None:
        """An interim answer. It answers nothing, so that somebody else still may."""
        if self._reply is None and not self.http10:
            self.client.front.outbox.flush()
            self.client.transport.write(b"".join(head))

    def switched(self, connection: UpstreamConnection, rest: bytes) -> None:
        """101: the model takes the protocol that the client offered. `rest` are its first bytes of it."""
        answer = connection.answer
        if answer.status != SWITCHING:
            self.upstream_lost(connection, clean=False)
            return
        client = self.client
        front = client.front
        self._reply = Reply(answer, -1)
        if self._target is not self._chosen:
            self._count_fallback()
        # No framing of ours: an answer of this status has no body.
        lines = without(answer.lines, {b"content-length"})
        offered = answer.special.upgrade if answer.special is not None else b""
        front.outbox.flush()
        client.transport.writelines((
            first_line(answer),
            *lines,
            self._target.line if front.announces else b"",
            b"connection: upgrade\r\nupgrade: %s\r\n\r\n" % offered,
            rest,
        ))  # fmt: skip
        self._upstream = None
        ahead = client.leave()
        if ahead:
            connection.transport.write(ahead)
        self.size = len(ahead)
        self._reply.size = len(rest)
        Tunnel(
            front,
            client.transport,
            connection.leave(),
            idle=self.table.timeouts.idle,
            ended=partial(self._tunnel_ended, connection.endpoint, monotonic() - self._started),
        )
        if not connection.paused:
            client.transport.resume_reading()

    def answer_arrived(self, connection: UpstreamConnection, answer: Answer, now: float) -> None:
        """The answer's head, or more of its body, or its end: all there is goes to the client in one write."""
        out: list[bytes] = []
        reply = self._reply
        if reply is None:
            if answer.status in self.table.statuses and self._falls_back(connection, answer, now):
                return
            reply = self._open_reply(answer, out)
        client = self.client
        reply.add(answer, out)
        if answer.complete and reply.size < JOINED:
            client.front.outbox.write(client.transport, b"".join(out))
        else:
            # A piece of a stream is somebody's token: it goes at once.
            client.front.outbox.flush()
            client.transport.writelines(out)
        if answer.complete:
            self._upstream = None
            if client.paused:
                connection.transport.resume_reading()
            connection.release(now, reusable=self.held or self._uploaded)
            self._finish(answer, reply, now)
        else:
            client.watch(now + self.table.timeouts.idle)

    # Attempts

    def _attempt(self, endpoint: Endpoint, now: float, *, fresh: bool = False) -> None:
        endpoint.outstanding += 1
        connection = None if fresh else endpoint.take()
        if connection is not None:
            self._send(connection, now)
            return
        self._connecting = endpoint
        endpoint.connect(self, self.table.timeouts.connect)

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

    def _failed(self, failure: Failure, endpoint: Endpoint | None, now: float) -> None:
        """An attempt came to nothing: somebody else of the revision, another revision, or an error."""
        telemetry = self.table.telemetry
        target = self._target
        if failure.kind:
            telemetry.connection_error(target.name, failure.kind)
        if failure not in FORGIVEN:
            self._charge()
        detour = self._search(endpoint)
        if detour.failure is None:
            detour.failure = failure
        if self._may_be_sent_again(failure):
            endpoint = detour.endpoint(target, failure, now)
            if endpoint is not None:
                telemetry.retry(target.name, failure.retry)
                self._attempt(endpoint, now, fresh=True)
                return
            other = detour.revision(target, self._chosen, failure, now)
            if other is not None:
                detour.give_up(target)
                if other[0] is target:
                    telemetry.retry(target.name, failure.retry)
                if other[0] is not self._chosen:
                    self._charge()
                self._move_to(other[0])
                self._attempt(other[1], now)
                return
        self._charge()
        self._give_up(failure, detour)

    def _search(self, endpoint: Endpoint | None) -> Detour:
        """The search for somebody else, `endpoint` being one that failed."""
        if self._detour is None:
            self._detour = Detour(self.table, self._started)
        if endpoint is not None:
            self._detour.tried(endpoint)
        return self._detour

    def _may_be_sent_again(self, failure: Failure) -> bool:
        if self._sent:
            return False
        if failure in UNOPENED or failure is Failure.STATUS:
            return True
        return self.table.idempotent or self.method in _SAFE

    def _falls_back(self, connection: UpstreamConnection, answer: Answer, now: float) -> bool:
        """Whether an answer with a status of the fallback is withheld, for now or for good."""
        unopened = answer.special is not None and answer.special.reason == NEVER_OPENED
        failure = Failure.STATUS
        if unopened:
            failure = Failure.CONNECT_TIMEOUT if answer.status == 504 else Failure.REFUSED
        detour = self._search(connection.endpoint)
        target = self._target
        if not self._may_be_sent_again(failure) or not (
            detour.endpoint(target, failure, now) or detour.revision(target, self._chosen, failure, now)
        ):
            return False
        if not answer.complete and sum(map(len, answer.body)) < KEPT_ERROR:
            self.client.watch(min(self.client.deadline, now + KEPT_WAIT))
            return True
        self._upstream = None
        if answer.complete:
            connection.release(now, reusable=self.held)
            if detour.kept is None and not unopened:
                detour.kept = (answer, target)
        else:
            connection.drop()
        if unopened:
            connection.endpoint.leave_out(now)
        self._failed(failure, None, now)
        return True

    def _give_up(self, failure: Failure, detour: Detour) -> None:
        if detour.kept is None:
            if self._target is not self._chosen:
                self._move_to(self._chosen)
            outcome = TIMEOUT if failure.status == 504 else MODEL_ERROR
            reason = NEVER_OPENED if failure in UNOPENED else failure.fallback.encode()
            message = f"{self._chosen.name}: {failure.message}"
            self._answer_error(failure.status, message, UPSTREAM, outcome, b"coalmine-reason: %s\r\n" % reason)
            return
        # The model's own words say more than ours would.
        answer, target = detour.kept
        if target is not self._target:
            self._move_to(target)
        out: list[bytes] = []
        reply = self._open_reply(answer, out)
        reply.add(answer, out)
        self.client.front.outbox.flush()
        self.client.transport.write(b"".join(out))
        self._finish(answer, reply, monotonic())

    def _move_to(self, target: Target) -> None:
        self._target.series.in_flight -= 1
        target.series.in_flight += 1
        self._target = target

    def _drop_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream.drop()
            self._upstream = None
        if self._connecting is not None:
            self._connecting.outstanding -= 1
            self._connecting = None

    def _charge(self) -> None:
        """The revision chosen failed this request, whoever answers it; once."""
        if self._cell is not None:
            self._cell.failed()
            self._cell = None

    # The answer

    def _open_reply(self, answer: Answer, out: list[bytes]) -> Reply:
        front = self.client.front
        target = self._target
        observed = answer.status == 200 and front.observer is not None and self.method != b"HEAD"
        self._reply = reply = Reply(answer, self.table.limits.observe_bytes if observed else -1)
        self.close = reply.open(
            answer,
            self.method,
            out,
            line=target.line if front.announces else b"",
            http10=self.http10,
            close=self.close or not self.whole or front.draining,
        )
        if self.upgrade and not self.close:
            self.client.stay()
        if target is not self._chosen:
            self._count_fallback()
        return reply

    def _count_fallback(self) -> None:
        if self._detour is not None and self._detour.failure is not None:
            self.table.telemetry.fallback(self._chosen.name, self._target.name, self._detour.failure.fallback)

    def _finish(self, answer: Answer, reply: Reply, now: float) -> None:
        """The whole answer is written; it came whole at `now`."""
        status = answer.status
        series = self._target.series
        observer = self.client.front.observer
        if observer is not None:
            copy = reply.copy
            body = None
            if copy is not None:
                json_length = answer.special.json_length if answer.special is not None else None
                body = copy[0] if len(copy) == 1 else b"".join(copy)
                observer.offer(series, self._cell, self.url, answer.content_type, json_length, body)
            elif reply.skipped:
                observer.skip(series, reply.skipped)
            mirror = self.table.mirror
            if mirror is not None and self._cell is not None and status == 200:
                mirror.offer(self, answer, self._target, body, reply.skipped)
        end = monotonic()
        duration = end - self._started
        if self._cell is not None:
            if status < 500:
                self._cell.answered(status, duration)
            else:
                self._cell.failed()
        outcome = OK if status < 400 else CLIENT_ERROR if status < 500 else MODEL_ERROR
        series.done(outcome, status, duration, now - self._sent_at, self.size, reply.size)
        series.in_flight -= 1
        self.ended = True
        self.client.exchange_ended(self, end)

    def _answer_error(self, status: int, message: str, blame: bytes, outcome: int, extra: bytes = b"") -> None:
        client = self.client
        if not self.whole or self.http10 or self.upgrade or client.front.draining:
            self.close = True
        bodyless = self.method == b"HEAD"
        client.front.outbox.flush()
        client.transport.write(error_answer(status, message, blame, close=self.close, bodyless=bodyless, extra=extra))
        self._end(outcome, status)
        client.exchange_ended(self, monotonic())

    def _break(self, reply: Reply, outcome: int) -> None:
        """The answer can't be finished; its missing end tells the client so."""
        if outcome != CANCELLED:
            self._charge()
        self._end(outcome, reply.status)
        if reply.to_eof:
            # An orderly end would be the end of the body.
            reset(self.client.transport)
        self.client.abort()

    def _tunnel_ended(
        self, endpoint: Endpoint, answered: float, model_broke: bool, client_broke: bool, up: int, down: int
    ) -> None:
        """The revision is judged by the time until it took the upgrade (`answered`), not by how long they talked."""
        endpoint.outstanding -= 1
        self.size += up
        if self._reply is not None:
            self._reply.size += down
        if model_broke:
            self._charge()
        elif self._cell is not None:
            self._cell.answered(SWITCHING, answered)
        self._end(MODEL_ERROR if model_broke else CANCELLED if client_broke else OK, SWITCHING)

    def _end(self, outcome: int, code: int) -> None:
        now = monotonic()
        upstream = now - self._sent_at if self._sent_at else 0.0
        size = self._reply.size if self._reply is not None else 0
        self._target.series.done(outcome, code, now - self._started, upstream, self.size, size)
        self._target.series.in_flight -= 1
        self.ended = True
