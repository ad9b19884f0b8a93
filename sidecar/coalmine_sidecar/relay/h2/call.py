"""One call's life: the attempts to have it answered, and the answer's way back.

A call's request goes on as it comes, since it may be a conversation; what went is kept to be sent
again while it is within `limits.replay_bytes` and no answer has begun.
"""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING, Final

from ...telemetry.refusals import reason_of
from ..attempts import CANCELLED, CLIENT_CLOSED, MODEL_ERROR, REJECTED, TIMEOUT, Attempts
from ..detour import UNOPENED, Failure
from ..errors import SIDECAR, UPSTREAM, refusal_fields
from ..sweeper import NEVER
from ..trace import identified_fields
from .fields import Field, Fields, find
from .frames import CANCEL, INTERNAL_ERROR, NO_ERROR, REFUSED_STREAM
from .model import Channel, ModelLink
from .status import (
    MessageBound,
    counted,
    error_fields,
    error_trailers,
    is_grpc,
    outcome,
    timeout_of,
    timeout_text,
)

if TYPE_CHECKING:
    from ..endpoints import Endpoint
    from ..table import Table
    from .client import ClientLink
    from .stream import Stream

#: Bytes of requests kept for sending them again, of all calls of a client's connection.
MAX_KEPT: Final = 8 << 20
#: Names that only the relay writes, and what is meant for the next hop only.
_DROPPED: Final = frozenset({
    b"coalmine-reason", b"coalmine-revision", b"coalmine-shadow", b"proxy-authenticate", b"proxy-authorization",
})  # fmt: skip
_INFER: Final = b"/inference.GRPCInferenceService/ModelInfer"
_REVISION: Final = b"coalmine-revision"
_REQUEST_ID: Final = b"x-request-id"


class Call(Attempts[Fields]):
    """A request from the end of its head to the end of its answer: `down` is the client's stream."""

    __slots__ = (
        "_answer_credited", "_answer_size", "_asked", "_bound", "_channel", "_client_deadline", "_connecting", "_copy",
        "_credited", "_done", "_down", "_fields", "_grpc", "_http_status", "_kept", "_no_room", "_queue_deadline",
        "_request_id", "_sent_at", "_size", "_skipped", "_status", "_trace", "_trailers", "_turned_away", "_up",
        "_up_sent", "_whole", "answering", "client", "deadline", "wake",
    )  # fmt: skip

    def __init__(self, client: ClientLink, down: Stream, table: Table, fields: Fields) -> None:
        self.deadline = self.wake = NEVER
        self.client = client
        self.table = table
        self._down = down
        self._fields = fields
        self._grpc = is_grpc(fields)
        self._request_id = self._trace = b""
        if client.front.ids is not None:
            self._fields, self._request_id, self._trace = identified_fields(fields, client.front.ids, table.new_trace)
        self._started = now = monotonic()
        seconds = timeout_of(find(fields, b"grpc-timeout"))
        self._client_deadline = NEVER if seconds is None else now + seconds
        # The request: `_kept` is all of it that has come, None once it is too long to be kept.
        self._kept: list[bytes] | None = []
        self._size = self._credited = 0
        self._bound = MessageBound(table.limits.body_bytes) if self._grpc else None
        self._whole = down.remote_closed
        self._trailers: Fields | None = None
        self._target = self._chosen = table.own
        self._cell = None
        self._channel: Channel | None = None
        self._connecting: Channel | None = None
        self._waits_at = None
        self._queue_deadline = NEVER
        self._up: Stream | None = None
        self._up_sent = 0
        self._sent_at = 0.0
        self._detour = None
        self._turned_away = False
        # The answer.
        #: Something of it is out: nobody else can answer any more.
        self.answering = False
        self._http_status = 0
        #: What the whole answer counts as; 0 until its end has come.
        self._status = 0
        #: It is a sidecar's word that the queue of its model is full.
        self._no_room = False
        self._answer_size = self._answer_credited = 0
        self._copy: list[bytes] | None = None
        #: The request's body, for who reads it with its answer.
        self._asked: list[bytes] | None = None
        self._skipped = ""
        self._done = False

    # What the client's connection calls

    def start(self) -> None:
        self._target.series.in_flight += 1
        self._begin(self._started)

    def lookup(self, name: bytes) -> bytes | None:
        # A browser's cookies may come in pieces (RFC 9113, 8.2.3).
        if name == b"cookie":
            return b"; ".join(value for key, value in self._fields if key == name) or None
        return find(self._fields, b":authority" if name == b"host" else name)

    def request_data(self, data: bytes, *, end: bool) -> None:
        self._size += len(data)
        self._whole = end
        if self._bound is not None and self._bound.passed(data):
            self._refuse(413, f"a message is longer than {self.table.limits.body_bytes} bytes")
            return
        if data and self._kept is not None:
            self._kept.append(data)
            self.client.kept += len(data)
        if self._up is not None:
            self._up.send_data(data, end=end)
            self._keep_within_bounds()
            if end:
                self._watch(monotonic())

    def request_trailers(self, fields: Fields) -> None:
        self._whole = True
        self._trailers = fields
        if self._up is not None:
            self._up.finish(fields)
            self._watch(monotonic())

    def cancel(self) -> None:
        """The client is gone, or no longer wants it."""
        if not self._done:
            self._drop_up()
            self._end(CANCELLED, CLIENT_CLOSED)

    def answer_sent(self, size: int) -> None:
        """Bytes of the answer's body are on their way to the client: the model may send as many again."""
        self._answer_credited += size
        if self._up is not None:
            self._up.credit(size)
        if self._status and self._down.local_closed:
            self._finish()

    def expire(self, now: float) -> None:
        if now >= self._client_deadline:
            self._drop_up()
            self._charge()
            if self.answering:
                self._break(504, "the deadline is over", SIDECAR, TIMEOUT, why="deadline")
            else:
                self._answer_error(504, "the deadline is over", SIDECAR, TIMEOUT, why="deadline")
        elif self._waits_at is not None:
            if now >= self._queue_deadline:
                self._waited_too_long(now)
            else:
                self._watch_queue(self._queue_deadline)
        elif self._up is not None and not self.answering and self._whole:
            channel = self._channel
            self._drop_up()
            self._failed(Failure.TIMEOUT, channel, now)
        else:
            self._watch(now)

    # What channels and their connections call

    def connected(self, link: ModelLink) -> None:
        self._connecting = None
        self._send(link, monotonic())

    def refused(self, channel: Channel, *, timed_out: bool) -> None:
        self._connecting = None
        channel.left()
        self._failed(Failure.CONNECT_TIMEOUT if timed_out else Failure.REFUSED, channel, monotonic())

    def request_sent(self, stream: Stream, size: int) -> None:
        """Bytes of the request's body are on their way. Those sent for a second time were credited before."""
        if stream is self._up:
            self._up_sent += size
            fresh = self._up_sent - self._credited
            if fresh > 0:
                self._credited += fresh
                self._down.credit(fresh)

    def answer_headers(self, fields: Fields, *, end: bool) -> None:
        http_status = int(find(fields, b":status") or b"0")
        if http_status < 200 and not end:
            return  # A hint the client can do without.
        grpc_status = find(fields, b"grpc-status")
        status = counted(grpc_status, http_status) if end else http_status
        if status >= 400 and self._falls_back(fields, status, end=end):
            return
        self._http_status = http_status
        self._open_reply(fields, end=end)
        if end:
            self._answered(fields)

    def answer_data(self, data: bytes, *, end: bool) -> None:
        self._answer_size += len(data)
        if self._copy is not None:
            self._copy.append(data)
            if self._answer_size > self.table.limits.observe_bytes:
                self._copy = None
                self._skipped = "size"
        if end:
            self._status = 500 if self._grpc else self._http_status
        self._down.send_data(data, end=end)
        if end and not self._done and self._down.local_closed:
            self._finish()

    def answer_trailers(self, fields: Fields) -> None:
        self._down.finish(fields)
        self._answered(fields)

    def answer_reset(self, stream: Stream, code: int) -> None:
        """The stream, or the connection it was on, ended before the answer did."""
        if stream is not self._up or self._status:
            return
        channel = self._channel
        self._drop_up()
        if self.answering:
            self._charge()
            self._break(502, f"{self._target.name}: the model broke off its answer", UPSTREAM, MODEL_ERROR, why="reset")
            return
        # Turned away unread (RFC 9113, 8.7): the same pod by another connection, once.
        stale = code == REFUSED_STREAM and not self._turned_away
        self._turned_away = self._turned_away or stale
        self._failed(Failure.STALE if stale else Failure.RESET, channel, monotonic())

    # Attempts

    def _ask(self, endpoint: Endpoint, now: float, *, fresh: bool = False) -> None:
        if not isinstance(endpoint, Channel):
            raise TypeError("a view's endpoints are channels")
        endpoint.outstanding += 1
        self._channel = endpoint
        link = endpoint.link()
        if link is not None:
            self._send(link, now)
            return
        self._connecting = endpoint
        if not endpoint.open(self, self.table.timeouts.connect):
            self._connecting = None
            endpoint.left()
            self._failed(Failure.REFUSED, endpoint, now)

    def _watch_queue(self, deadline: float) -> None:
        self._queue_deadline = deadline
        self.client.sweeper.watch(self, min(self._client_deadline, deadline))

    def _send(self, link: ModelLink, now: float) -> None:
        self._up = up = link.open(self)
        self._up_sent = 0
        self._sent_at = now
        self._target.series.last_routed = time()
        kept = self._kept or ()
        nothing_follows = self._whole and not kept and self._trailers is None
        up.send_headers(self._request_fields(now), end=nothing_follows)
        if not nothing_follows:
            for piece in tuple(kept):
                up.send_data(piece)
            if self._whole:
                up.finish(self._trailers)
        self._keep_within_bounds()
        self._watch(now)

    def _request_fields(self, now: float) -> Fields:
        fields = [field for field in self._fields if field[0] not in _DROPPED]
        if self._detour is not None and self._client_deadline != NEVER:
            # A part of the deadline went by at somebody else's.
            left = timeout_text(self._client_deadline - now)
            fields = [(name, left if name == b"grpc-timeout" else value) for name, value in fields]
        return fields

    def _keep_within_bounds(self) -> None:
        """What has gone upstream need not be kept, unless it may have to be sent again."""
        if self._kept is not None and (
            self.answering or self._size > self.table.limits.replay_bytes or self.client.kept > MAX_KEPT
        ):
            self._keep_no_more()

    def _keep_no_more(self) -> None:
        if self._kept is not None:
            self.client.kept -= sum(map(len, self._kept))
            self._kept = None

    def _watch(self, now: float) -> None:
        """The model has `timeouts.response` from the end of the request; a conversation has no such end.

        Silence inside an answer is no failure in gRPC (a watched health is silent for days); the connections find
        out by PING whether their peers are there.
        """
        waits = self._whole and self._up is not None and not self.answering
        deadline = min(self._client_deadline, now + self.table.timeouts.response if waits else NEVER)
        self.client.sweeper.watch(self, deadline)

    @property
    def _kept_whole(self) -> bool:
        return self._kept is not None

    def _may_be_sent_again(self, failure: Failure) -> bool:
        if self._kept is None:
            return False
        return failure in UNOPENED or failure in (Failure.STATUS, Failure.STALE) or self.table.idempotent

    def _falls_back(self, fields: Fields, status: int, *, end: bool) -> bool:
        """Whether an answer with a status of the fallback is withheld."""
        now = monotonic()
        if status == 504 and now >= self._client_deadline:
            return False
        channel = self._channel
        failure = self._withheld(status, find(fields, b"coalmine-reason") or b"", channel, now)
        if failure is None:
            return False
        if end and failure is Failure.STATUS:
            self._keep(fields)
        self._drop_up()
        if failure.kind and channel is not None:
            channel.leave_out(now)
        self._failed(failure, None, now)
        return True

    def _pass_on(self, answer: Fields) -> None:
        self._http_status = int(find(answer, b":status") or b"0")
        self._open_reply(answer, end=True)
        self._answered(answer)

    def _drop_up(self) -> None:
        """Give up the attempt under way: the model learns of it by a reset of the stream."""
        up = self._up
        if up is not None:
            self._up = None
            up.call = None
            # What came and was not passed on holds no window any more.
            up.link.credit(self._answer_size - self._answer_credited)
            self._answer_credited = self._answer_size
            up.reset(CANCEL)
            if self._channel is not None:
                self._channel.left()
        if self._connecting is not None:
            self._connecting.forget(self)
            channel, self._connecting = self._connecting, None
            channel.left()
        self._stop_waiting()

    # The answer

    def _open_reply(self, fields: Fields, *, end: bool) -> None:
        front = self.client.front
        target = self._target
        self.answering = True
        asked = self._kept
        self._keep_no_more()
        out: list[Field] = [field for field in fields if field[0] not in _DROPPED]
        if front.announces:
            out.append((_REVISION, target.name.encode()))
            if find(fields, _REQUEST_ID) is None:
                out.append((_REQUEST_ID, self._request_id))
        self._count_fallback()
        if front.observer is not None and self._grpc and not end and find(self._fields, b":path") == _INFER:
            self._copy = []
            if self.table.asks is not None:
                self._asked = asked
                if field := self.table.asks.field(self, self._request_id):
                    out.append(field)
        self._down.send_headers(out, end=end)
        self._watch(monotonic())

    def _answered(self, fields: Fields) -> None:
        """The end of the answer has come, and is queued for the client."""
        grpc_status = find(fields, b"grpc-status")
        self._status = 500 if self._grpc and grpc_status is None else counted(grpc_status, self._http_status)
        self._no_room = self._status >= 500 and find(fields, b"coalmine-reason") == Failure.QUEUE_FULL.reason
        if self._down.local_closed:
            self._finish()

    def _finish(self) -> None:
        """The whole answer is with the client's connection."""
        now = monotonic()
        status = self._status
        if not self._no_room:
            self._judge(status, now)
        if self._cell is not None:
            if status < 500:
                self._cell.answered(status, now - self._started)
            else:
                self._cell.failed()
        if status == 200:
            self._offer()
        self._drop_up()
        self._end(REJECTED if self._no_room else outcome(status), status, now)
        self.client.answered()

    def _offer(self) -> None:
        observer = self.client.front.observer
        if observer is None:
            return
        series = self._target.series
        if self._copy:
            body = b"".join(self._copy)
            if body[0]:
                observer.skip(series, "encoding")
            else:
                question = None
                if self.table.asks is not None:
                    question = self.table.asks.question(self, self._asked, self._size, self._started, self._request_id)
                observer.offer(series, self._cell, _INFER, b"application/grpc", None, body, question)
            mirror = self.table.mirror
            if mirror is not None and self._cell is not None:
                mirror.pass_over(self._target.name)
        elif self._skipped:
            observer.skip(series, self._skipped)

    def _answer_error(
        self,
        status: int,
        message: str,
        who: bytes,
        outcome: int,
        *,
        why: str,
        reason: bytes = b"",
        retry_after: int = 0,
    ) -> None:
        self._target.series.refused(who, status, why)
        if self._grpc:
            fields, body = error_fields(status, message, who), b""
        else:
            path = find(self._fields, b":path") or b""
            fields, body = refusal_fields(self.table.protocol, path, status, message, who, why)
            fields.insert(0, (b":status", b"%d" % status))
        if reason:
            fields.append((b"coalmine-reason", reason))
        if self._request_id:
            fields.append((_REQUEST_ID, self._request_id))
        if retry_after and self._grpc:
            # gRFC A6: what Retry-After is to HTTP.
            fields.append((b"grpc-retry-pushback-ms", b"%d" % (retry_after * 1000)))
        elif retry_after:
            fields.append((b"retry-after", b"%d" % retry_after))
        self.answering = True
        self._down.send_headers(fields, end=not body)
        if body:
            self._down.send_data(body, end=True)
        self._end(outcome, status)

    def _refuse(self, status: int, message: str) -> None:
        """Say no, in the middle of the request."""
        self._drop_up()
        if self.answering:
            self._break(status, message, SIDECAR, REJECTED, why=reason_of(status))
        else:
            self._answer_error(status, message, SIDECAR, REJECTED, why=reason_of(status))

    def _break(self, status: int, message: str, who: bytes, result: int, *, why: str) -> None:
        """The answer can't be finished: gRPC has trailers to say so, others see the stream reset."""
        if self._grpc and not self._down.local_closed:
            self._target.series.refused(who, status, why)
            self._down.finish([*error_trailers(status, message), (b"coalmine-error", who)])
        else:
            self._down.reset(INTERNAL_ERROR)
        if result in (MODEL_ERROR, TIMEOUT):
            self._judge(status, monotonic())
        self._end(result, status)

    def _end(self, result: int, code: int, now: float = 0.0) -> None:
        now = now or monotonic()
        self._done = True
        self._keep_no_more()
        down = self._down
        down.call = None
        # The client need not go on sending; what it sent and nobody read holds no window any more.
        down.link.credit(self._size - self._credited)
        self._credited = self._size
        if down.local_closed and not down.remote_closed:
            down.reset(NO_ERROR)
        self.client.sweeper.forget(self)
        upstream = now - self._sent_at if self._sent_at else 0.0
        series = self._target.series
        series.done(result, code, now - self._started, upstream, self._size, self._answer_size, self._trace)
        series.in_flight -= 1
