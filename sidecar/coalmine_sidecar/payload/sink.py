"""Where events go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .event import Event


class SinkError(Exception):
    """Not all events arrived, but only the first `sent` of them; one line that says why, without secrets."""

    def __init__(self, problem: str, sent: int = 0) -> None:
        super().__init__(problem)
        self.sent = sent


class Sink(Protocol):
    """`batch`: exchanges that are sent together; `workers`: how many at a time may send. `name` is for logs.

    `linger`: seconds that one waits for others to be sent with it.

    `rate`: exchanges a second, at most: what is made and sent takes CPU from the requests beside it.

    `send` takes all of what it is given, or raises SinkError; it may take as long as it likes.
    """

    name: str
    batch: int
    workers: int
    linger: float
    rate: float

    async def send(self, events: Sequence[Event]) -> None: ...

    async def close(self) -> None: ...
