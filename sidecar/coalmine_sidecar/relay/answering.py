"""An answer's way back to a client of HTTP/1.1, whoever gave it, and its entry in the books."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final

from .attempts import CANCELLED, CLIENT_ERROR, MODEL_ERROR, OK, REJECTED
from .detour import Failure
from .errors import error_answer
from .heads import first_line, without
from .reply import Reply
from .sending import JOINED, Sending
from .tunnel import Tunnel, reset
from .upstream import SWITCHING, Answer, UpstreamConnection

if TYPE_CHECKING:
    from .endpoints import Endpoint
    from .errors import Refusal
    from .question import Question

#: Content type of answers that are read while they pass.
_EVENTS: Final = b"text/event-stream"
#: Bytes of a model's own error that are kept while the fallback is asked.
KEPT_ERROR: Final = 65536
#: Seconds in which it has to be whole.
KEPT_WAIT: Final = 0.5


class Answering(Sending):
    """The second part of an exchange."""

    __slots__ = ("close", "refusal", "request_id", "trace")

    #: This answer is the connection's last.
    close: bool
    #: Why the request is not relayed.
    refusal: Refusal | None
    #: What the request is known by, and the trace it can be looked up in (as `trace.identified` has them). Only where
    #: requests come in: a sidecar that one is handed on to leaves both alone.
    request_id: bytes
    trace: bytes

    # What upstream connections call

    def hint(self, head: list[bytes]) -> None:
        # It answers nothing, so that somebody else still may.
        if self._reply is None and not self.http10:
            self.client.front.outbox.flush()
            self.client.transport.write(b"".join(head))

    def answer_arrived(self, connection: UpstreamConnection, answer: Answer, now: float) -> None:
        # All there is goes to the client in one write.
        out: list[bytes] = []
        reply = self._reply
        if reply is None:
            if answer.status >= 400 and self._falls_back(connection, answer, now):
                return
            reply = self._open_reply(answer, out)
        client = self.client
        pieces = answer.body
        reply.add(answer, out)
        if answer.complete and reply.size < JOINED:
            client.front.outbox.write(client.transport, b"".join(out))
        else:
            # A piece of a stream is somebody's token: it goes at once.
            client.front.outbox.flush()
            client.transport.writelines(out)
        if reply.follower is not None:
            reply.follower.feed(pieces, now)
        if answer.complete:
            self._upstream = None
            if client.paused:
                connection.transport.resume_reading()
            connection.release(now, reusable=self.held or self._uploaded)
            self._finish(answer, reply, now)
        else:
            client.watch(now + self.table.timeouts.idle)

    def switched(self, connection: UpstreamConnection, rest: bytes) -> None:
        answer = connection.answer
        if answer.status != SWITCHING:
            self.upstream_lost(connection, clean=False)
            return
        client = self.client
        front = client.front
        self._reply = Reply(answer, -1)
        self._count_fallback()
        self._judge(SWITCHING, monotonic())
        # No framing of ours: an answer of this status has no body.
        lines = without(answer.lines, {b"content-length"})
        offered = answer.special.upgrade if answer.special is not None else b""
        front.outbox.flush()
        client.transport.writelines((
            first_line(answer.status, answer.phrase),
            *lines,
            self._own_lines(answer),
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

    def upstream_lost(self, connection: UpstreamConnection, *, clean: bool) -> None:
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

    # Inside

    def _falls_back(self, connection: UpstreamConnection, answer: Answer, now: float) -> bool:
        """Whether an answer with a status of the fallback is withheld, for now or for good."""
        reason = answer.special.reason if answer.special is not None else b""
        failure = self._withheld(answer.status, reason, connection.endpoint, now)
        if failure is None:
            return False
        if not answer.complete and sum(map(len, answer.body)) < KEPT_ERROR:
            self.client.watch(min(self.client.deadline, now + KEPT_WAIT))
            return True
        self._upstream = None
        if answer.complete:
            connection.release(now, reusable=self.held)
            if failure is Failure.STATUS:
                self._keep(answer)
        else:
            connection.drop()
        if failure.kind:
            connection.endpoint.leave_out(now)
        self._failed(failure, None, now)
        return True

    def _pass_on(self, answer: Answer) -> None:
        out: list[bytes] = []
        reply = self._open_reply(answer, out)
        reply.add(answer, out)
        self.client.front.outbox.flush()
        self.client.transport.write(b"".join(out))
        self._finish(answer, reply, monotonic())

    def _own_lines(self, answer: Answer) -> bytes:
        """What an answer's head gets from us. A model that names the request itself is not contradicted."""
        if not self.client.front.announces:
            return b""
        line = self._target.line
        if self.table.asks is not None:
            line += self.table.asks.line(self, self.request_id)
        if not self.request_id or (answer.special is not None and answer.special.identified):
            return line
        return b"%bx-request-id: %b\r\n" % (line, self.request_id)

    def _open_reply(self, answer: Answer, out: list[bytes]) -> Reply:
        front = self.client.front
        target = self._target
        observed = answer.status == 200 and front.observer is not None and self.method != b"HEAD"
        self._reply = reply = Reply(answer, self.table.limits.observe_bytes if observed else -1)
        if reply.copy is not None and answer.content_type.startswith(_EVENTS) and front.observer is not None:
            follower = front.observer.follow(target.series, self.url, answer.content_type, self._started)
            if follower is not None:
                reply.follow(follower)
        self.close = reply.open(
            answer,
            self.method,
            out,
            line=self._own_lines(answer),
            http10=self.http10,
            close=self.close or not self.whole or front.draining,
        )
        if self.upgrade and not self.close:
            self.client.stay()
        if target is not self._chosen:
            self._count_fallback()
        return reply

    def _finish(self, answer: Answer, reply: Reply, now: float) -> None:
        """The whole answer is written; it came whole at `now`."""
        status = answer.status
        series = self._target.series
        observer = self.client.front.observer
        judged = status
        if reply.follower is not None:
            # An error inside a stream came too late for the status, and is one all the same.
            judged = reply.follower.end(self._cell, self._question()) or status
        elif observer is not None:
            copy = reply.copy
            if copy is not None:
                json_length = answer.special.json_length if answer.special is not None else None
                body = copy[0] if len(copy) == 1 else b"".join(copy)
                question = self._question() if self.table.asks is not None else None
                observer.offer(series, self._cell, self.url, answer.content_type, json_length, body, question)
            elif reply.skipped:
                observer.skip(series, reply.skipped)
            if self.table.mirror is not None and self._cell is not None and status == 200:
                self.table.mirror.offer(self, answer, self._target, reply)
        end = monotonic()
        duration = end - self._started
        if self._cell is not None:
            if judged < 500:
                self._cell.answered(judged, duration)
            else:
                self._cell.failed()
        outcome = OK if judged < 400 else CLIENT_ERROR if judged < 500 else MODEL_ERROR
        if answer.special is not None and answer.special.reason == Failure.QUEUE_FULL.reason:
            outcome = REJECTED
        elif self._target.breaker is not None:
            self._judge(judged, end)
        self._end(outcome, status, end, now)
        self.client.exchange_ended(self, end)

    def _question(self) -> Question | None:
        """What was asked, where that is monitored."""
        asks = self.table.asks
        if asks is None:
            return None
        return asks.question(self, self.body if self.held else None, self.size, self._started, self.request_id)

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
        client = self.client
        self._target.series.refused(who, status, why)
        extra = b"coalmine-reason: %s\r\n" % reason if reason else b""
        if self.request_id:
            extra += b"x-request-id: %b\r\n" % self.request_id
        if retry_after:
            extra += b"retry-after: %d\r\n" % retry_after
        if not self.whole or self.http10 or self.upgrade or client.front.draining:
            self.close = True
        bodyless = self.method == b"HEAD"
        client.front.outbox.flush()
        client.transport.write(
            error_answer(
                status,
                message,
                who,
                close=self.close,
                bodyless=bodyless,
                extra=extra,
                protocol=self.table.protocol,
                path=self.url,
                why=why,
            )
        )
        self._end(outcome, status)
        client.exchange_ended(self, monotonic())

    def _break(self, reply: Reply, outcome: int) -> None:
        """The answer can't be finished; its missing end tells the client so."""
        if outcome != CANCELLED:
            self._charge()
            self._judge(500, monotonic())
        self._end(outcome, reply.status)
        if reply.to_eof:
            # An orderly end would be the end of the body.
            reset(self.client.transport)
        self.client.abort()

    def _tunnel_ended(
        self, endpoint: Endpoint, answered: float, model_broke: bool, client_broke: bool, up: int, down: int
    ) -> None:
        """The revision is judged by the time until it took the upgrade (`answered`), not by how long they talked."""
        endpoint.left()
        self.size += up
        if self._reply is not None:
            self._reply.size += down
        if model_broke:
            self._charge()
            self._judge(500, monotonic())
        elif self._cell is not None:
            self._cell.answered(SWITCHING, answered)
        self._end(MODEL_ERROR if model_broke else CANCELLED if client_broke else OK, SWITCHING)

    def _end(self, outcome: int, code: int, now: float = 0.0, came: float = 0.0) -> None:
        """Close the books. `came`: when the answer was here as a whole, if it was."""
        now = now or monotonic()
        upstream = (came or now) - self._sent_at if self._sent_at else 0.0
        size = 0
        if self._reply is not None:
            size = self._reply.size
            if self._reply.follower is not None and not came:
                self._reply.follower.stop()
        series = self._target.series
        series.done(outcome, code, now - self._started, upstream, self.size, size, self.trace)
        series.in_flight -= 1
        self.ended = True
