"""The webhooks over HTTPS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import Struct

from ..render.injection import InjectionSettings
from . import deployments, pods
from .review import NoReview, Review, allow, deny, read
from .tls import CertificateFiles

#: etcd takes 1.5 MB for an object; a review holds two, and JSON of it may be longer than what is stored.
MAX_BODY: Final = 8 << 20
#: Seconds that requests under way get when the server ends.
SHUTDOWN: Final = 5.0

log = logging.getLogger(__name__)

Answer = Callable[[Review], dict[str, Any]]


class WebhookSettings(Struct, frozen=True, kw_only=True):
    """`folder` holds `tls.crt` and `tls.key`."""

    injection: InjectionSettings
    folder: Path
    host: str = "0.0.0.0"  # noqa: S104 - a pod's own address; whoever asks learns only what a manifest says
    port: int = 8443


class WebhookError(Exception):
    """It cannot run; the message is one line that says what to change."""


def make_app(injection: InjectionSettings) -> web.Application:
    """The three webhooks, and `/healthz`."""
    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_get("/healthz", _healthz)
    app.router.add_post(
        "/mutate/pods",
        _handler(lambda review: pods.mutate(review, injection, drain_key=secrets.token_hex(16)), _pass_on),
    )
    app.router.add_post("/mutate/modeldeployments", _handler(deployments.stamp_orders, _pass_on))
    app.router.add_post(
        "/validate/modeldeployments", _handler(lambda review: deployments.validate(review, injection), _hold_back)
    )
    return app


async def serve(settings: WebhookSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises WebhookError."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    files = CertificateFiles(settings.folder / "tls.crt", settings.folder / "tls.key")
    files.look()
    runner = web.AppRunner(make_app(settings.injection), access_log=None, shutdown_timeout=SHUTDOWN)
    await runner.setup()
    follow = asyncio.create_task(files.follow())
    try:
        site = web.TCPSite(runner, settings.host, settings.port, ssl_context=files.context)
        try:
            await site.start()
        except OSError as error:
            raise WebhookError(f"--listen {settings.host}:{settings.port}: {error.strerror}") from error
        log.info("webhooks on %s:%d", *runner.addresses[0][:2])
        await stop.wait()
    finally:
        follow.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await follow
        await runner.cleanup()


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


def _handler(
    answer: Answer, at_a_loss: Callable[[Review, str], dict[str, Any]]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            review = read(await request.read())
        except NoReview as error:
            return web.Response(status=400, text=f"{error}\n")
        try:
            given = answer(review)
        except Exception:
            # An error of ours is never somebody's 500: that would leave it to a failure policy what becomes of them.
            log.exception("%s of %s", request.path, review.uid)
            given = at_a_loss(review, "coalmine: this could not be looked at, see the webhook's log")
        return web.Response(body=msgspec.json.encode(given), content_type="application/json")

    return handle


def _pass_on(review: Review, line: str) -> dict[str, Any]:
    return allow(review, warnings=[line])


def _hold_back(review: Review, line: str) -> dict[str, Any]:
    return deny(review, [line])
