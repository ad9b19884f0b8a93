"""A listening socket that speaks TLS, and without it too while there are pods that have none yet.

Each connection gets the certificates in force when it came, so that new ones need no new socket. What a client begins
with tells TLS from plain text: a handshake's first byte is 22.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .tls import HANDSHAKE, TlsError

if TYPE_CHECKING:
    from .tls import Tls

#: Connections accepted in one turn of the loop, and those that may be in their handshake at once.
_TURN: Final = 64
MAX_SHAKING: Final = 1024
#: Seconds until accepting is tried again where the process has no descriptors left.
_EXHAUSTED: Final = 0.2
_TLS: Final = b"\x16"

log = logging.getLogger(__name__)


class Listener:
    """Stands where an asyncio.Server would. `plain` says whether clients without TLS are served now."""

    def __init__(
        self,
        opened: socket.socket,
        accept: Callable[[], asyncio.BaseProtocol],
        tls: Tls,
        *,
        plain: Callable[[], bool] = lambda: False,
    ) -> None:
        self._socket = opened
        self._accept = accept
        self._tls = tls
        self._plain = plain
        self._loop = asyncio.get_running_loop()
        self._shaking: set[asyncio.Task[None]] = set()
        self._loop.add_reader(opened, self._ready)

    def close(self) -> None:
        """Accept no more; handshakes under way come to their end."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _ready(self) -> None:
        for _ in range(_TURN):
            try:
                connection, _address = self._socket.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                log.warning("no connection accepted: %s", error.strerror)
                self._loop.remove_reader(self._socket)
                self._loop.call_later(_EXHAUSTED, self._again)
                return
            if len(self._shaking) >= MAX_SHAKING:
                connection.close()
                continue
            task = self._loop.create_task(self._take(connection))
            self._shaking.add(task)
            task.add_done_callback(self._shaking.discard)

    def _again(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket, self._ready)

    async def _take(self, connection: socket.socket) -> None:
        peer = _peer(connection)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(HANDSHAKE):
                first = await self._peek(connection)
            if first != _TLS and self._plain():
                await self._loop.connect_accepted_socket(self._accept, connection)
                return
            if not first:
                connection.close()
                return
            context = self._tls.server
            if first != _TLS or context is None:
                raise TlsError(self._tls.problem if first == _TLS else "no TLS is spoken there")
            await self._loop.connect_accepted_socket(
                self._accept, connection, ssl=context, ssl_handshake_timeout=HANDSHAKE
            )
        except OSError as error:
            connection.close()
            self._tls.failed(peer, error)
        except asyncio.CancelledError:
            connection.close()
            raise

    async def _peek(self, connection: socket.socket) -> bytes:
        """The first byte, which stays to be read; nothing where the client ended."""
        readable = self._loop.create_future()
        self._loop.add_reader(connection, _done, readable)
        try:
            await readable
        finally:
            self._loop.remove_reader(connection)
        return connection.recv(1, socket.MSG_PEEK)


def _done(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


def _peer(connection: socket.socket) -> str:
    try:
        return str(connection.getpeername()[0])
    except OSError:
        return "a client that left"
