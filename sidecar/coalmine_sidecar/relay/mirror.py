"""Copies of requests to a revision that no client is on: a share of them, after they were answered, within bounds.

Nothing waits for a copy. It is made when the client's answer is written, from bytes that are still at hand, and what
there is no room or time for is dropped and counted. Only predictions are copied: the client's answer has to hold
something to compare, which neither a stream of events has nor a method that changes something.

A copy is the request as the primary got it, credentials included: the canary is the same model deployment in the same
namespace, and one that refuses strangers would disagree with every request that came without them. `Host` stays too
(Envoy appends `-shadow`, which servers with a list of hosts refuse); what tells a copy is a header of its own.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Final

from ..observe.budget import CpuBudget
from .shadow import Shadow

if TYPE_CHECKING:
    from ..contract import Mirror, Routing
    from ..telemetry import EpochCell
    from ..telemetry.shadow import ShadowCounters
    from .endpoints import Below
    from .outbox import Outbox
    from .reply import Reply
    from .sending import Sending
    from .sweeper import Sweeper
    from .table import Target
    from .upstream import Answer

#: Copies of one sidecar under way at a time, waiting ones included.
MAX_IN_FLIGHT: Final = 64
#: Bytes of their bodies and of the answers to compare with; theirs may take as much again.
MAX_BYTES: Final = 8 << 20
#: The share of one core that copying and comparing may take.
SHARE: Final = 0.2
#: Seconds of it at a stretch, after which the event loop has its turn.
SLICE: Final = 0.002


class Copying:
    """What all copies of a sidecar share: the bounds, and the work that is put off."""

    def __init__(
        self,
        sweeper: Sweeper,
        outbox: Outbox,
        *,
        rng: random.Random,
        clock: Callable[[], float] = perf_counter,
        share: float = SHARE,
    ) -> None:
        self.sweeper = sweeper
        self.outbox = outbox
        self.draw = rng.random
        self.bytes = 0
        self.shadows: set[Shadow] = set()
        self._clock = clock
        self._budget = CpuBudget(share, clock())
        self._queue: deque[Shadow] = deque()
        self._scheduled = False

    def put_off(self, shadow: Shadow) -> None:
        """Go on with a copy soon, after the answers that clients wait for."""
        self._queue.append(shadow)
        if not self._scheduled:
            self._scheduled = True
            self.outbox.after(self._work)

    @property
    def overfull(self) -> bool:
        """Whether answers are longer than there is room for; requests alone take half of it at most."""
        return self.bytes > 2 * MAX_BYTES

    def close(self) -> None:
        self._queue.clear()
        for shadow in tuple(self.shadows):
            shadow.drop("cancelled")

    def _work(self) -> None:
        self._scheduled = False
        queue = self._queue
        start = now = self._clock()
        if not self._budget.open(start):
            while queue:
                queue.popleft().drop("budget")
            return
        while queue and now - start < SLICE:
            queue.popleft().go_on()
            now = self._clock()
        self._budget.spend(now - start)
        if queue:
            self._scheduled = True
            self.outbox.after(self._work)


class Mirroring:
    """The mirror of one routing file. `target`: whom copies are for, its series those of copies (role shadow)."""

    __slots__ = (
        "_percent",
        "below",
        "copying",
        "counters",
        "how",
        "observe_bytes",
        "protocol",
        "source",
        "target",
        "timeouts",
    )

    def __init__(
        self,
        copying: Copying,
        how: Mirror,
        *,
        source: Target,
        target: Target,
        counters: ShadowCounters,
        routing: Routing,
        below: Below,
    ) -> None:
        self.copying = copying
        self.how = how
        self.source = source
        self.target = target
        self.counters = counters
        self.below = below
        self.protocol = routing.observe.protocol
        self.timeouts = routing.timeouts
        self.observe_bytes = routing.limits.observe_bytes
        self._percent = how.percent / 100

    @property
    def cell(self) -> EpochCell | None:
        return self.target.cell

    def pass_over(self, name: str) -> None:
        """A call of gRPC, which is not kept, was answered by a revision: count it if its turn were to be copied."""
        if name == self.source.name and self.copying.draw() < self._percent:
            self.counters.dropped["grpc"] += 1

    def offer(self, exchange: Sending, answer: Answer, target: Target, reply: Reply) -> None:
        """A request that chance gave to `target` was answered with 200, and the answer is written."""
        copying = self.copying
        if target is not self.source or exchange.method != b"POST" or copying.draw() >= self._percent:
            return
        if exchange.upgrade or exchange.trailers:
            return
        dropped = self.counters.dropped
        if not exchange.held:
            dropped["size"] += 1
        elif reply.copy is None:
            dropped[reply.skipped] += 1
        elif len(copying.shadows) >= MAX_IN_FLIGHT:
            dropped["in_flight"] += 1
        elif copying.bytes + exchange.size + reply.size > MAX_BYTES:
            dropped["bytes"] += 1
        else:
            Shadow(self, exchange, answer, b"".join(reply.copy))
