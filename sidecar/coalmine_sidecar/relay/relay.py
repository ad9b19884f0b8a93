"""The relay as a whole: both fronts, and what they share. Takes over a new routing file without losing a request."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING

from msgspec import UNSET

from ..contract import REASONS, SECURE, Concurrency, RetryBudget, RevisionRoute, Routing, RoutingError
from ..outward import split_address
from ..routing import Chooser
from ..telemetry import QueueCounters, Series, Telemetry
from ..telemetry.store import Role
from .endpoints import Book, Endpoint
from .front import MAX_CONNECTIONS, AnswerObserver, Front
from .gate import Gate
from .h2.model import Channel
from .h2.view import channel_of
from .mirror import Copying, Mirroring
from .names import Names
from .outbox import Outbox
from .retries import Budget
from .safeguards import Safeguards
from .sweeper import Sweeper
from .table import Aside, Table, Target

if TYPE_CHECKING:
    from .tls import Tls

#: Host, port, and whether TLS is spoken there.
Address = tuple[str, int, bool]

log = logging.getLogger(__name__)


class Relay:
    """`model`: host and port of the pod's own model; `model_grpc` those of its gRPC, where they are others.

    `revision`: the pod's own, which may not be in the file (yet).
    """

    def __init__(
        self,
        telemetry: Telemetry,
        observer: AnswerObserver,
        *,
        revision: str,
        model: tuple[str, int],
        model_grpc: tuple[str, int] | None = None,
        rng: random.Random | None = None,
        max_connections: int = MAX_CONNECTIONS,
        model_tls: Tls | None = None,
        peers_tls: Tls | None = None,
        outbox: Outbox | None = None,
        feedback: tuple[str, int] | None = None,
    ) -> None:
        """`feedback`: who takes labels of predictions, where the routing file has a path for them."""
        self.telemetry = telemetry
        self.revision = revision
        # Not for secrets: shares of traffic only must not be foreseeable by habit.
        self._rng = rng or random.Random()  # noqa: S311 - shares of traffic are no secret
        loop = asyncio.get_running_loop()
        self._sweeper = Sweeper(loop)
        self.outbox = outbox or Outbox(loop)
        self._book = Book(self._sweeper)
        self._safeguards = Safeguards(telemetry, self._sweeper)
        self._names = Names(self._resolve)
        self._model = Endpoint(*model, self._sweeper, model_tls)
        self._model.twin = Channel(*(model_grpc or model), self._sweeper, model_tls)
        self._feedback = self._label_taker(feedback) if feedback is not None else None
        self._peers_tls = peers_tls
        #: Pods of a revision without TLS are there, which know no other way to ask here.
        self.plain = False
        self._chooser: Chooser | None = None
        self.copying = Copying(self._sweeper, self.outbox, rng=self._rng)
        #: Own addresses of the local role: asking there for another pod would be asking oneself.
        self.own_addresses: frozenset[tuple[str, int]] = frozenset()
        #: The lists that tables hold, with the addresses in the file they are made of.
        self._pods: dict[str, tuple[list[Endpoint], tuple[Address, ...]]] = {}
        #: Revisions of which a pod was known once.
        self._met: set[str] = set()
        self.routing: Routing | None = None
        self.local = Front(
            self._local_table(None), self._sweeper, self.outbox, announces=False, max_connections=max_connections
        )
        self.ingress = Front(
            Table(telemetry, self._below, self._own("ingress"), waiting=True),
            self._sweeper,
            self.outbox,
            announces=True,
            observer=observer,
            max_connections=max_connections,
        )

    def use(self, routing: Routing) -> None:
        """Put a routing file in force. Raises RoutingError if an endpoint is no host:port; then nothing changed."""
        try:
            addresses = {route.name: tuple(map(_address, route.endpoints)) for route in routing.revisions}
        except ValueError as error:
            raise RoutingError(f"routing file: revisions: endpoints: {error}") from None
        self.telemetry.configure(routing)
        self.routing = routing
        self._model.keepalive = routing.timeouts.upstream_keepalive
        self._set_gate(routing.concurrency)
        self._book.keepalive = routing.timeouts.upstream_keepalive
        self._names.follow({host for pods in addresses.values() for host, _, _ in pods})
        self.plain = not all(secure for pods in addresses.values() for _, _, secure in pods)
        self._pods = {name: ([], pods) for name, pods in addresses.items()}
        self._met &= addresses.keys()
        self._resolve()
        self._chooser = Chooser(routing, self._rng, self._chooser)
        self._safeguards.use(routing, self.revision)
        targets = {route.name: self._target(route) for route in routing.revisions}
        self.ingress.table = Table(
            self.telemetry,
            self._below,
            targets.get(self.revision) or self._own("ingress"),
            targets=targets,
            chooser=self._chooser,
            routing=routing,
            mirror=self._mirror(routing, targets),
            aside=self._aside(routing),
        )
        self.local.table = self._local_table(routing)
        log.info("routing generation %d: %s", routing.generation, _shares(routing))

    def others(self) -> list[Endpoint]:
        """The other pods of all revisions, as their names are resolved now; each once."""
        return list(dict.fromkeys(endpoint for endpoints, _ in self._pods.values() for endpoint in endpoints))

    def hold_model(self, held: bool) -> None:
        """Send the pod's own model no requests for now; other pods and revisions answer them."""
        for endpoint in (self._model, channel_of(self._model)):
            endpoint.hold(held)

    def close(self) -> None:
        """End every connection and every timer."""
        self.ingress.abort()
        self.local.abort()
        self.copying.close()
        self._names.stop()
        self._book.close()
        self._model.close()
        if self._feedback is not None and self._feedback.model is not None:
            self._feedback.model.close()
        self._sweeper.stop()

    def _below(self, bound: int) -> int:
        return int(self._rng.random() * bound)

    def _own(self, role: str) -> Target:
        """The own revision as it is without a word about it in the file."""
        series = self.telemetry.series(self.revision, "local" if role == "local" else "ingress")
        budget = self._safeguards.budget(self.revision, role)
        decisions = self.telemetry.decisions(self.revision)
        return Target(self.revision, series, None, model=self._model, endpoints=(), budget=budget, decisions=decisions)

    def _local_table(self, routing: Routing | None) -> Table:
        aside = self._aside(routing) if routing is not None else None
        return Table(self.telemetry, self._below, self._own("local"), routing=routing, aside=aside)

    def _label_taker(self, address: tuple[str, int]) -> Target:
        """Its requests are counted where nobody looks: feedback has counters of its own."""
        endpoint = Endpoint(*address, self._sweeper)
        budget = Budget(RetryBudget(), monotonic())
        series = Series("feedback", "local", {})
        taker = Target(
            "feedback", series, None, model=endpoint, endpoints=(), budget=budget, decisions=[0] * len(REASONS)
        )
        taker.line = b""
        return taker

    def _aside(self, routing: Routing) -> Aside | None:
        monitoring = routing.monitoring
        if self._feedback is None or monitoring is UNSET or monitoring.feedback is None:
            return None
        return Aside(monitoring.feedback.path, Table(self.telemetry, self._below, self._feedback))

    def _mirror(self, routing: Routing, targets: dict[str, Target]) -> Mirroring | None:
        how = routing.mirror
        if how is UNSET or not routing.idempotent:
            return None
        route = next(route for route in routing.revisions if route.name == how.target)
        return Mirroring(
            self.copying,
            how,
            source=targets[how.source],
            target=self._target(route, "shadow"),
            counters=self.telemetry.shadow(how.target),
            routing=routing,
            below=self._below,
        )

    def _target(self, route: RevisionRoute, role: Role = "ingress") -> Target:
        return Target(
            route.name,
            self.telemetry.series(route.name, role),
            self.telemetry.epoch(route.name),
            model=self._model if route.name == self.revision else None,
            endpoints=self._pods[route.name][0],
            met=self._met,
            budget=self._safeguards.budget(route.name, "ingress"),
            breaker=self._safeguards.breaker(route.name),
            decisions=self.telemetry.decisions(route.name),
        )

    def _set_gate(self, settings: Concurrency | None) -> None:
        """As many requests at the model as it is to get at a time, whichever way they come."""
        gate = self._model.gate
        if settings is not None and gate is not None:
            gate.set(settings)
            return
        door, twin = self._model, channel_of(self._model)
        self.telemetry.queue = counters = QueueCounters() if settings is not None else None
        new = Gate(door, twin, settings, counters) if settings is not None and counters is not None else None
        door.gate = twin.gate = new
        if gate is not None:
            gate.remove()

    def _resolve(self) -> None:
        """Fill the lists of endpoints from what the names stand for now; the tables in force see it at once."""
        for endpoints, pods in self._pods.values():
            endpoints[:] = self._endpoints(pods)
        self._met.update(name for name, (endpoints, _) in self._pods.items() if endpoints)
        self._book.keep_only(endpoint for endpoints, _ in self._pods.values() for endpoint in endpoints)

    def _endpoints(self, pods: Iterable[Address]) -> list[Endpoint]:
        found = {
            (address, port, secure): None for host, port, secure in pods for address in self._names.addresses(host)
        }
        return [
            self._book.get(address, port, self._peers_tls if secure else None)
            for address, port, secure in found
            if (address, port) not in self.own_addresses
        ]


def _address(text: str) -> Address:
    """Raises ValueError."""
    return (*split_address(text.removeprefix(SECURE)), text.startswith(SECURE))


def _shares(routing: Routing) -> str:
    return ", ".join(f"{r.version or r.name} {r.weight} %" for r in routing.revisions)
