"""The operator's metrics for those without Prometheus: what `/metrics` has, pushed as sidecars push theirs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, cast

from coalmine_sidecar.push.settings import PushSettings

from .backend import Backend
from .metrics import Metrics

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

#: What Prometheus' `job` is where it scrapes.
SERVICE: Final = "coalmine-operator"

log = logging.getLogger(__name__)


@asynccontextmanager
async def pushed(settings: PushSettings, backend: Backend, metrics: Metrics, *, instance: str) -> AsyncIterator[None]:
    """Push while inside, if anybody is to get anything. `instance`: tells this operator from others."""
    for remark in settings.remarks:
        log.warning("%s", remark)
    if not settings:
        yield
        return
    from coalmine_sidecar.push.pusher import start  # for those who use it

    async def collected() -> AsyncGenerator[list[Metric], None]:
        for piece in metrics.pieces(backend.views(), backend.monitored()):
            yield piece
            await asyncio.sleep(0)  # alerts' turn

    whose = {"service.name": SERVICE, "service.instance.id": instance}
    pushing = start(settings, collected, lambda: whose)
    # In all but name, which sidecars have no use for.
    counts = cast("Collector", pushing)
    metrics.registry.register(counts)
    try:
        yield
    finally:
        metrics.registry.unregister(counts)
        await pushing.stop()
