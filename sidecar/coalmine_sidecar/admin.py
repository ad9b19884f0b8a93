"""The admin port: metrics for Prometheus, counts for the operator, health and readiness for a kubelet. GET only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
from aiohttp import web

from .observe.resources import ResourceReader
from .telemetry import Telemetry
from .telemetry.exposition import expose
from .telemetry.snapshot import take_snapshot


def make_app(
    telemetry: Telemetry,
    *,
    ready: Callable[[], bool | str],
    resources: ResourceReader | None = None,
    clock: Callable[[], float] = time.time,
) -> web.Application:
    """The admin port's application; its handlers read `telemetry` in the event loop that writes it.

    `ready` answers whether this pod's model takes requests, or says in a few words why it does not. `clock` gives
    Unix seconds.
    """

    async def sample() -> None:
        if resources is not None:
            telemetry.resources = await asyncio.to_thread(resources.read)

    async def metrics(request: web.Request) -> web.Response:
        await sample()
        content_type, pieces = expose(telemetry, request.headers.get("Accept", ""))
        text = []
        for piece in pieces:
            text.append(piece)
            await asyncio.sleep(0)  # the requests' turn: they share this event loop
        return web.Response(body=b"".join(text), headers={"Content-Type": content_type})

    async def snapshot(request: web.Request) -> web.Response:
        await sample()
        taken = take_snapshot(telemetry, at=clock(), values=request.query.get("values") == "1")
        return web.Response(body=msgspec.json.encode(taken), content_type="application/json")

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        reason = _why_not_ready(telemetry, ready())
        return web.Response(status=503 if reason else 200, text=f"{reason or 'ok'}\n")

    app = web.Application()
    for path, handler in (
        ("/metrics", metrics),
        ("/snapshot", snapshot),
        ("/healthz", healthz),
        ("/readyz", readyz),
    ):
        app.router.add_get(path, handler)
    return app


def _why_not_ready(telemetry: Telemetry, model: bool | str) -> str:
    if telemetry.draining:
        return "draining"
    if telemetry.routing is None:
        return telemetry.last_routing_error or "no routing file yet"
    if isinstance(model, str):
        return model
    return "" if model else "the model is not ready"
