"""The proxy everyone writes: aiohttp's server in front, aiohttp's client behind. It counts and routes nothing.

python -m tests.benchmarks.relay.plain PORT UPSTREAM_PORT
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


def make_app(upstream: int) -> web.Application:
    async def session(app: web.Application) -> AsyncIterator[None]:
        timeout = ClientTimeout(total=None, sock_connect=1, sock_read=60)
        async with ClientSession(timeout=timeout, connector=TCPConnector(limit=0), auto_decompress=False) as opened:
            app["session"] = opened
            yield

    async def relay(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        url = f"http://127.0.0.1:{upstream}{request.path_qs}"
        body = request.content if request.content_length is None or request.content_length > 1 << 20 else None
        data = await request.read() if body is None else body
        async with request.app["session"].request(request.method, url, headers=headers, data=data) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            if answer.content_length is not None:
                return web.Response(status=answer.status, headers=kept, body=await answer.read())
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            return response

    app = web.Application(client_max_size=64 << 20)
    app["session"] = None
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", relay)
    return app


if __name__ == "__main__":
    web.run_app(make_app(int(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
