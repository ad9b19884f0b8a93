"""Takes exchanges from the relay at once, and writes them when it comes to it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final

from ..monitoring import PayloadLog
from ..outward import Health, end
from .counters import Counters
from .event import Event, Exchange, Source, make_events
from .file import FileSink, own_file
from .redact import Redaction
from .sink import Sink, SinkError

#: What waits for the sink: exchanges, and bytes of their bodies.
MAX_QUEUED: Final = 512
MAX_QUEUED_BYTES: Final = 8 << 20
#: What is sent at once where a sink lingers; as much again has room meanwhile.
ENOUGH_BYTES: Final = MAX_QUEUED_BYTES // 2
#: Seconds that what waits has to be sent when the logger is closed.
CLOSING: Final = 2.0

log = logging.getLogger(__name__)


class PayloadLogger:
    """One for settings that do not change. `draw` gives numbers in [0, 1).

    `wants` and `offer` return at once whatever the sink does; they and `close` belong to the event loop. What has no
    room is counted in `counters` and gone. Raises ValueError with one line where the settings cannot be used.
    """

    def __init__(
        self,
        settings: PayloadLog,
        *,
        model: str,
        namespace: str,
        deployment: str,
        pod: str,
        draw: Callable[[], float] = random.random,
        counters: Counters | None = None,
        sink: Sink | None = None,
    ) -> None:
        if bool(settings.url) == bool(settings.file):
            raise ValueError("give a url or a file, one of them")
        self._redaction = Redaction(settings.redact)
        self._max_bytes = settings.max_bytes
        self._share = settings.percent / 100
        self._draw = draw
        self._source = Source(model=model, namespace=namespace, deployment=deployment, pod=pod)
        self._sink = sink or _sink(settings, pod)
        self._health = Health(self._sink.name, log)
        self.counters = counters or Counters()
        self._queue: asyncio.Queue[Exchange] = asyncio.Queue(max(MAX_QUEUED, 2 * self._sink.batch))
        self._bytes = 0
        self._workers: list[asyncio.Task[None]] = []
        self._closed = asyncio.Event()
        #: Set where nothing is waited for: there is enough to send, or it is the end.
        self._hurry = asyncio.Event()
        #: When the next exchange may be sent, on `monotonic`.
        self._due = 0.0

    def wants(self) -> bool:
        """Whether a request is of the sample: asked once for each."""
        return self._draw() < self._share

    def offer(self, exchange: Exchange) -> None:
        """Take a request of the sample that was answered: two events."""
        counters = self.counters
        counters.offered += 2
        size = _size(exchange)
        if self._closed.is_set():
            counters.outcomes["dropped_end"] += 2
            return
        if self._queue.full() or self._bytes + size > MAX_QUEUED_BYTES:
            counters.outcomes["dropped_queue"] += 2
            return
        self._queue.put_nowait(exchange)
        self._bytes += size
        counters.queued += 2
        counters.queued_bytes += size
        if self._enough():
            self._hurry.set()
        if not self._workers:
            self._workers = [asyncio.create_task(self._work()) for _ in range(self._sink.workers)]

    async def close(self, seconds: float = CLOSING) -> None:
        """Send what waits, for at most so long; what is left then is counted as dropped."""
        self._closed.set()
        self._hurry.set()
        if self._workers:
            try:
                async with asyncio.timeout(seconds):
                    await self._queue.join()
            except TimeoutError:
                pass
            await end(self._workers)
            while not self._queue.empty():
                self._taken(self._queue.get_nowait())
                self.counters.outcomes["dropped_end"] += 2
        await self._sink.close()

    async def _work(self) -> None:
        queue, counters = self._queue, self.counters
        while True:
            exchanges = [await queue.get()]
            sent, outcome = 0, "failed"
            try:
                await self._gather(exchanges)
                await self._turn(len(exchanges))
                events = await self._make(exchanges)
                sent = await self._send(events)
            except asyncio.CancelledError:
                outcome = "dropped_end"
                raise
            except Exception as error:  # noqa: BLE001 - a worker that ended would leave the queue full; it is counted
                self._health.say(f"events could not be sent: {type(error).__name__}")
            finally:
                counters.outcomes["sent"] += sent
                counters.outcomes[outcome] += 2 * len(exchanges) - sent
                for _ in exchanges:
                    queue.task_done()

    async def _gather(self, exchanges: list[Exchange]) -> None:
        """Add to the first what is sent with it; the sink may want to wait for that. They wait no longer then."""
        try:
            if self._sink.linger and not self._enough() and not self._closed.is_set():
                self._hurry.clear()
                await _within(self._sink.linger, self._hurry)
            while len(exchanges) < self._sink.batch and not self._queue.empty():
                exchanges.append(self._queue.get_nowait())
        finally:
            for exchange in exchanges:
                self._taken(exchange)

    def _enough(self) -> bool:
        """Whether what waits, with the first, is worth sending."""
        return self._queue.qsize() + 1 >= self._sink.batch or self._bytes >= ENOUGH_BYTES

    async def _turn(self, exchanges: int) -> None:
        """Wait until so many may be sent; who is to end does not wait."""
        now = monotonic()
        due = max(self._due, now)
        self._due = due + exchanges / self._sink.rate
        if due > now:
            await _within(due - now, self._closed)

    async def _make(self, exchanges: list[Exchange]) -> list[Event]:
        """Their events, but for those of which none could be made."""
        events: list[Event] = []
        for exchange in exchanges:
            try:
                events += make_events(exchange, self._source, self._redaction, self._max_bytes)
            except Exception as error:  # noqa: BLE001 - whatever is in it, those behind it are to be sent; it is counted
                self._health.say(f"an event could not be made: {type(error).__name__}")
            await asyncio.sleep(0)  # the requests' turn: they share this event loop
        for event in events:
            if event.change:
                self.counters.changes[event.change] += 1
        return events

    async def _send(self, events: list[Event]) -> int:
        """How many of them arrived."""
        try:
            await self._sink.send(events)
        except SinkError as error:
            self._health.say(str(error))
            return error.sent
        self._health.say("")
        return len(events)

    def _taken(self, exchange: Exchange) -> None:
        size = _size(exchange)
        self._bytes -= size
        self.counters.queued -= 2
        self.counters.queued_bytes -= size


def _sink(settings: PayloadLog, pod: str) -> Sink:
    if settings.file:
        path = own_file(settings.file, pod)
        if path.suffix != ".parquet":
            return FileSink(path)
        from .parquet import ParquetSink

        return ParquetSink(path)
    from .http import HttpSink  # whoever imports aiohttp first decides what it loads: see `lean`

    return HttpSink(settings.url)


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for it, for at most so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _size(exchange: Exchange) -> int:
    return len(exchange.request.data) + len(exchange.response.data)
