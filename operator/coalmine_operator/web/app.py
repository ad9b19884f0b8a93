"""The operator's HTTP: Alertmanager's webhook, the API behind the command line, health and own metrics.

Errors are one line of plain text. `/alerts` and `/api` need a bearer token each; `/healthz` and `/metrics` hold no
secret and need none, as scrapers expect.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, Final

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta, Struct

from ..api.codec import to_json
from ..engine.model import Order, Verb
from ..sources import alerts
from .backend import Backend, NotDurableError, RefusedError, UnknownError
from .guard import Handler, bearer, only_loopback_names
from .metrics import CONTENT_TYPE, Metrics
from .view import ScrapeTargets

#: Seconds in which a webhook or an order must be durable, and a body must have come. Alertmanager sends again later.
DEADLINE: Final = 20.0

log = logging.getLogger(__name__)


class _OrderBody(Struct, frozen=True, forbid_unknown_fields=True):
    verb: Verb
    revision: Annotated[str, Meta(max_length=253)] = ""
    actor: Annotated[str, Meta(max_length=253)] = ""


def make_app(
    backend: Backend,
    *,
    alerts_token: str,
    api_token: str,
    metrics: Metrics | None = None,
    only_loopback: bool = True,
    health: Callable[[], str] = str,
    clock: Callable[[], float] = time.time,
    scraped: Callable[[], Sequence[ScrapeTargets]] | None = None,
) -> web.Application:
    """The application. `only_loopback`: refuse strangers' Host headers; False when bound to more than this machine.

    `health` answers why a new start would be better, or nothing. `scraped`: where there are metrics, for Prometheus'
    http_sd; None where something better finds them.
    """
    site = _Site(backend, metrics or Metrics(), clock, health)
    middlewares = [_errors, only_loopback_names] if only_loopback else [_errors]
    app = web.Application(middlewares=middlewares, client_max_size=alerts.MAX_BODY)
    deployment = r"/api/deployments/{namespace}/{name}"
    app.add_routes(
        [
            web.get("/healthz", site.healthz),
            web.get("/metrics", site.metrics),
            web.post("/alerts", bearer(alerts_token, site.alerts)),
            web.get("/api/deployments", bearer(api_token, site.deployments)),
            web.get(deployment, bearer(api_token, site.deployment)),
            web.post(deployment + "/orders", bearer(api_token, site.order)),
        ]
    )
    if scraped is not None:
        app.router.add_get("/targets", _scrape_targets(scraped))
    return app


def _scrape_targets(scraped: Callable[[], Sequence[ScrapeTargets]]) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return _json(to_json(list(scraped())))

    return handler


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error is one line, in plain text; what nobody foresaw is logged whole and told as such."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        headers = {key: error.headers[key] for key in (hdrs.ALLOW, hdrs.WWW_AUTHENTICATE) if key in error.headers}
        return web.Response(status=error.status, text=f"{error.text}\n", headers=headers)
    except TimeoutError:
        return web.Response(status=503, text=f"not done within {DEADLINE:g} s: send it again\n")
    except NotDurableError as error:
        return web.Response(status=503, text=f"{error}: send it again\n")
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return web.Response(status=500, text="an unforeseen error, see the log\n")


class _Site:
    def __init__(
        self, backend: Backend, metrics: Metrics, clock: Callable[[], float], health: Callable[[], str]
    ) -> None:
        self._backend = backend
        self._metrics = metrics
        self._clock = clock
        self._health = health

    async def healthz(self, _: web.Request) -> web.Response:
        trouble = self._health()
        return web.Response(status=503 if trouble else 200, text=f"{trouble or 'ok'}\n")

    async def metrics(self, _: web.Request) -> web.Response:
        body = self._metrics.render(self._backend.views(), self._backend.monitored())
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})

    async def alerts(self, request: web.Request) -> web.Response:
        """200 only when what matched is durable; anything else but 4xx makes Alertmanager send it again."""
        try:
            async with asyncio.timeout(DEADLINE):
                webhook = alerts.decode(await request.read())
                found = alerts.sort_out(webhook, await self._backend.targets(), self._clock())
                async with asyncio.TaskGroup() as group:
                    for key, events in found.events.items():
                        group.create_task(self._backend.submit_alerts(key, events))
        except alerts.AlertsError as error:
            self._metrics.alerts(refused=1)
            too_many = isinstance(error, alerts.TooManyAlertsError)
            return web.Response(status=413 if too_many else 400, text=f"{error}\n")
        except (web.HTTPRequestEntityTooLarge, TimeoutError):
            self._metrics.alerts(refused=1)
            raise
        except ExceptionGroup as errors:
            self._metrics.alerts(refused=1)
            raise errors.exceptions[0] from errors
        matched = {key: len(events) for key, events in found.events.items()}
        self._metrics.alerts(
            matched=found.matched,
            unmatched=found.received - found.matched - found.unattributed,
            unattributed=found.unattributed,
        )
        answer = {"received": found.received, "matched": matched, "unattributed": found.unattributed}
        if webhook.truncated:
            answer["truncated"] = webhook.truncated
        return _json(to_json(answer))

    async def deployments(self, _: web.Request) -> web.Response:
        return _json(to_json(self._backend.views()))

    async def deployment(self, request: web.Request) -> web.Response:
        view = self._backend.view(_key(request))
        if view is None:
            raise web.HTTPNotFound(text=f"no model deployment {_key(request)}")
        return _json(to_json(view))

    async def order(self, request: web.Request) -> web.Response:
        """200 and what happened; 409 and why an order was refused."""
        async with asyncio.timeout(DEADLINE):
            body = await request.read()
            try:
                given = msgspec.json.decode(body, type=_OrderBody)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise web.HTTPBadRequest(text=f"order: {' '.join(str(error).split())}") from error
            key = _key(request)
            order = Order(id=uuid.uuid4().hex, verb=given.verb, revision=given.revision, actor=given.actor)
            try:
                message = await self._backend.submit_order(key, order)
            except RefusedError as error:
                raise web.HTTPConflict(text=str(error)) from error
            except UnknownError as error:
                raise web.HTTPNotFound(text=str(error)) from error
        return _json(to_json({"message": message}))


def _key(request: web.Request) -> str:
    return f"{request.match_info['namespace']}/{request.match_info['name']}"


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
