"""The application on a socket."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from aiohttp import web

BACKLOG: Final = 128
#: Seconds that requests under way get when the server ends.
SHUTDOWN: Final = 2.0


class WebServer:
    """A socket that is bound at once, so that a taken port is known before anything starts, and served later."""

    def __init__(self, host: str, port: int) -> None:
        """Raises OSError where the address cannot be had. `port` 0: any free one."""
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        self._runner: web.AppRunner | None = None

    async def serve(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket, backlog=BACKLOG).start()

    async def close(self) -> None:
        """Idempotent."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None
        self._socket.close()
