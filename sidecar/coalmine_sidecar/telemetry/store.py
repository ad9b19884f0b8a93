"""All counters of a sidecar, and which of them are kept when the routing file changes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final, Literal, Protocol

from msgspec import UNSET

from ..contract import KEPT_EPOCHS, REASONS, Resources, Routing, Track
from .counters import EpochCell, QueueCounters, Series, bump, zeros
from .outputs import MAX_NAME_LENGTH, printable
from .shadow import ShadowCounters

#: `shadow`: copies of requests, whose answers no client gets.
Role = Literal["ingress", "local", "shadow"]

#: Revisions that left the routing file keep their counters while there are no more than these.
KEPT_RETIRED: Final = 4
MAX_REVISIONS: Final = 16

FALLBACKS: Final = ("refused", "reset", "timeout", "status", "no_endpoint", "breaker", "queue_full")
RETRIES: Final = ("refused", "stale", "reset", "timeout", "queue_full")
WARMUPS: Final = ("ok", "status", "error")
CONNECTION_ERRORS: Final = ("connect", "stale", "reset", "timeout")


class BreakerSeen(Protocol):
    """What is told of a circuit breaker: its state, and how often it opened."""

    state: Literal["closed", "half_open", "open"]
    opened: int


class RevisionCounters:
    """What is counted of one revision. `version` is unique among the revisions kept: it is their label."""

    __slots__ = (
        "breaker",
        "connection_errors",
        "decisions",
        "name",
        "retries",
        "retry_overflow",
        "series",
        "shadow",
        "track",
        "version",
        "weight",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = name
        self.track: Track = "retired"
        self.weight = 0
        self.decisions = [0] * len(REASONS)
        self.retries = zeros(RETRIES)
        self.retry_overflow = 0
        self.connection_errors = zeros(CONNECTION_ERRORS)
        self.series: dict[str, Series] = {}
        #: None while nothing was ever mirrored to it.
        self.shadow: ShadowCounters | None = None
        self.breaker: BreakerSeen | None = None


class Telemetry:
    """The sidecar's counters.

    `revision` is the sidecar's own. What is counted for a revision that is not (or no longer) kept goes nowhere, so
    requests that outlive a change of the routing file do no harm.
    """

    def __init__(self, *, pod: str, revision: str, boot: str = "") -> None:
        self.pod = pod
        self.revision = revision
        self.boot = boot or secrets.token_hex(8)
        self.draining = False
        #: Of the queue before the pod's own model, where there is one.
        self.queue: QueueCounters | None = None
        self.routing: Routing | None = None
        self.routing_errors = 0
        self.last_routing_error = ""
        #: What keeps the pod from being ready beside the routing file, by who says so; the first one is told.
        self.hindrances: dict[str, str] = {}
        self.warmups = zeros(WARMUPS)
        self.resources: Resources | None = None
        self.revisions: dict[str, RevisionCounters] = {revision: RevisionCounters(revision)}
        self.fallbacks: dict[tuple[str, str], dict[str, int]] = {}
        self.epochs: dict[str, dict[str, EpochCell]] = {}
        self._cells: dict[str, EpochCell] = {}

    def configure(self, routing: Routing) -> None:
        """Take over a routing file, the first one or a new one. Counters of revisions that stay go on."""
        self.routing = routing
        observe = routing.observe
        self._keep_revisions(routing)
        for counters in self.revisions.values():
            for series in counters.series.values():
                self._configure(series, routing)
        self._cells = self.epochs.pop(routing.epoch, {})
        self.epochs[routing.epoch] = self._cells
        for route in routing.revisions:
            cell = self._cells.get(route.name)
            if cell is None:
                self._cells[route.name] = EpochCell(observe.thresholds, observe.outputs)
            else:
                cell.configure(observe.thresholds, observe.outputs)
        if routing.mirror is not UNSET:
            self._cells[routing.mirror.target].mirror_by(routing.mirror)
            self.shadow(routing.mirror.target)
        while len(self.epochs) > KEPT_EPOCHS:
            del self.epochs[next(iter(self.epochs))]
        for cells in self.epochs.values():
            for name in cells.keys() - self.revisions.keys():
                del cells[name]

    def series(self, revision: str, role: Role) -> Series:
        """The counters of a revision in a role: the same object each time."""
        edges = self.routing.observe.outputs if self.routing else {}
        counters = self.revisions.get(revision)
        if counters is None:
            return Series(revision, role, edges)
        series = counters.series.get(role)
        if series is None:
            series = counters.series[role] = Series(revision, role, edges)
            if self.routing is not None:
                self._configure(series, self.routing)
        return series

    def shadow(self, revision: str) -> ShadowCounters:
        """The counters of the copies that a revision gets: the same object each time."""
        counters = self.revisions.get(revision)
        if counters is None:
            return ShadowCounters()
        if counters.shadow is None:
            counters.shadow = ShadowCounters()
        return counters.shadow

    def epoch(self, revision: str) -> EpochCell:
        """The cell of the epoch in force; for requests routed by weight or affinity only."""
        cell = self._cells.get(revision)
        return cell if cell is not None else EpochCell((), {})

    def decisions(self, revision: str) -> list[int]:
        """Why requests went to a revision: how many for each of contract.REASONS. The same list each time."""
        counters = self.revisions.get(revision)
        return counters.decisions if counters is not None else [0] * len(REASONS)

    def fallback(self, source: str, target: str, reason: str) -> None:
        """Count a request that was meant for `source` and answered by `target`; `reason` is one of FALLBACKS."""
        if source in self.revisions and target in self.revisions:
            bump(self.fallbacks.setdefault((source, target), zeros(FALLBACKS)), reason)

    def retry(self, revision: str, reason: str) -> None:
        """Count a request sent again to the same revision; `reason` is one of RETRIES."""
        counters = self.revisions.get(revision)
        if counters is not None:
            bump(counters.retries, reason)

    def retry_overflow(self, revision: str) -> None:
        """Count a request that was not sent again because the budget was spent."""
        counters = self.revisions.get(revision)
        if counters is not None:
            counters.retry_overflow += 1

    def connection_error(self, revision: str, kind: str) -> None:
        """Count a broken connection to a revision; `kind` is one of CONNECTION_ERRORS."""
        counters = self.revisions.get(revision)
        if counters is not None:
            bump(counters.connection_errors, kind)

    def watch_breakers(self, breakers: Mapping[str, BreakerSeen]) -> None:
        """The breakers in force, by revision."""
        for name, counters in self.revisions.items():
            counters.breaker = breakers.get(name)

    def warmup(self, outcome: str) -> None:
        """Count a request of the warm-up; `outcome` is one of WARMUPS: answered as wanted, otherwise, or not at all."""
        bump(self.warmups, outcome)

    def reload_failed(self, message: str) -> None:
        """Count a routing file that could not be used; the last good one stays in force."""
        self.routing_errors += 1
        self.last_routing_error = message

    def _configure(self, series: Series, routing: Routing) -> None:
        """Outputs are counted in the bins of the revision's baseline where it has one, else in those of the rollout."""
        monitoring = routing.monitoring
        edges = routing.observe.outputs
        if monitoring is UNSET or series.role != "ingress":
            series.configure(edges)
            series.watched = None
            return
        baseline = monitoring.baselines.get(series.revision)
        frozen = {name: bins for name, bins in baseline.outputs.items() if bins.edges} if baseline is not None else {}
        series.configure(
            {name: bins.edges for name, bins in frozen.items()}
            | {name: cuts for name, cuts in edges.items() if name not in frozen},
            {name: bins.center for name, bins in frozen.items()},
        )
        from .watched import Watched  # for those who are monitored

        if series.watched is None or not series.watched.counts_as(monitoring, baseline):
            series.watched = Watched(monitoring, baseline)

    def _keep_revisions(self, routing: Routing) -> None:
        live = {route.name: route for route in routing.revisions}
        gone = [name for name in self.revisions if name not in live and name != self.revision]
        room = max(0, min(KEPT_RETIRED, MAX_REVISIONS - len(live.keys() | {self.revision})))
        for name in gone[: max(0, len(gone) - room)]:
            del self.revisions[name]
        for name, counters in self.revisions.items():
            if name not in live:
                counters.track, counters.weight = "retired", 0
        for name, route in live.items():
            # Moved to the end: revisions that leave later are dropped later.
            counters = self.revisions.pop(name) if name in self.revisions else RevisionCounters(name)
            self.revisions[name] = counters
            counters.version = printable(route.version, MAX_NAME_LENGTH) or name
            counters.track, counters.weight = route.track, route.weight
        taken: set[str] = set()
        # The newest keeps its plain version; two revisions under one label would be one series twice.
        for counters in reversed(self.revisions.values()):
            while counters.version in taken:
                counters.version = f"{counters.version} ({counters.name})"
            taken.add(counters.version)
        self.fallbacks = {pair: counts for pair, counts in self.fallbacks.items() if self.revisions.keys() >= set(pair)}
