"""A connection that has left HTTP: bytes both ways between a client and a model, as they come.

Either side may end its half and go on reading. Where one side breaks, the other one's connection is broken as well:
an orderly end would tell it that all had arrived.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

from .sweeper import Timed

if TYPE_CHECKING:
    from .front import Front

_AT_ONCE: Final = struct.pack("ii", 1, 0)


def reset(transport: asyncio.Transport) -> None:
    """End a connection so that the peer sees it broken, not ended."""
    opened = transport.get_extra_info("socket")
    if opened is not None and not transport.is_closing():
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()


class Tunnel(Timed):
    """Stands in its front's connections for the client's, until both sides have ended.

    `idle`: seconds of silence on both sides that end it. `ended` is told once: whether the model broke it, whether the
    client did, and the bytes that went up and down.
    """

    __slots__ = ("_client", "_ended", "_front", "_idle", "_model")
    __deletable__ = ("_client", "_model")

    def __init__(
        self,
        front: Front,
        client: asyncio.Transport,
        model: asyncio.Transport,
        *,
        idle: float,
        ended: Callable[[bool, bool, int, int], None],
    ) -> None:
        super().__init__()
        self._front = front
        self._idle = idle
        self._ended = ended
        self._client = _Side(self, client)
        self._model = _Side(self, model)
        self._client.other, self._model.other = self._model, self._client
        front.connections.add(self)
        front.sweeper.watch(self, monotonic() + idle)
        for side in (self._client, self._model):
            side.transport.set_protocol(side)

    # What the front calls

    @property
    def busy(self) -> bool:
        return True

    def drain(self, now: float) -> None:
        """It is ended by those who talk in it; what the drain does not wait for is cut off."""

    def abort(self) -> None:
        self._client.broken = True
        self._client.transport.abort()
        self._model.transport.abort()

    # Time

    def expire(self, now: float) -> None:
        """Nobody spoke, or somebody did not listen."""
        reset(self._client.transport)
        reset(self._model.transport)

    # What the sides call

    def moved(self) -> None:
        # Only ever later: the wheel finds out when the old time comes.
        self.deadline = monotonic() + self._idle

    def side_ended(self, side: _Side) -> None:
        other = side.other
        if other.eof:
            side.transport.close()
            other.transport.close()
        elif other.transport.can_write_eof():
            other.transport.write_eof()
        else:
            # TLS knows no half of a connection that ends.
            other.transport.close()

    def side_lost(self, side: _Side, *, broken: bool) -> None:
        other = side.other
        if not other.lost:
            if broken or not other.eof:
                reset(other.transport)
            else:
                other.transport.close()
            return
        self._front.connections.discard(self)
        self._front.sweeper.forget(self)
        client, model = self._client, self._model
        self._ended(model.broken and not client.eof, client.broken, client.size, model.size)
        # Nobody calls any more: without these circles all goes at once.
        del self._client, self._model, client.other, model.other


class _Side(asyncio.Protocol):
    """One of the two connections. `size` counts the bytes it sent, `eof` says that it sent its last one."""

    __slots__ = ("_tunnel", "broken", "eof", "lost", "other", "size", "transport")
    __deletable__ = ("other",)

    def __init__(self, tunnel: Tunnel, transport: asyncio.Transport) -> None:
        self._tunnel = tunnel
        self.transport = transport
        self.other: _Side
        self.size = 0
        self.eof = False
        self.lost = False
        #: It was this side that broke, before the other one did.
        self.broken = False

    def data_received(self, data: bytes) -> None:
        self.size += len(data)
        self._tunnel.moved()
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        self.eof = True
        self._tunnel.moved()
        self._tunnel.side_ended(self)
        # With TLS the whole connection ends here, and saying otherwise earns a warning.
        return self.transport.can_write_eof()

    def pause_writing(self) -> None:
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self._tunnel.moved()
        self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.broken = self.broken or (exc is not None and not self.other.lost)
        self._tunnel.side_lost(self, broken=exc is not None)
