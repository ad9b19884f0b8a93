"""The admin port: metrics for Prometheus, counts for the operator; health, readiness and drain for kubelet. GET only"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable

import msgspec

from .contract import DRAIN_HEADER, DRAIN_PATH
from .lean import web
from .observe.resources import ResourceReader
from .telemetry import Telemetry
from .telemetry.exposition import Beside, expose
from .telemetry.snapshot import take_snapshot


def make_app(
    telemetry: Telemetry,
    *,
    ready: Callable[[], bool | str],
    resources: ResourceReader | None = None,
    drain: Callable[[], Awaitable[int]] | None = None,
    drain_key: str = "",
    clock: Callable[[], float] = time.time,
    beside: Beside = (),
) -> web.Application:
    """The admin port's application; its handlers read `telemetry` in the event loop that writes it.

    `ready` answers whether this pod's model takes requests, or says in a few words why it does not. `drain` drains and
    gives the number of connections left; without it there is no `/drain`. `clock` gives Unix seconds. `beside`: further
    metrics.
    """

    async def sample() -> None:
        if resources is not None:
            telemetry.resources = await asyncio.to_thread(resources.read)

    async def metrics(request: web.Request) -> web.Response:
        await sample()
        content_type, pieces = expose(telemetry, request.headers.get("Accept", ""), beside)
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
    if drain is not None:
        app.router.add_get(DRAIN_PATH, _guarded(drain, drain_key), allow_head=False)
    return app


def _guarded(drain: Callable[[], Awaitable[int]], key: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A GET that changes something: kubelet's hooks know no other method.

    The port is open to the cluster and a drain takes a pod out; kubelet has the key from the pod's manifest.
    """
    if not key:
        raise ValueError("an empty key guards nothing")
    expected = key.encode()

    async def handler(request: web.Request) -> web.Response:
        given = request.headers.get(DRAIN_HEADER, "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, expected):
            return web.Response(status=403, text=f"{DRAIN_HEADER} is not this pod's\n")
        left = await drain()
        return web.Response(text=f"drained, {left} connections left\n")

    return handler


def _why_not_ready(telemetry: Telemetry, model: bool | str) -> str:
    """A pod that drains is ready.

    Saying otherwise takes no request from it: a pod that is being deleted is no longer among a Service's ready
    endpoints, whatever its probe says. It would only lose requests: where no other pod is left, kube-proxy keeps to
    endpoints that end and are ready (KEP-1669), and drops those that end and are not. Whether others are left, no
    sidecar can know for sure. From the SIGTERM on, which comes behind the drain, a pod is not ready (`ready`).
    """
    if telemetry.routing is None:
        return telemetry.last_routing_error or "no routing file yet"
    if telemetry.hindrances:
        return next(iter(telemetry.hindrances.values()))
    if isinstance(model, str):
        return model
    return "" if model else "the model is not ready"
