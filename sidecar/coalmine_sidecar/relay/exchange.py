"""One request's life over HTTP/1.1: what happens to it, from the end of its head to the end of its answer.

It is made in parts, each on top of the one before: `attempts` (who is asked), `sending` (the request's way there),
`answering` (the answer's way back). One object, since there is one for each request.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from .answering import Answering
from .attempts import CANCELLED, CLIENT_CLOSED, REJECTED, TIMEOUT
from .detour import Failure
from .errors import SIDECAR, Refusal

if TYPE_CHECKING:
    from .downstream import ClientConnection
    from .table import Table


class Exchange(Answering):
    __slots__ = ("queued",)

    #: Stands in its connection's queue, or did.
    queued: bool

    def __init__(self, client: ClientConnection, table: Table, method: bytes, url: bytes, lines: list[bytes]) -> None:
        self.client = client
        self.table = table
        self.method = method
        self.url = url
        self.lines = lines
        self.length = 0
        self.http10 = False
        self.expect = False
        self.ignores_upgrade = False
        self.upgrade = False
        self.close = False
        self.refusal = None
        self.request_id = self.trace = b""
        self.queued = False
        self.ended = False
        self.body = []
        self.size = 0
        self.whole = False
        self.trailers = []
        self.held = True
        self._began = 0.0
        self._sent = False
        self._uploaded = False
        self._started = 0.0
        self._target = self._chosen = table.own
        self._cell = None
        self._upstream = None
        self._connecting = None
        self._waits_at = None
        self._sent_at = 0.0
        self._detour = None
        self._reply = None

    # What the client's connection calls

    def start(self, now: float) -> None:
        self._started = now
        aside = self.table.aside
        if aside is not None and self.url.startswith(aside.path) and self.url.partition(b"?")[0] == aside.path:
            self.table = aside.table
            self._target = self._chosen = self.table.own
        self._target.series.in_flight += 1
        if self.refusal is not None:
            self.refuse(self.refusal)
            return
        self._begin(now)

    def refuse(self, refusal: Refusal) -> None:
        """Say no, before the request is sent or in the middle of its body."""
        self._drop_upstream()
        self.close = True
        if self._reply is not None:
            self._end(REJECTED, self._reply.status)
            self.client.abort()
        else:
            self._answer_error(refusal.status, str(refusal), SIDECAR, REJECTED, why=refusal.why)

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
        if self._waits_at is not None:
            self._waited_too_long(now)
        elif upstream is None:
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
