"""When a revision is no longer asked: a circuit breaker over what its requests came to. Pure; time comes in.

Closed, it opens after so many failures in a row (Envoy's and Istio's `consecutive5xxErrors`, linkerd's
`failureAccrual: consecutive`), or where too small a share of a window's requests succeeded, of which there have to be
so many (linkerd's `successRate` with `minRequests`). Open, it admits nobody for a backoff; then it is half open: one
probe. The probe's success closes it, its failure opens it for twice as long (linkerd's `penalty`).
"""

from __future__ import annotations

from typing import Final, Literal

from ..contract import CircuitBreaker

State = Literal["closed", "half_open", "open"]
STATES: Final[tuple[State, ...]] = ("closed", "half_open", "open")

#: Parts of the window: what is older than the window is forgotten a part at a time.
PARTS: Final = 10


class Breaker:
    """Of one revision. All times are monotonic seconds and never go back."""

    __slots__ = (
        "_backoff", "_failures", "_parts", "_retry_at", "_row", "_successes", "opened", "settings", "state",
    )  # fmt: skip

    def __init__(self, settings: CircuitBreaker) -> None:
        self.settings = settings
        self.state: State = "closed"
        #: How often it left `closed`.
        self.opened = 0
        #: Failures in a row.
        self._row = 0
        #: Of the window: number of the part, successes, failures; the sums of both.
        self._parts: list[list[int]] = []
        self._successes = self._failures = 0
        self._retry_at = 0.0
        self._backoff = settings.min_backoff

    def ready(self, now: float) -> bool:
        """Whether `admit` would let a request through."""
        return self.state == "closed" or now >= self._retry_at

    def admit(self, now: float) -> bool:
        """Whether a request may go to the revision; open, it may as a probe.

        A probe that never tells (its client left) holds up nobody: the next one goes a backoff later.
        """
        if self.state == "closed":
            return True
        if now < self._retry_at:
            return False
        self.state = "half_open"
        self._retry_at = now + self._backoff
        return True

    def succeeded(self, now: float) -> None:
        """The revision answered a request."""
        if self.state == "closed":
            self._row = 0
            if self.settings.success_rate:
                self._part(now)[1] += 1
                self._successes += 1
        elif self.state == "half_open":
            self._close()
        # Open: an answer to a request from before says nothing new.

    def failed(self, now: float) -> None:
        """The revision did not answer a request, or with an error of its own."""
        if self.state == "closed":
            self._row += 1
            if self.settings.success_rate:
                self._part(now)[2] += 1
                self._failures += 1
            if self._trips():
                self.opened += 1
                self._open(now)
        elif self.state == "half_open":
            self._backoff = max(self.settings.min_backoff, min(self._backoff * 2, self.settings.max_backoff))
            self._open(now)

    def _trips(self) -> bool:
        settings = self.settings
        if 0 < settings.consecutive_failures <= self._row:
            return True
        count = self._successes + self._failures
        return count >= settings.min_requests and self._successes * 100 < settings.success_rate * count

    def _open(self, now: float) -> None:
        self.state = "open"
        self._retry_at = now + self._backoff

    def _close(self) -> None:
        self.state = "closed"
        self._row = self._successes = self._failures = 0
        self._parts.clear()
        self._backoff = self.settings.min_backoff

    def _part(self, now: float) -> list[int]:
        """The window's part of `now`; those that have left the window are taken out of the sums."""
        number = int(now * PARTS / self.settings.window)
        parts = self._parts
        if parts and parts[-1][0] == number:
            return parts[-1]
        while parts and parts[0][0] <= number - PARTS:
            _, successes, failures = parts.pop(0)
            self._successes -= successes
            self._failures -= failures
        parts.append([number, 0, 0])
        return parts[-1]
