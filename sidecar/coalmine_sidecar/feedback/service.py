"""Feedback as the routing file asks for it: a store and a joiner that follow it, and the other pods to ask."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET
from msgspec.structs import replace

from ..families import Metric
from ..lean import web
from .app import make_feedback_runner
from .counts import FeedbackCounts, feedback_metrics
from .hops import HOP_HEADER, Peer
from .joiner import Joiner
from .labels import Truths
from .memory import MemoryStore
from .predicted import Predicted
from .result import Result
from .stores import make_store

if TYPE_CHECKING:
    import aiohttp

    from ..contract import Routing
    from ..relay.endpoints import Endpoint
    from ..telemetry import Telemetry
    from ..telemetry.performance import PerformanceCounters

#: Seconds between looks at what is due.
TICK: Final = 1.0
#: Seconds that another pod may take to answer.
PEER_TIMEOUT: Final = 2.0
#: Bytes of another pod's answer that are read.
MAX_ANSWER: Final = 1 << 20

log = logging.getLogger(__name__)


class FeedbackService:
    """Takes feedback on `listening`, a socket that listens already, from the first routing file on that asks for it.

    `others`: the other pods of the model deployment, at their local ports. `password`: Redis'. Counts go on when the
    store changes; what it held is lost then, and the predictions are unknown.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        listening: socket.socket,
        *,
        others: Callable[[], Iterable[Endpoint]],
        password: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.counts = FeedbackCounts()
        self._telemetry = telemetry
        self._listening = listening
        self._others = others
        self._password = password
        self._clock = clock
        self._joiner: Joiner | None = None
        self._asked: tuple[object, ...] = ()
        self._path = ""
        self._running: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def use(self, routing: Routing) -> None:
        """Follow a routing file."""
        monitoring = routing.monitoring
        feedback = monitoring.feedback if monitoring is not UNSET else None
        if monitoring is UNSET or feedback is None:
            self._set(None)
            self._asked = ()
            return
        self._path = feedback.path
        # The path alone changes nothing of what is kept.
        task, positive = monitoring.task, monitoring.prediction.positive
        asked = (replace(feedback, path="/"), task, positive, routing.namespace, routing.deployment)
        if asked != self._asked:
            self._asked = asked
            store = self._joiner.store if self._joiner is not None else None
            if self._joiner is not None and isinstance(store, MemoryStore) and not feedback.redis:
                # Other limits lose no prediction.
                store.limit(max_pending=feedback.max_pending, ttl=feedback.ttl)
                self._joiner.truths = Truths(task, positive)
                return
            self._set(
                Joiner(
                    make_store(
                        feedback,
                        self.counts,
                        password=self._password,
                        prefix=f"coalmine:{routing.namespace}:{routing.deployment}:",
                    ),
                    self._counters,
                    task=task,
                    positive=positive,
                    counts=self.counts,
                    clock=self._clock,
                    peers=None if feedback.redis else self._peers,
                )
            )
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="feedback")

    def remember(self, predicted: Predicted, other: str) -> None:
        """Keep a prediction; `other`: another id that it may be asked for by, or empty."""
        if self._joiner is not None:
            self._joiner.remember(predicted, other)

    async def feedback(self, body: bytes, *, hop: bool = False) -> Result:
        """See Joiner.feedback."""
        if self._joiner is None:
            return Result(404, reasons=["no feedback is asked for here: give spec.monitoring.feedback"])
        return await self._joiner.feedback(body, hop=hop)

    def collect(self) -> Iterable[Metric]:
        """Empty where no feedback was ever asked for."""
        joiner, routing = self._joiner, self._telemetry.routing
        if joiner is None or routing is None:
            return ()
        return feedback_metrics(routing.model, self.counts, pending=joiner.store.pending, held=joiner.held)

    async def stop(self) -> None:
        self._set(None)
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _set(self, joiner: Joiner | None) -> None:
        before, self._joiner = self._joiner, joiner
        if before is not None:
            before.close()
            task = asyncio.create_task(before.store.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _counters(self, revision: str) -> PerformanceCounters | None:
        counters = self._telemetry.revisions.get(revision)
        series = counters.series.get("ingress") if counters is not None else None
        if series is None and counters is not None:
            # Labels of a revision that this pod never sent a request to.
            series = self._telemetry.series(revision, "ingress")
        watched = series.watched if series is not None else None
        return watched.performance if watched is not None else None

    async def _run(self) -> None:
        runner = make_feedback_runner(self)
        await runner.setup()
        try:
            await web.SockSite(runner, self._listening).start()
            while True:
                await asyncio.sleep(TICK)
                if self._joiner is not None:
                    try:
                        await self._joiner.tick()
                    except Exception:
                        log.exception("feedback: what is due could not be looked at")
        finally:
            await runner.cleanup()
            if self._session is not None:
                await self._session.close()

    def _peers(self) -> Sequence[Peer]:
        return [_Pod(self, endpoint) for endpoint in self._others()]

    async def post(self, endpoint: Endpoint, body: bytes) -> bytes:
        """To another pod's feedback path. Raises OSError."""
        from aiohttp import ClientError, ClientSession, ClientTimeout

        if self._session is None:
            self._session = ClientSession(timeout=ClientTimeout(total=PEER_TIMEOUT))
        options: dict[str, Any] = endpoint.options("http/1.1")
        scheme = "https" if options else "http"
        try:
            async with self._session.post(
                f"{scheme}://{endpoint}{self._path}",
                data=body,
                headers={HOP_HEADER: "1", "Content-Type": "application/json"},
                allow_redirects=False,
                **options,
            ) as answer:
                if answer.status not in (200, 202):
                    raise OSError(f"status {answer.status}")
                read = bytearray()
                async for chunk in answer.content.iter_any():
                    read += chunk
                    if len(read) > MAX_ANSWER:
                        raise OSError(f"more than {MAX_ANSWER} bytes")
                return bytes(read)
        except (ClientError, TimeoutError) as error:
            raise OSError(str(error) or type(error).__name__) from error


class _Pod:
    """Another pod, as hops.Peer."""

    def __init__(self, service: FeedbackService, endpoint: Endpoint) -> None:
        self._service = service
        self._endpoint = endpoint

    async def post(self, body: bytes) -> bytes:
        return await self._service.post(self._endpoint, body)
