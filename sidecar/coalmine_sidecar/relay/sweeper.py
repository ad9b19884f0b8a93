"""Deadlines of thousands of connections on one timer.

A timer handle for each request would cost more than the request's own bookkeeping. Here a deadline is an attribute;
moving it later, which is what nearly every request does, costs one store and one comparison, and the wheel finds
out when the old time comes. Deadlines are met up to two ticks late.
"""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from typing import Final, Protocol

TICK: Final = 0.05
NEVER: Final = math.inf


class Watched(Protocol):
    """Something with a deadline (monotonic seconds), both NEVER to begin with."""

    deadline: float
    #: When the wheel will look at this one; it is in the wheel exactly if this is finite.
    wake: float

    def expire(self, now: float) -> None:
        """The deadline came."""


class Timed:
    """A base for what is watched and is nothing else already."""

    __slots__ = ("deadline", "wake")

    def __init__(self) -> None:
        self.deadline = NEVER
        self.wake = NEVER

    def expire(self, now: float) -> None:
        raise NotImplementedError


class Sweeper:
    """A wheel of ticks: each one watched stands in at most one slot."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, set[Watched]] = {}
        #: All slots up to this one lie in the past and are empty.
        self._swept = _slot(monotonic()) - 1
        self._timer: asyncio.TimerHandle | None = loop.call_later(TICK, self._tick)

    def watch(self, timed: Watched, deadline: float) -> None:
        """Set a deadline. The hot path does these three lines in place."""
        timed.deadline = deadline
        if deadline < timed.wake:
            self.schedule(timed)

    def schedule(self, timed: Watched) -> None:
        """Look at `timed` when its deadline comes, no longer when it was to be looked at before."""
        self.forget(timed)
        if timed.deadline == NEVER:
            return
        slot = max(_slot(timed.deadline), self._swept + 1)
        timed.wake = slot * TICK
        self._slots.setdefault(slot, set()).add(timed)

    def forget(self, timed: Watched) -> None:
        """Take out of the wheel, so that what is closed can be freed before its time."""
        if timed.wake != NEVER:
            # Rounding, not _slot(): wake is slot * TICK, which may lie a hair below the product's true value.
            slot = round(timed.wake / TICK)
            entries = self._slots.get(slot)
            if entries is not None:
                entries.discard(timed)
                if not entries:
                    del self._slots[slot]
            timed.wake = NEVER

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._slots.clear()

    def _tick(self) -> None:
        now = monotonic()
        first, self._swept = self._swept + 1, _slot(now) - 1
        for slot in range(first, self._swept + 1):
            self._sweep(slot, now)
        self._timer = self._loop.call_later(TICK, self._tick)

    def _sweep(self, slot: int, now: float) -> None:
        for timed in self._slots.pop(slot, ()):
            if timed.wake != slot * TICK:
                continue  # An entry of this slot that expired before it moved it to another one.
            timed.wake = NEVER
            if timed.deadline <= now:
                timed.expire(now)
            else:
                self.schedule(timed)


def _slot(when: float) -> int:
    return int(when / TICK)
