"""How many requests may be sent again: a retry budget. Pure; time comes in.

As Finagle and linkerd have it: retries may be so many per cent of the requests of the last seconds, plus a few each
second, so that they also work where there is little traffic. A limit for each request would let a revision in distress
get several times its load; this one keeps the surplus in proportion.
"""

from __future__ import annotations

from typing import Final

from ..contract import RetryBudget

#: Parts of the window: what is older than the window is forgotten a part at a time.
PARTS: Final = 10


class Budget:
    """Of one revision. `requests` is what the caller counts up; retries are not among them."""

    __slots__ = ("_parts", "requests", "settings")

    def __init__(self, settings: RetryBudget, now: float) -> None:
        self.settings = settings
        self.requests = 0
        #: Number of the part, requests when it began, retries in it.
        self._parts: list[list[int]] = []
        self.sample(now)

    def sample(self, now: float) -> None:
        """Note how many requests there were; to be called once a part, or the window is shorter than it is to be."""
        number = int(now * PARTS / self.settings.window)
        parts = self._parts
        if not parts or parts[-1][0] != number:
            parts.append([number, self.requests, 0])
            while parts[0][0] <= number - PARTS:
                del parts[0]

    def withdraw(self, now: float) -> bool:
        """Whether one more retry is within the budget; if so it is counted."""
        self.sample(now)
        settings = self.settings
        parts = self._parts
        requests = self.requests - parts[0][1]
        allowed = settings.min_per_second * settings.window + requests * settings.percent / 100
        if sum(part[2] for part in parts) + 1 > allowed:
            return False
        parts[-1][2] += 1
        return True
