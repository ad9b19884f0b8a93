"""Reads answers after they were sent: beside the hot path, within a share of the CPU, in bounded memory."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import UNSET

from ..protocols import Answer, extract
from ..protocols.openai import operation_of
from ..telemetry import EpochCell, Series, Telemetry
from ..telemetry.counters import bump
from .beginning import Beginning, Room
from .budget import CpuBudget
from .record import record
from .stream import Followed, Follower

if TYPE_CHECKING:
    from ..feedback.predicted import Predicted
    from ..monitoring import Monitoring
    from ..relay.question import Question
    from .watching import Watching

MAX_QUEUED: Final = 1024
MAX_QUEUED_BYTES: Final = 8 << 20
#: Of streams that are to be logged, all together.
MAX_COPIED_BYTES: Final = 8 << 20
#: Seconds of reading at a stretch, after which the event loop has its turn.
SLICE: Final = 0.002
_GZIP: Final = b"\x1f\x8b"


#: What `offer` takes, in its order.
_Offered = tuple[Series, EpochCell | None, bytes, bytes, int | None, "Question | None", bytes]


class Beside(Protocol):
    """See coalmine_sidecar.beside."""

    def remember(self, predicted: Predicted, other: str) -> None: ...

    def wants(self) -> int: ...

    def log(
        self,
        series: Series,
        path: bytes,
        question: Question,
        content_type: bytes,
        json_length: int | None,
        body: bytes,
        size: int = -1,
    ) -> None: ...


class Observer:
    """Of the ingress role. What it has no time or room for is counted as skipped, never waited for.

    `schedule` runs a callback soon (the event loop's `call_soon`); `share` is the share of one core it may take.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        schedule: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = time.perf_counter,
        share: float = 0.2,
        draw: Callable[[], float] = random.random,
        beside: Beside | None = None,
    ) -> None:
        """`beside`: who keeps predictions until feedback comes, and who logs."""
        self._telemetry = telemetry
        self._schedule = schedule
        self._clock = clock
        self._budget = CpuBudget(share, clock())
        self._draw = draw
        self._queue: deque[_Offered | Follower | Followed] = deque()
        self._room = Room(MAX_QUEUED_BYTES)
        self._copies = Room(MAX_COPIED_BYTES)
        self._scheduled = False
        self._beside = beside
        self._watching: Watching | None = None

    def offer(
        self,
        series: Series,
        cell: EpochCell | None,
        path: bytes,
        content_type: bytes,
        json_length: int | None,
        body: bytes,
        question: Question | None = None,
    ) -> None:
        """Take a whole answer with status 200 that `series`' revision gave and that has been sent.

        `path` is the request's target; `json_length` the answer's Inference-Header-Content-Length, None if absent;
        `cell` is None where the request was not drawn for this revision by weight or affinity. `question`: what was
        asked, where that is monitored.
        """
        size = len(body)
        if question is not None:
            size += question.kept
            if self._beside is not None and self._beside.wants() >= 0:
                self._beside.log(series, path, question, content_type, json_length, body)
        room = self._room
        if len(self._queue) >= MAX_QUEUED or room.used + size > MAX_QUEUED_BYTES:
            bump(series.skipped, "queue")
            return
        self._queue.append((series, cell, path, content_type, json_length, question, body))
        room.used += size
        if not self._scheduled:
            self._wake()

    def follow(self, series: Series, path: bytes, content_type: bytes, started: float) -> Follower | None:
        """Who reads a stream of events that answers with status 200; None where there is nothing to be read of it.

        `path` is the request's target; `started`: when the request came, on the clock that the follower is fed with.
        """
        operation = operation_of(path)
        if operation is None:
            return None
        most = -1 if self._beside is None else self._beside.wants()
        copy = None if most < 0 else Beginning(content_type, most, self._copies)
        return Follower(series, operation, path, started, host=self, room=self._room, copy=copy)

    def skip(self, series: Series, reason: str) -> None:
        """Count an answer that can't be offered: `size` (longer than the copy that is kept) or `encoding`."""
        bump(series.skipped, reason)

    # What followers call

    def go_on(self, follower: Follower) -> None:
        if len(self._queue) >= MAX_QUEUED:
            follower.lose("queue")
        else:
            self._queue.append(follower)
            if not self._scheduled:
                self._wake()

    def take_stream(
        self, series: Series, cell: EpochCell | None, path: bytes, question: Question | None, answer: Answer
    ) -> None:
        if question is None:
            record(series, cell, answer, self._draw())
        elif len(self._queue) >= MAX_QUEUED or not self._room.take(question.kept):
            bump(series.skipped, "queue")
        else:
            self._queue.append(Followed(series, cell, path, question, answer))
            if not self._scheduled:
                self._wake()

    def log_stream(self, series: Series, path: bytes, question: Question, copy: Beginning) -> None:
        if self._beside is not None:
            self._beside.log(series, path, question, copy.content_type, None, bytes(copy.data), copy.size)

    # Inside

    def _wake(self) -> None:
        self._scheduled = True
        self._schedule(self._drain)

    def _drain(self) -> None:
        self._scheduled = False
        start = now = self._clock()
        if not self._budget.open(start):
            self._drop()
            return
        queue = self._queue
        while queue and now - start < SLICE:
            offered = queue.popleft()
            if isinstance(offered, tuple):
                question = offered[5]
                self._room.used -= len(offered[6]) if question is None else len(offered[6]) + question.kept
                self._read(offered)
            elif isinstance(offered, Follower):
                offered.read()
            else:
                self._room.used -= offered.question.kept
                self._read_followed(offered)
            now = self._clock()
        self._budget.spend(now - start)
        if queue:
            self._wake()

    def _read(self, offered: _Offered) -> None:
        series, cell, path, content_type, json_length, question, body = offered
        if body.startswith(_GZIP):
            bump(series.skipped, "encoding")
            return
        routing = self._telemetry.routing
        protocol = routing.observe.protocol if routing else "auto"
        try:
            if question is None or routing is None or routing.monitoring is UNSET:
                record(series, cell, extract(protocol, path, content_type, json_length, body), self._draw())
                return
            watching = self._watching_as(routing.monitoring)
            answer = extract(
                protocol, path, content_type, json_length, body, outputs=watching.outputs, posted=question.size > 0
            )
            record(series, cell, answer, self._draw())
            watching.read(series, protocol, path, question, answer)
        except Exception:  # noqa: BLE001 - whatever a model answers, the requests beside it go on; it is counted
            bump(series.extract_failures, "internal")

    def _read_followed(self, followed: Followed) -> None:
        series, answer = followed.series, followed.answer
        routing = self._telemetry.routing
        try:
            if routing is None or routing.monitoring is UNSET:
                record(series, followed.cell, answer, self._draw())
                return
            watching = self._watching_as(routing.monitoring)
            watching.name_outputs(answer)
            record(series, followed.cell, answer, self._draw())
            watching.read(series, routing.observe.protocol, followed.path, followed.question, answer)
        except Exception:  # noqa: BLE001 - whatever a model answers, the requests beside it go on; it is counted
            bump(series.extract_failures, "internal")

    def _watching_as(self, monitoring: Monitoring) -> Watching:
        watching = self._watching
        if watching is None or watching.monitoring is not monitoring:
            from .watching import Watching  # most pods do not need it, and what it brings

            remembers = self._beside is not None and monitoring.feedback is not None
            self._watching = watching = Watching(monitoring, self._beside if remembers else None)
        return watching

    def _drop(self) -> None:
        queue, self._queue = self._queue, deque()
        for offered in queue:
            if isinstance(offered, tuple):
                bump(offered[0].skipped, "budget")
            elif isinstance(offered, Follower):
                offered.lose("budget")
            else:
                bump(offered.series.skipped, "budget")
        self._room.used = 0
