"""Who asks an endpoint: a client's exchange, or a copy of one that nobody waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .endpoints import Endpoint
    from .table import Table
    from .upstream import Answer, UpstreamConnection


class Asker(Protocol):
    """What endpoints and upstream connections need of whoever they work for."""

    #: The request's; whether it offers another protocol.
    method: bytes
    upgrade: bool
    #: The routing that it met.
    table: Table

    def connected(self, connection: UpstreamConnection, /) -> None:
        """A connection that nobody has used yet is open."""

    def refused(self, endpoint: Endpoint, /, *, timed_out: bool) -> None:
        """No connection could be opened."""

    def pump(self) -> None:
        """The connection takes bytes again."""

    def hint(self, head: list[bytes], /) -> None:
        """An interim answer."""

    def answer_arrived(self, connection: UpstreamConnection, answer: Answer, now: float, /) -> None:
        """The answer's head, or more of its body, or its end."""

    def switched(self, connection: UpstreamConnection, rest: bytes, /) -> None:
        """101: the model takes the protocol that was offered. `rest` are its first bytes of it."""

    def upstream_lost(self, connection: UpstreamConnection, /, *, clean: bool) -> None:
        """The connection ended; `clean` says by an orderly end, which is how some answers end as well."""
