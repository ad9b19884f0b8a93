"""What is counted of copies of requests, which no client waits for."""

from __future__ import annotations

from typing import Final

from ..protocols import DISAGREEMENTS
from .counters import zeros

#: Why a copy was not sent, or its answer not compared. `in_flight`, `bytes`, `budget`: too much at once; `size`: a body
#: too long to be kept; `unreadable`: the client's answer holds nothing to compare; `encoding`: one of both is packed;
#: `busy`: its model takes no more (`containerConcurrency`); `grpc`: calls are not copied; `no_endpoint`: nobody to send
#: it to; `cancelled`: the sidecar ended.
SHADOW_DROPS: Final = (
    "in_flight", "bytes", "budget", "size", "unreadable", "encoding", "busy", "grpc", "no_endpoint", "cancelled",
)  # fmt: skip


class ShadowCounters:
    """Copies sent to one revision, and what became of their answers."""

    __slots__ = ("compared", "disagreements", "dropped", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.compared = 0
        self.disagreements = zeros(DISAGREEMENTS)
        self.dropped = zeros(SHADOW_DROPS)
