"""What monitoring has beside the relay: feedback and the payload log, made when a routing file first asks for them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from msgspec import UNSET

if TYPE_CHECKING:
    from .contract import Routing
    from .families import Metric
    from .feedback.predicted import Predicted
    from .feedback.service import FeedbackService
    from .payload import PayloadLogs
    from .relay.endpoints import Endpoint
    from .relay.question import Question
    from .telemetry import Series, Telemetry


class Beside:
    """`listening`: the socket that the relay hands feedback to. `others`: the other pods, at their local ports.

    `password`: Redis'. A pod that is not monitored does not even load the modules.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        listening: socket.socket,
        *,
        others: Callable[[], Iterable[Endpoint]],
        password: str = "",
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: Unix seconds; `ticks`: the relay's clock."""
        self._telemetry = telemetry
        self._listening = listening
        self._others = others
        self._password = password
        self._clock = clock
        self._ticks = ticks
        self._feedback: FeedbackService | None = None
        self._payloads: PayloadLogs | None = None
        self._logged_bytes = 0

    def use(self, routing: Routing) -> None:
        """Follow a routing file."""
        monitoring = routing.monitoring
        if self._feedback is None and monitoring is not UNSET and monitoring.feedback is not None:
            from .feedback.service import FeedbackService

            self._feedback = FeedbackService(
                self._telemetry, self._listening, others=self._others, password=self._password, clock=self._clock
            )
        if self._feedback is not None:
            self._feedback.use(routing)
        if self._payloads is None and monitoring is not UNSET and monitoring.payload_log is not None:
            from .payload import PayloadLogs

            self._payloads = PayloadLogs(pod=self._telemetry.pod)
        if self._payloads is not None:
            self._payloads.use(routing)
        if monitoring is not UNSET and monitoring.payload_log is not None:
            self._logged_bytes = monitoring.payload_log.max_bytes

    def remember(self, predicted: Predicted, other: str) -> None:
        """Keep a prediction until its label comes; `other`: another id that it may be asked for by, or empty."""
        if self._feedback is not None:
            self._feedback.remember(predicted, other)

    def wants(self) -> int:
        """Bytes of an answer that are logged at most; -1: it is not of the sample. Asked once for each."""
        return self._logged_bytes if self._payloads is not None and self._payloads.wants() else -1

    def log(
        self,
        series: Series,
        path: bytes,
        question: Question,
        content_type: bytes,
        json_length: int | None,
        body: bytes,
        size: int = -1,
    ) -> None:
        """Log a request and its answer, which are of the sample. A request that was not kept has an empty body.

        `size`: of the answer's body, where `body` may be but its beginning.
        """
        payloads = self._payloads
        if payloads is None:
            return
        from .payload import Body, Exchange

        counters = self._telemetry.revisions.get(series.revision)
        duration = self._ticks() - question.started
        asked = b"".join(question.body) if question.body is not None else b""
        payloads.offer(
            Exchange(
                id=_text(question.id),
                revision=series.revision,
                version=counters.version if counters is not None else series.revision,
                track=counters.track if counters is not None else "retired",
                started=self._clock() - duration,
                duration=duration,
                path=_text(path),
                status=200,
                request=Body(
                    data=asked,
                    content_type=_text(question.content_type),
                    json_length=question.json_length,
                    size=question.size,
                ),
                response=Body(data=body, content_type=_text(content_type), json_length=json_length, size=size),
            )
        )

    def collect(self) -> Iterator[Metric]:
        """Of what there is."""
        if self._feedback is not None:
            yield from self._feedback.collect()
        if self._payloads is not None:
            yield from self._payloads.collect()

    async def stop(self) -> None:
        if self._feedback is not None:
            await self._feedback.stop()
        if self._payloads is not None:
            await self._payloads.close()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
