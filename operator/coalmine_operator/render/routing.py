"""The routing file that a plan asks for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from coalmine_sidecar import contract

from ..analysis import thresholds
from ..api.spec import Metadata, Model, ModelDeploymentSpec
from ..engine.model import BaselineState, RevisionRecord, Route, RoutePlan
from .monitoring import render_monitoring

# Bounds of the contract.
_MAX_REVISIONS: Final = 16
_MAX_CHAIN: Final = 4
_MAX_ENDPOINTS: Final = 1000
#: Whose predictions matter most, first.
_TRACKS: Final[Sequence[contract.Track]] = ("stable", "canary", "fallback", "shadow", "retired")
#: Requests that wait for each one that the model works on; Knative's queue-proxy has the same ratio.
_QUEUED: Final = 10


def render_routing(
    *,
    metadata: Metadata,
    spec: ModelDeploymentSpec,
    plan: RoutePlan,
    records: Mapping[str, RevisionRecord],
    endpoints: Mapping[str, Sequence[str]],
    generation: int,
    baselines: Mapping[str, BaselineState] | None = None,
    folder: str = "",
) -> contract.Routing:
    """What `contract.decode_routing` accepts, for every plan whose weights sum to 100 over at most 16 revisions.

    `endpoints`: `host:port` of the local ports of each revision's ready pods. Equal input gives equal output, in
    whatever order endpoints come. `baselines`: by revision. `folder`: where paths of files begin.
    """
    names = {route.revision for route in plan.routes}
    chain = tuple(dict.fromkeys(name for name in plan.chain if name in names))[:_MAX_CHAIN]
    # A mirror's canary has no weight, and yet its requests.
    mirrored = {route.revision for route in plan.routes if plan.mirror and route.track == "canary"}
    routes = _bounded(plan.routes, {*chain, plan.match, *mirrored})
    model = spec.model
    fallback = spec.fallback
    return contract.Routing(
        deployment=metadata.name,
        namespace=metadata.namespace,
        model=model.name or metadata.name,
        generation=generation,
        epoch=plan.epoch,
        idempotent=model.idempotent,
        revisions=tuple(
            contract.RevisionRoute(
                name=route.revision,
                version=records[route.revision].version if route.revision in records else route.revision,
                track=route.track,
                weight=route.weight,
                endpoints=tuple(sorted(set(endpoints.get(route.revision, ()))))[:_MAX_ENDPOINTS],
            )
            for route in routes
        ),
        new_traces=model.new_traces,
        match=_match(spec, plan.match if plan.match in names else ""),
        affinity=_affinity(spec, plan.routes),
        fallback=(
            contract.Fallback(chain=chain, status_codes=fallback.status_codes)
            if fallback
            else contract.Fallback(chain=chain)
        ),
        circuit_breaker=_circuit_breaker(spec),
        retry_budget=contract.RetryBudget(
            percent=spec.retry_budget.percent,
            min_per_second=float(spec.retry_budget.min_per_second),
            window=float(spec.retry_budget.window),
        ),
        concurrency=_concurrency(model),
        timeouts=_timeouts(model.timeout),
        limits=contract.Limits(
            body_bytes=model.max_request_bytes,
            replay_bytes=fallback.max_request_bytes if fallback else contract.Limits().replay_bytes,
        ),
        observe=contract.Observe(
            protocol=model.protocol,
            thresholds=tuple(map(float, thresholds(spec.analysis))),
            outputs={output: edges for output, edges in plan.bins.items() if _usable(edges)},
        ),
        mirror=_mirror(spec, plan, {route.revision for route in routes}),
        monitoring=render_monitoring(
            spec.monitoring,
            (route.revision for route in sorted(routes, key=lambda route: _TRACKS.index(route.track))),
            baselines or {},
            folder,
        ),
    )


def same_but_generation(one: contract.Routing, other: contract.Routing) -> bool:
    """Nothing changed: the file need not be written again."""
    return replace(one, generation=0) == replace(other, generation=0)


def _bounded(routes: Sequence[Route], needed: Iterable[str]) -> tuple[Route, ...]:
    """All routes that can get a request, and as many of the others as the contract has room for."""
    wanted = set(needed)
    idle = [route for route in routes if not route.weight and route.revision not in wanted]
    surplus = {route.revision for route in idle[len(idle) - max(0, len(routes) - _MAX_REVISIONS) :]}
    return tuple(route for route in routes if route.revision not in surplus)


def _match(spec: ModelDeploymentSpec, revision: str) -> tuple[contract.Match, ...]:
    if not revision:
        return ()
    return tuple(
        contract.Match(
            revision=revision,
            headers=tuple(contract.HeaderMatch(name=header.name, value=header.value) for header in one.headers),
        )
        for one in spec.strategy.canary.match
    )


def _mirror(spec: ModelDeploymentSpec, plan: RoutePlan, names: Container[str]) -> contract.Mirror | UnsetType:
    source, target = (
        next((r.revision for r in plan.routes if r.track == track and r.revision in names), "")
        for track in ("stable", "canary")
    )
    if not plan.mirror or not source or not target or not spec.model.idempotent:
        return UNSET
    metric = next((one for one in spec.analysis.metrics if one.preset == "shadowDisagreement"), None)
    mirror = contract.Mirror(source=source, target=target, percent=plan.mirror)
    if metric is None:
        return mirror
    tolerance = mirror.tolerance if metric.tolerance is None else metric.tolerance
    return replace(mirror, tolerance=tolerance, output=metric.output or "")


def _affinity(spec: ModelDeploymentSpec, routes: Iterable[Route]) -> contract.Affinity | None:
    wanted = spec.strategy.canary.affinity
    if wanted is None:
        return None
    salt = next((route.revision for route in routes if route.track == "canary"), "")
    return contract.Affinity(header=wanted.header, cookie=wanted.cookie, salt=salt)


def _circuit_breaker(spec: ModelDeploymentSpec) -> contract.CircuitBreaker | None:
    wanted = spec.circuit_breaker
    if wanted is None:
        return None
    return contract.CircuitBreaker(
        consecutive_failures=wanted.consecutive_failures,
        success_rate=wanted.success_rate,
        min_requests=wanted.min_requests,
        window=float(wanted.window),
        min_backoff=float(wanted.min_backoff),
        max_backoff=float(wanted.max_backoff),
    )


def _concurrency(model: Model) -> contract.Concurrency | None:
    limit = model.container_concurrency
    if not limit:
        return None
    depth = _QUEUED * limit if model.queue_depth is None else model.queue_depth
    return contract.Concurrency(limit=limit, queue_depth=depth)


def _timeouts(response: float) -> contract.Timeouts:
    """A stream may pause as long as an answer may take, and never less than by default: clients upload slowly."""
    standard = contract.Timeouts()
    return contract.Timeouts(
        connect=min(standard.connect, float(response)),
        response=float(response),
        idle=max(standard.idle, float(response)),
    )


def _usable(edges: Sequence[float]) -> bool:
    """A sidecar refuses a whole file for one bad edge, and a rollback must never wait for bins."""
    return (
        1 <= len(edges) <= contract.MAX_EDGES
        and all(map(math.isfinite, edges))
        and all(low < high for low, high in itertools.pairwise(edges))
    )
