"""The payload log that the routing file in force asks for."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import UNSET

from ..contract import Routing
from ..families import Metric
from .counters import Counters, payload_metrics
from .event import Exchange
from .logger import CLOSING, PayloadLogger

#: Loggers of settings that are in force no longer, which send what they have. One more is not waited for.
MAX_CLOSING: Final = 4

log = logging.getLogger(__name__)


class PayloadLogs:
    """At most one logger at a time; `counters` are of all there ever were. Belongs to the event loop."""

    def __init__(self, *, pod: str, draw: Callable[[], float] = random.random) -> None:
        self.counters = Counters()
        self._pod = pod
        self._draw = draw
        self._logger: PayloadLogger | None = None
        self._asked: object = None
        self._closing: set[asyncio.Task[None]] = set()

    def use(self, routing: Routing) -> None:
        """Take over a routing file, the first one or a new one."""
        settings = routing.monitoring.payload_log if routing.monitoring is not UNSET else None
        asked = (settings, routing.model, routing.namespace, routing.deployment)
        if asked == self._asked:
            return
        self._asked = asked
        self._retire()
        if settings is None:
            return
        try:
            self._logger = PayloadLogger(
                settings,
                model=routing.model,
                namespace=routing.namespace,
                deployment=routing.deployment,
                pod=self._pod,
                draw=self._draw,
                counters=self.counters,
            )
        except ValueError as error:
            # A routing file is not refused for it: what else it says must come into force.
            log.warning("monitoring.payloadLog: %s; nothing is logged", error)

    def wants(self) -> bool:
        """Whether a request is of the sample: asked once for each."""
        logger = self._logger
        return logger is not None and logger.wants()

    def offer(self, exchange: Exchange) -> None:
        """Take a request of the sample that was answered. Returns at once."""
        if self._logger is not None:
            self._logger.offer(exchange)

    def collect(self) -> Iterator[Metric]:
        return payload_metrics(self.counters)

    async def close(self, seconds: float = CLOSING) -> None:
        """Send what waits, for at most so long."""
        logger, self._logger = self._logger, None
        if logger is not None:
            await logger.close(seconds)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _retire(self) -> None:
        logger, self._logger = self._logger, None
        if logger is not None:
            seconds = CLOSING if len(self._closing) < MAX_CLOSING else 0.0
            task = asyncio.get_running_loop().create_task(logger.close(seconds))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
