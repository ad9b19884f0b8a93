"""A listening role of the sidecar and the connections it has accepted."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from ..telemetry import EpochCell, Series
from .downstream import DRAIN_IDLE, ClientConnection
from .outbox import Outbox
from .question import Question
from .sweeper import Sweeper
from .table import Table
from .trace import Ids
from .tunnel import Tunnel

if TYPE_CHECKING:
    from .h2.client import ClientLink
    from .h2.view import View

MAX_CONNECTIONS: Final = 10_000


class AnswerObserver(Protocol):
    """Who reads the answers after they were sent: observe.Observer."""

    def offer(
        self,
        series: Series,
        cell: EpochCell | None,
        path: bytes,
        content_type: bytes,
        json_length: int | None,
        body: bytes,
        question: Question | None = None,
    ) -> None: ...

    def skip(self, series: Series, reason: str) -> None: ...

    def follow(self, series: Series, path: bytes, content_type: bytes, started: float) -> AnswerFollower | None: ...


class AnswerFollower(Protocol):
    """Who reads one answer while it passes: observe.stream.Follower."""

    def feed(self, pieces: list[bytes], now: float) -> None: ...

    def end(self, cell: EpochCell | None, question: Question | None = None) -> int: ...

    def stop(self) -> None: ...


class Front:
    """`ingress` routes, announces who answered and lets answers be observed; `local` serves this pod's model alone.

    `table` is replaced when the routing file changes; each request keeps the one it met.
    """

    __slots__ = (
        "announces", "connections", "drain_idle", "draining", "ids", "max_connections", "observer", "outbox", "sweeper",
        "table", "view",
    )  # fmt: skip

    def __init__(
        self,
        table: Table,
        sweeper: Sweeper,
        outbox: Outbox,
        *,
        announces: bool,
        observer: AnswerObserver | None = None,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self.table = table
        self.sweeper = sweeper
        self.outbox = outbox
        self.announces = announces
        #: Requests that lack one get an id here; what comes from another sidecar has one.
        self.ids = Ids() if announces else None
        self.observer = observer
        self.max_connections = max_connections
        self.connections: set[ClientConnection | ClientLink | Tunnel] = set()
        #: `table` as gRPC's calls see it; made when one comes.
        self.view: View | None = None
        self.draining = False
        #: Seconds that a connection may be idle in a drain.
        self.drain_idle = DRAIN_IDLE

    def accept(self) -> ClientConnection:
        """The protocol factory of the role's listening socket."""
        return ClientConnection(self)

    @property
    def busy(self) -> int:
        """Connections that have something to be answered."""
        return sum(connection.busy for connection in self.connections)

    def drain(self, idle: float = DRAIN_IDLE) -> None:
        """From now on every answer is its connection's last, and those idle for `idle` seconds end."""
        self.draining = True
        self.drain_idle = idle
        now = monotonic()
        for connection in tuple(self.connections):
            connection.drain(now)

    def abort(self) -> None:
        """End every connection at once."""
        for connection in tuple(self.connections):
            connection.abort()
