"""Places that answer for a revision: their connections, how busy they are, and whether they are left out for now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ..contract import Timeouts
from .sweeper import NEVER, Sweeper
from .upstream import UpstreamConnection

if TYPE_CHECKING:
    from .asker import Asker
    from .gate import Gate
    from .tls import Tls

#: Idle connections kept to one endpoint.
MAX_IDLE: Final = 256
#: Seconds an endpoint that refuses is left out: doubling from the first to the last.
FIRST_PAUSE: Final = 0.05
LAST_PAUSE: Final = 2.0

#: A whole number below its argument, at random.
Below = Callable[[int], int]


class Endpoint:
    """One host and port. `outstanding` counts requests under way there, those still connecting included."""

    __slots__ = (
        "_connecting", "failures", "gate", "held", "host", "idle", "keepalive", "outstanding", "port", "retired",
        "shut_until", "sweeper", "tls", "twin",
    )  # fmt: skip

    def __init__(self, host: str, port: int, sweeper: Sweeper, tls: Tls | None = None) -> None:
        self.host = host
        self.port = port
        self.sweeper = sweeper
        self.tls = tls
        self.keepalive = Timeouts().upstream_keepalive
        self.idle: list[UpstreamConnection] = []
        self.outstanding = 0
        #: For a model that takes so many requests at a time.
        self.gate: Gate | None = None
        self.failures = 0
        self.shut_until = 0.0
        #: Asked by nobody, not even by those who have no other hope: a model that is being warmed up.
        self.held = False
        #: No longer in the routing file: what is under way ends in peace, nothing is kept.
        self.retired = False
        #: The same place as gRPC's calls see it (`h2`): other connections, failures of its own.
        self.twin: Endpoint | None = None
        self._connecting: set[asyncio.Task[None]] = set()

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def connect(self, exchange: Asker, timeout: float) -> None:
        """Open a connection for an exchange, which is told of it by `connected` or `refused`."""
        if self.failures:
            # This request finds out whether the endpoint is back; the others need not wait for it as well.
            self._shut(monotonic() + self._pause())
        task = asyncio.get_running_loop().create_task(self._connect(exchange, timeout))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, exchange: Asker, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self), self.host, self.port, **self.options("http/1.1")
                )
        except OSError as error:  # TimeoutError and what goes wrong in TLS are some
            self.no_connection(error)
            exchange.refused(self, timed_out=isinstance(error, TimeoutError))
            return
        self.failures = 0
        self._shut(0.0)
        exchange.connected(connection)

    def left(self) -> None:
        """A request is no longer under way here."""
        self.outstanding -= 1
        if self.gate is not None:
            self.gate.left()

    def options(self, protocol: str) -> dict[str, Any]:
        """For `create_connection`; `protocol` as ALPN calls it. Raises OSError where there are no certificates."""
        return self.tls.options(protocol) if self.tls is not None else {}

    def no_connection(self, error: OSError) -> None:
        """None could be opened."""
        self.leave_out(monotonic())
        if self.tls is not None and not isinstance(error, ConnectionRefusedError):
            self.tls.failed(str(self), error)

    def leave_out(self, now: float) -> None:
        """Not to be asked for a while: it refused, or its sidecar says that its model did."""
        self.failures += 1
        self._shut(now + self._pause())

    def hold(self, held: bool) -> None:
        """Keep it from being asked at all, or let it be asked again."""
        self.held = held
        self.failures = 0
        self._shut(0.0)

    def _shut(self, until: float) -> None:
        self.shut_until = NEVER if self.held else until

    def _pause(self) -> float:
        return min(FIRST_PAUSE * 2.0 ** min(self.failures - 1, 10), LAST_PAUSE)

    def take(self) -> UpstreamConnection | None:
        """The connection used last: it has had the least time to die, and the surplus ones age out."""
        return self.idle.pop() if self.idle else None

    def park(self, connection: UpstreamConnection, now: float) -> None:
        """Keep an idle connection for the next request."""
        if connection.lost:
            return
        if self.retired or len(self.idle) >= MAX_IDLE:
            connection.transport.close()
            return
        self.idle.append(connection)
        connection.deadline = deadline = now + self.keepalive
        if deadline < connection.wake:
            self.sweeper.schedule(connection)

    def unpark(self, connection: UpstreamConnection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)

    def retire(self) -> None:
        self.retired = True
        for connection in self.idle:
            connection.transport.close()
        self.idle.clear()
        if self.twin is not None:
            self.twin.retire()

    def close(self) -> None:
        """End everything at once."""
        self.retire()
        for task in self._connecting:
            task.cancel()
        if self.twin is not None:
            self.twin.close()


def pick(endpoints: Sequence[Endpoint], now: float, below: Below, tried: Iterable[Endpoint] = ()) -> Endpoint | None:
    """The less busy one of two endpoints drawn at random from those that are open and not tried yet.

    Two choices keep the longest queue near log log n where one choice gives log n (Mitzenmacher 2001), without
    the herding of "the least busy of all" when several sidecars see the same picture.
    """
    usable = [endpoint for endpoint in endpoints if endpoint.shut_until <= now and endpoint not in tried]
    if len(usable) < 2:
        return usable[0] if usable else None
    first = below(len(usable))
    second = below(len(usable) - 1)
    if second >= first:
        second += 1
    one, other = usable[first], usable[second]
    return one if one.outstanding <= other.outstanding else other


class Book:
    """All endpoints by address. They outlive the routing files that name them, and so do their connections."""

    def __init__(self, sweeper: Sweeper) -> None:
        self._sweeper = sweeper
        self._keepalive = Timeouts().upstream_keepalive
        self._endpoints: dict[tuple[str, int, bool], Endpoint] = {}

    def get(self, host: str, port: int, tls: Tls | None = None) -> Endpoint:
        address = (host, port, tls is not None)
        endpoint = self._endpoints.get(address)
        if endpoint is None:
            endpoint = self._endpoints[address] = Endpoint(host, port, self._sweeper, tls)
            endpoint.keepalive = self._keepalive
        return endpoint

    @property
    def keepalive(self) -> float:
        """Seconds that an idle connection is kept."""
        return self._keepalive

    @keepalive.setter
    def keepalive(self, seconds: float) -> None:
        self._keepalive = seconds
        for endpoint in self._endpoints.values():
            endpoint.keepalive = seconds

    def keep_only(self, used: Iterable[Endpoint]) -> None:
        """Retire every endpoint but these."""
        wanted = set(used)
        for address, endpoint in list(self._endpoints.items()):
            if endpoint not in wanted:
                del self._endpoints[address]
                endpoint.retire()

    def close(self) -> None:
        for endpoint in self._endpoints.values():
            endpoint.close()
