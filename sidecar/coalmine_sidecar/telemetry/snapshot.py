"""The counters as contract.Snapshot, for the operator."""

from __future__ import annotations

from msgspec import UNSET

from ..contract import RevisionTotals, Snapshot
from .counters import Series
from .store import Telemetry


def take_snapshot(telemetry: Telemetry, *, at: float, values: bool = False) -> Snapshot:
    """A copy of the counters at Unix time `at`; the raw values of outputs only if asked for."""
    routing = telemetry.routing
    return Snapshot(
        pod=telemetry.pod,
        revision=telemetry.revision,
        boot=telemetry.boot,
        at=at,
        generation=routing.generation if routing else 0,
        weights={route.name: route.weight for route in routing.revisions} if routing else {},
        mirrors={} if routing is None or routing.mirror is UNSET else {routing.mirror.target: routing.mirror.percent},
        routing_errors=telemetry.routing_errors,
        draining=telemetry.draining,
        not_ready=next(iter(telemetry.hindrances.values()), ""),
        epochs={
            epoch: {revision: cell.counts() for revision, cell in cells.items()}
            for epoch, cells in telemetry.epochs.items()
        },
        totals={
            name: _totals(counters.series["ingress"], values=values)
            for name, counters in telemetry.revisions.items()
            if "ingress" in counters.series
        },
        fallbacks={
            f"{source}>{target}": sum(reasons.values()) for (source, target), reasons in telemetry.fallbacks.items()
        },
        model=telemetry.resources,
    )


def _totals(series: Series, *, values: bool) -> RevisionTotals:
    return RevisionTotals(
        outcomes=series.outcomes(),
        in_flight=series.in_flight,
        last_routed=series.last_routed,
        values={name: list(ring) for name, ring in series.values.items()} if values else {},
        monitored=series.watched.counts(series.outputs) if series.watched is not None else None,
    )
