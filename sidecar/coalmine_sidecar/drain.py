"""The drain that a pod's `preStop` hook asks for, before its model is told to end.

The pod is being taken out of Services meanwhile, which everybody notices at another moment. So new connections are
served on, each answer is its connection's last, and the drain is over when no connection has come for a while and none
is left. Then the hook is answered, and kubelet ends the model.

A hook runs also when kubelet restarts a model whose liveness probe failed, and then no SIGTERM follows: the drain is
taken back (knative/serving#13229 left such pods unready for ever).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final, TypeVar

from .relay.front import Front
from .telemetry import Telemetry

#: Seconds without a new connection, and with none left, that end a drain: EndpointSlices and kube-proxy need about one
#: to spread; sidecars that know this pod by an older DNS answer try another pod if it is gone when they come.
QUIET: Final = 2.0
#: Seconds a connection has to be idle until a drain ends it, and the share of the drain's time that this may be. A
#: client that sends at that very moment loses its request; one whose pool goes round comes back within seconds, and
#: sidecars end theirs to other pods after 4 s by themselves.
IDLE: Final = 5.0
SHARE: Final = 0.5
#: Seconds after a drain in which the SIGTERM has to come, or the pod takes requests as before. A model that needs
#: longer to end loses nothing: a pod that ends is in no Service, ready or not.
HOLD: Final = 15.0
#: Seconds in which requests are still served after a SIGTERM without a hook before it.
LINGER: Final = 1.0
POLL: Final = 0.05

Made = TypeVar("Made")

log = logging.getLogger(__name__)


class Drain:
    """`wait` begins it, or joins the one under way. `timeout`: seconds after which it is over whoever is left."""

    def __init__(
        self,
        telemetry: Telemetry,
        fronts: Iterable[Front],
        *,
        timeout: float,
        quiet: float = QUIET,
        hold: float = HOLD,
    ) -> None:
        self._telemetry = telemetry
        self._fronts = tuple(fronts)
        self._timeout = timeout
        self._quiet = quiet
        self._hold = hold
        self._came_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._drained = asyncio.Event()
        self._ended = False

    def counting(self, accept: Callable[[], Made]) -> Callable[[], Made]:
        """`accept`, a factory of connections, which tells this drain of each."""

        def counted() -> Made:
            self._came_at = monotonic()
            return accept()

        return counted

    async def wait(self) -> int:
        """Until drained; the number of connections that are left all the same."""
        if self._task is None and not self._ended:
            self._drained.clear()
            self._task = asyncio.create_task(self._run())
        await self._drained.wait()
        return self._connections()

    async def linger(self, at_once: asyncio.Event) -> None:
        """The SIGTERM has come. With no hook before it (a pod deleted by force) Services still send requests here."""
        if self._telemetry.draining and self._drained.is_set():
            return
        self._telemetry.draining = True
        for front in self._fronts:
            front.drain(IDLE)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(at_once.wait(), LINGER)

    def end(self) -> None:
        """The SIGTERM has come: whoever waits is answered, and the draining is not taken back. Idempotent."""
        self._ended = True
        self._drained.set()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        began = monotonic()
        log.info("asked to drain: at most %g s", self._timeout)
        self._telemetry.draining = True
        for front in self._fronts:
            front.drain(min(IDLE, SHARE * self._timeout))
        # Connections end by themselves; a watch on each of them would cost requests what this poll does not.
        while (now := monotonic()) - began < self._timeout:
            if not self._connections() and now - max(began, self._came_at) >= self._quiet:
                break
            await asyncio.sleep(POLL)
        log.info("drained in %.1f s: %d connections left", monotonic() - began, self._connections())
        self._drained.set()
        await asyncio.sleep(self._hold)
        log.warning("no SIGTERM came within %g s of the drain: taking requests as before", self._hold)
        for front in self._fronts:
            front.draining = False
        self._telemetry.draining = False
        self._task = None

    def _connections(self) -> int:
        return sum(len(front.connections) for front in self._fronts)
