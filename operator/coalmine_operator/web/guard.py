"""Who may ask: bearer tokens, compared in constant time, and host names that a browser cannot be tricked into."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def bearer(token: str, handler: Handler) -> Handler:
    """`handler` behind `Authorization: Bearer TOKEN`; 401 before a byte of the body is read."""
    if not token:
        raise ValueError("an empty token guards nothing")
    expected = token.encode()

    async def guarded(request: web.Request) -> web.StreamResponse:
        scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), expected)
        if scheme.lower() != "bearer" or not right:
            raise web.HTTPUnauthorized(
                text="send the token as Authorization: Bearer TOKEN", headers={hdrs.WWW_AUTHENTICATE: "Bearer"}
            )
        return await handler(request)

    return guarded


def is_loopback(host: str) -> bool:
    """Whether a Host header (`localhost:8011`, `[::1]:8011`) names this machine."""
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdigit():
        name = host
    name = name.removeprefix("[").removesuffix("]").lower().rstrip(".")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


@web.middleware
async def only_loopback_names(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a Host that is a stranger's name: a page of that name could otherwise reach us (DNS rebinding)."""
    if not is_loopback(request.headers.get(hdrs.HOST, "")):
        raise web.HTTPForbidden(text="Host: is no name of this machine: ask 127.0.0.1 or localhost")
    return await handler(request)
