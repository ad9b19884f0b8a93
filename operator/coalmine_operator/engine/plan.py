"""The plan that follows from a status: weights by who is ready, pods by role, records by who may still be needed."""

from __future__ import annotations

from msgspec.structs import replace

from coalmine_sidecar.contract import Track

from ..api.status import Retiring
from .actions import SETTLE, standing_in
from .guard import turn_epoch
from .model import Plan, RevisionRecord, Route, RoutePlan
from .steps import epoch_name, pods_needed
from .traffic import share_out
from .turn import Turn


def _carrier(turn: Turn) -> str:
    """Who carries what is not the canary's: stable, or the rolled-back one until stable is at full scale again."""
    last = turn.status.last_rollback
    if last is None or not last.promoted or last.shifted_at or turn.rollout is not None:
        return turn.stable
    if turn.ready(last.target) >= turn.spec.replicas or not turn.ready(last.source):
        turn.update(last_rollback=replace(last, shifted_at=turn.now))
        return turn.stable
    return last.source


def weights(turn: Turn) -> dict[str, int]:
    """Per cents by revision, in force as soon as sidecars read them; begins a new epoch where the shares change."""
    rollout = turn.rollout
    wanted: dict[str, int] = {}
    if rollout is None:
        if turn.stable:
            wanted[_carrier(turn)] = 100
    elif rollout.promoted_at or not rollout.previous:
        wanted[rollout.revision] = 100
    else:
        wanted = {rollout.revision: rollout.weight, rollout.previous: 100 - rollout.weight}
    if alerts := standing_in(turn):
        wanted = {turn.fallback: 100}
        for alert in alerts:
            if alert.resolved_at:
                turn.wake(alert.resolved_at + SETTLE)
    reserve = [name for name in (turn.stable, turn.fallback) if name]
    if rollout is not None:
        reserve += [name for name in (rollout.previous, rollout.revision) if name]
    shares = share_out(wanted, reserve, lambda name: turn.ready(name) > 0)
    if rollout is not None:
        turn_epoch(turn, shares.get(rollout.revision, 0), mirror(turn, shares))
    return shares


def mirror(turn: Turn, shares: dict[str, int]) -> int:
    """Per cents of stable's requests to be copied to the canary: while stable serves, and the canary no user."""
    rollout = turn.rollout
    if rollout is None or not turn.canary or shares.get(turn.canary) or not shares.get(rollout.previous):
        return 0
    return rollout.mirror if turn.ready(turn.canary) and turn.ready(rollout.previous) else 0


def replicas(turn: Turn) -> dict[str, int]:
    """Pods of every revision that has a role now."""
    wanted: dict[str, int] = {}

    def at_least(name: str, count: int) -> None:
        if name:
            wanted[name] = max(wanted.get(name, 0), count)

    at_least(turn.stable, turn.spec.replicas)
    rollout, last = turn.rollout, turn.status.last_rollback
    if rollout is not None:
        at_least(rollout.revision, turn.spec.replicas if rollout.promoted_at else pods_needed(turn, rollout))
        at_least(rollout.previous, turn.spec.replicas)
    elif last is not None and last.promoted and not last.shifted_at:
        at_least(last.source, turn.spec.replicas)
    if turn.spec.fallback is not None:
        # While it answers for stable it carries what stable carried.
        at_least(turn.fallback, max(turn.spec.fallback.replicas, turn.spec.replicas if standing_in(turn) else 0))
    return wanted


def retire(turn: Turn, roles: dict[str, int], shares: dict[str, int]) -> dict[str, int]:
    """Pods to keep of revisions without a role: until no sidecar routes to them, and a while longer."""
    delay = turn.spec.strategy.canary.scale_down_delay
    known = {entry.revision: entry for entry in turn.status.retiring}
    entries: list[Retiring] = []
    for name, state in turn.observed.revisions.items():
        if name in roles or not state.pods:
            continue
        entry = known.get(name) or Retiring(revision=name, replicas=min(state.pods, max(1, turn.spec.replicas)))
        routed = turn.observed.weights.get(name, 0) or shares.get(name, 0)
        if routed:
            entry = replace(entry, since=0.0)
        elif not entry.since:
            entry = replace(entry, since=turn.now)
        entries.append(entry)
    turn.update(retiring=tuple(entries))
    kept: dict[str, int] = {}
    for entry in entries:
        if not entry.since or turn.now - entry.since < delay:
            kept[entry.revision] = entry.replicas
            if entry.since:
                turn.wake(entry.since + delay)
    return kept


def records(turn: Turn, needed: dict[str, int]) -> tuple[RevisionRecord, ...]:
    """What must be kept: every revision with a role or with pods, and the newest of the others."""
    names = dict.fromkeys(needed)
    if turn.status.previous:
        names[turn.status.previous] = None
    for name, state in turn.observed.revisions.items():
        if state.pods:
            names[name] = None
    others = sorted(
        (record for name, record in turn.records.items() if name not in names),
        key=lambda record: (-record.created_at, record.name),
    )
    names.update(dict.fromkeys(record.name for record in others[: turn.spec.revision_history_limit]))
    found = (turn.record(name) for name in names)
    return tuple(sorted((r for r in found if r is not None), key=lambda record: (record.created_at, record.name)))


def route_plan(turn: Turn, shares: dict[str, int], roles: dict[str, int], kept: dict[str, int]) -> RoutePlan | None:
    """What the routing file shall say; None before there is any revision."""
    if not shares:
        return None
    rollout = turn.rollout
    canary = turn.canary
    routes = []
    track: Track
    for name in dict.fromkeys([*roles, *shares, *kept]):
        if name == canary:
            track = "canary"
        elif name == turn.stable or (rollout and not rollout.previous and name == rollout.revision):
            track = "stable"
        elif name == turn.fallback:
            track = "fallback"
        else:
            track = "retired"
        routes.append(Route(revision=name, track=track, weight=shares.get(name, 0)))
    known = {route.revision for route in routes}
    standing_by = rollout.previous if rollout and rollout.promoted_at else ""
    chain = tuple(n for n in dict.fromkeys((turn.stable, standing_by, turn.fallback)) if n in known)
    return RoutePlan(
        routes=tuple(routes),
        epoch=epoch_name(rollout) if rollout else f"{turn.status.rollouts}.idle",
        match=canary if canary and turn.ready(canary) else "",
        mirror=mirror(turn, shares),
        chain=chain,
        bins=turn.status.bins,
    )


def make_plan(turn: Turn) -> Plan:
    """Everything that shall be, and when to look again."""
    shares = weights(turn)
    roles = replicas(turn)
    kept = retire(turn, roles, shares)
    return Plan(
        records=records(turn, {**roles, **kept}),
        replicas={**roles, **kept},
        routing=route_plan(turn, shares, roles, kept),
        orders_done=tuple(order.id for order in turn.observed.orders),
        refused=turn.refused,
    )
