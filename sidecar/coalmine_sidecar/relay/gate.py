"""The gate before a pod's model: so many requests at a time, and a bounded queue, first come first served.

The limit is the model's (`containerConcurrency`, as Knative has it), so the gate stands where both roles and both
protocols pass: at the model's endpoints. Time comes in; nothing here waits.
"""

from __future__ import annotations

from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from ..telemetry import QueueCounters

if TYPE_CHECKING:
    from ..contract import Concurrency


class Door(Protocol):
    """An endpoint of the model."""

    outstanding: int


class Waiter(Protocol):
    """A request; by its identity."""

    def admitted(self, now: float) -> None:
        """Its turn has come: it asks the model at once, or gives its place back."""

    def __hash__(self) -> int: ...


class Entry(Enum):
    """What becomes of a request that comes."""

    ADMITTED = 1
    #: Until it is `admitted`.
    QUEUED = 2
    TURNED_AWAY = 3


class Gate:
    """`door` and `twin` are the endpoints of one model: who is under way there is counted by them."""

    __slots__ = ("_door", "_handing", "_twin", "_waiting", "counters", "depth", "limit")

    def __init__(self, door: Door, twin: Door, settings: Concurrency, counters: QueueCounters) -> None:
        self._door = door
        self._twin = twin
        self.limit = settings.limit
        self.depth = settings.queue_depth
        self.counters = counters
        #: Since when, in the order in which they came.
        self._waiting: dict[Waiter, float] = {}
        self._handing = False

    @property
    def running(self) -> int:
        return self._door.outstanding + self._twin.outstanding

    @property
    def load(self) -> int:
        """Requests that the model works on or that wait for it."""
        return self.running + len(self._waiting)

    @property
    def open(self) -> bool:
        """Whether a request need not wait."""
        return self._door.outstanding + self._twin.outstanding < self.limit and not self._waiting

    @property
    def full(self) -> bool:
        """Whether a request is turned away."""
        return len(self._waiting) >= self.depth and not self.open

    def enter(self, waiter: Waiter, now: float) -> Entry:
        """A request comes: it goes on, waits in the queue, or finds no room there."""
        if self.open:
            self.counters.wait.counts[0] += 1
            return Entry.ADMITTED
        if len(self._waiting) >= self.depth:
            self.counters.turned_away["full"] += 1
            return Entry.TURNED_AWAY
        self._waiting[waiter] = now
        self.counters.depth = len(self._waiting)
        return Entry.QUEUED

    def forget(self, waiter: Waiter, now: float) -> None:
        """It waits no longer."""
        since = self._waiting.pop(waiter, None)
        if since is not None:
            self.counters.depth = len(self._waiting)
            self.counters.wait.observe(now - since)

    def time_out(self, waiter: Waiter, now: float) -> None:
        """It has waited for too long."""
        self.counters.turned_away["timeout"] += 1
        self.forget(waiter, now)

    def left(self) -> None:
        """A request is done with the model: whose turn is it?"""
        # Whoever is admitted may leave before this returns: one loop hands out all places, however deep the calls.
        if not self._waiting or self._handing:
            return
        self._handing = True
        now = monotonic()
        try:
            while self._waiting and self.running < self.limit:
                waiter = next(iter(self._waiting))
                self.forget(waiter, now)
                waiter.admitted(now)
        finally:
            self._handing = False

    def set(self, settings: Concurrency) -> None:
        """Other settings; who waits beyond a smaller depth goes on waiting."""
        self.limit = settings.limit
        self.depth = settings.queue_depth
        self.left()

    def remove(self) -> None:
        """There is no limit any more."""
        waiting, self._waiting = self._waiting, {}
        now = monotonic()
        self.counters.depth = 0
        for waiter, since in waiting.items():
            self.counters.wait.observe(now - since)
            waiter.admitted(now)
