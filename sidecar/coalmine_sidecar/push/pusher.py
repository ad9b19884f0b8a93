"""Pushes, at an interval, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from ..contract import Routing
from ..families import CounterMetricFamily, Metric
from ..outward import Health, end
from .family import Family
from .receivers import Otlp, PushError, Receiver
from .settings import PushSettings

OUTCOMES: Final = ("ok", "partial", "failed")
#: Seconds between two pushes to a receiver that does not take them, at most.
LONGEST_PAUSE: Final = 300.0

log = logging.getLogger(__name__)


#: Makes all metrics anew, in pieces that are pushed one after the other: what is huge need not be there at once.
Collect = Callable[[], AsyncGenerator[Sequence[Family], None]]


class Pushing:
    """Tasks, one a receiver: a slow one holds up none of the others."""

    def __init__(
        self,
        receivers: Iterable[Receiver],
        collect: Collect,
        resource: Callable[[], Mapping[str, str] | None],
        *,
        interval: float,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._collect = collect
        self._resource = resource
        self._interval = interval
        self._draw = draw
        self._receivers = tuple(receivers)
        self.pushes = {(one.kind, outcome): 0 for one in self._receivers for outcome in OUTCOMES}
        self._tasks = [asyncio.create_task(self._run(one)) for one in self._receivers]

    def collect(self) -> Iterator[Metric]:
        """What became of the pushes."""
        pushes = CounterMetricFamily("coalmine_push", "Metrics pushed to a receiver.", labels=("to", "outcome"))
        for labels, count in self.pushes.items():
            pushes.add_metric(labels, count)
        yield pushes

    async def stop(self) -> None:
        await end(self._tasks)
        for receiver in self._receivers:
            await receiver.close()

    async def _run(self, receiver: Receiver) -> None:
        health = Health(receiver.name, log)
        pause = self._interval
        # Pods that start together do not push together.
        await asyncio.sleep(self._draw() * self._interval)
        while True:
            resource = self._resource()
            if resource is not None:
                outcome, problem = await self._push(receiver, resource)
                health.say(problem)
                failed = outcome == "failed"
                pause = min(pause * 2, max(self._interval, LONGEST_PAUSE)) if failed else self._interval
            await asyncio.sleep(pause)

    async def _push(self, receiver: Receiver, resource: Mapping[str, str]) -> tuple[str, str]:
        """The outcome, and what is wrong."""
        outcome, problem = "ok", ""
        try:
            async with aclosing(self._collect()) as pieces:
                async for piece in pieces:
                    if partial := await _pushed(receiver, piece, resource):
                        outcome, problem = "partial", partial
        except PushError as error:
            outcome, problem = "failed", str(error)
        except Exception as error:  # noqa: BLE001 - of a figure that cannot be written, say: the next push is another try
            outcome, problem = "failed", f"could not be made: {type(error).__name__}"
        self.pushes[receiver.kind, outcome] += 1
        return outcome, problem


async def _pushed(receiver: Receiver, metrics: Sequence[Family], resource: Mapping[str, str]) -> str:
    """What is wrong where not all of it was taken. Raises PushError where nothing was."""
    try:
        await receiver.push(metrics, resource)
    except PushError as error:
        if not error.partial:
            raise
        return str(error)
    return ""


def whose(routing: Routing | None, pod: str) -> dict[str, str] | None:
    """The resource that a sidecar's metrics are of, as OpenTelemetry calls its attributes; None without a routing file.

    Prometheus makes `job` of the namespace and the name, `instance` of the pod.
    """
    if routing is None:
        return None
    return {"service.name": routing.deployment, "service.namespace": routing.namespace, "service.instance.id": pod}


def start(
    settings: PushSettings,
    collect: Collect,
    resource: Callable[[], Mapping[str, str] | None],
    *,
    clock: Callable[[], float] = time.time,
    draw: Callable[[], float] = random.random,
) -> Pushing:
    """Begin to push, in the running event loop.

    `collect` gives the metrics, called there; `resource` says whose they are (OTLP's attributes, among them
    `service.instance.id`, the pod), None as long as nobody knows: then nothing is pushed.
    """
    receivers: list[Receiver] = []
    if settings.graphite is not None:
        from .graphite import Graphite  # with prometheus_client, for those who use it

        receivers.append(Graphite(settings.graphite, prefix=settings.prefix, tags=settings.tags))
    if settings.otlp:
        otlp = Otlp(settings.otlp, started=clock(), clock=clock, headers=settings.headers, timeout=settings.timeout)
        receivers.append(otlp)
    return Pushing(receivers, collect, resource, interval=settings.interval, draw=draw)
