"""A routing file made ready for the hot path: every name a request may need looked up once, when the file is read."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from msgspec import UNSET

from ..contract import REASONS, Limits, Routing, Timeouts
from ..routing import AFFINITY, WEIGHT, Chooser
from ..telemetry import EpochCell, Series, Telemetry
from .breaker import Breaker
from .endpoints import Below, Endpoint, pick
from .question import Asks
from .retries import Budget
from .trace import ENDINGS

if TYPE_CHECKING:
    from .mirror import Mirroring

LOCAL = REASONS.index("local")
#: Reasons that are chance, or as good as chance: only these are charged to an epoch.
_DRAWN = frozenset({WEIGHT, AFFINITY})


class Asked(Protocol):
    """What routing asks of a request: the value of a header by its lower-case name."""

    def lookup(self, name: bytes, /) -> bytes | None: ...


class Target:
    """A revision as requests see it. `model` is set for the pod's own revision: over loopback, before any other."""

    __slots__ = ("breaker", "budget", "cell", "decisions", "endpoints", "line", "met", "model", "name", "series")

    def __init__(
        self,
        name: str,
        series: Series,
        cell: EpochCell | None,
        *,
        model: Endpoint | None,
        endpoints: Sequence[Endpoint],
        met: Container[str] | None = None,
        budget: Budget,
        breaker: Breaker | None = None,
        decisions: list[int],
    ) -> None:
        """`met`: names of the revisions of which a pod was known here once; the caller keeps it up to date.

        `decisions`: how many requests were sent here for each of contract.REASONS.
        """
        self.name = name
        self.met = met
        self.budget = budget
        self.decisions = decisions
        self.breaker = breaker
        self.series = series
        self.cell = cell
        self.model = model
        #: The pods of the revision; what resolves names may change this list while the table stands.
        self.endpoints = endpoints
        #: Tells a client who answered; the local role leaves that to the ingress.
        self.line = b"coalmine-revision: %s\r\n" % name.encode()

    @property
    def unmet(self) -> bool:
        """Whether no pod of it was known here yet: names take seconds to spread, which is no failure of a revision."""
        return self.model is None and self.met is not None and self.name not in self.met

    def pick(self, now: float, below: Below, tried: Iterable[Endpoint] = ()) -> Endpoint | None:
        """An endpoint that is not left out for now; None if there is none."""
        model = self.model
        if model is not None and model.shut_until <= now and model not in tried:
            gate = model.gate
            if gate is None or gate.open:
                return model
            other = pick(self.endpoints, now, below, tried)
            return other if other is not None and (gate.full or other.outstanding < gate.load) else model
        return pick(self.endpoints, now, below, tried)

    def any(self, tried: Iterable[Endpoint] = ()) -> Endpoint | None:
        """The endpoint that is back soonest, open or not: for requests nobody else could answer."""
        every = [self.model, *self.endpoints] if self.model is not None else self.endpoints
        return min((e for e in every if e not in tried and not e.held), key=lambda e: e.shut_until, default=None)


class Aside:
    """Requests for one path, its query aside, that are nobody's prediction: they have a table of their own."""

    __slots__ = ("path", "table")

    def __init__(self, path: str, table: Table) -> None:
        self.path = path.encode()
        self.table = table


class Table:
    """One routing file in force. Requests keep the table they began with."""

    __slots__ = (
        "_draw", "_routing", "aside", "asks", "below", "chain", "chooser", "idempotent", "limits", "mirror",
        "new_trace", "own", "protocol", "statuses", "targets", "telemetry", "timeouts", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        telemetry: Telemetry,
        below: Below,
        own: Target,
        *,
        targets: dict[str, Target] | None = None,
        chooser: Chooser | None = None,
        routing: Routing | None = None,
        waiting: bool = False,
        mirror: Mirroring | None = None,
        aside: Aside | None = None,
    ) -> None:
        """Without a chooser every request is for `own`: the local role. `waiting`: for the first routing file."""
        self.aside = aside
        self._routing = routing
        self.waiting = waiting
        self.mirror = mirror
        self.telemetry = telemetry
        self.below = below
        self.own = own
        self.targets = targets if targets is not None else {own.name: own}
        self.chooser = chooser
        self._draw = chooser.draw if chooser is not None and chooser.by_weight_only else None
        self.limits = routing.limits if routing else Limits()
        self.timeouts = routing.timeouts if routing else Timeouts()
        self.idempotent = routing.idempotent if routing else True
        #: How errors are said.
        self.protocol = routing.observe.protocol if routing else "auto"
        self.new_trace = ENDINGS[routing.new_traces if routing else "sampled"]
        relays = routing is not None and chooser is not None
        monitoring = routing.monitoring if routing is not None and relays else UNSET
        #: What is kept of requests for who reads their answers; None: nothing.
        self.asks = None if monitoring is UNSET else Asks(monitoring)
        self.chain = routing.fallback.chain if routing and relays else ()
        self.statuses = frozenset(routing.fallback.status_codes) if routing and relays else frozenset()

    def with_targets(self, own: Target, targets: dict[str, Target]) -> Table:
        """The same table, and the same deck of cards, for others to ask in the place of its targets."""
        return Table(
            self.telemetry,
            self.below,
            own,
            targets=targets,
            chooser=self.chooser,
            routing=self._routing,
            waiting=self.waiting,
            mirror=self.mirror,
            aside=self.aside,
        )

    def route(self, exchange: Asked) -> tuple[Target, EpochCell | None]:
        """The revision of a request, and the cell it is charged to if chance chose it."""
        if self._draw is not None:
            target, reason = self.targets[self._draw()], WEIGHT
        elif self.chooser is not None:
            name, reason = self.chooser.choose(exchange.lookup, self._reachable)
            target = self.targets[name]
        else:
            target, reason = self.own, LOCAL
        target.decisions[reason] += 1
        return target, target.cell if reason in _DRAWN else None

    def _reachable(self, name: str) -> bool:
        target = self.targets[name]
        return target.model is not None or bool(target.endpoints)
