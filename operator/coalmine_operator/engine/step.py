"""`step`: the whole of the operator's mind as one pure function."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from ..api.spec import Metadata, ModelDeploymentSpec
from ..api.status import MAX_EVENTS, Status, Told
from . import alerts
from .guard import guard
from .model import Observed, Plan
from .orders import obey
from .plan import make_plan
from .report import report
from .steps import advance
from .turn import Turn

#: Seconds between two events of one step: more than a time loses on the wire.
_TICK: Final = 1e-5
#: Characters of an event; what Kubernetes takes.
MAX_MESSAGE: Final = 1000


def step(
    spec: ModelDeploymentSpec, status: Status, observed: Observed, now: float, *, metadata: Metadata
) -> tuple[Status, Plan]:
    """Decide what shall be.

    No I/O, no clock, no memory but `status`: called twice with the same arguments it answers the same, and called
    again with its own status and an unchanged world it changes nothing. `now` is Unix seconds.
    """
    turn = Turn(spec, status, observed, now, metadata)
    turn.update(alerts=alerts.fold(status.alerts, observed.alert_events, now))
    _settle(turn)
    obey(turn)
    _pursue(turn)
    guard(turn)
    advance(turn)
    plan = make_plan(turn)
    if turn.rollout is not None and not turn.rollout.promoted_at:
        turn.wake(now + spec.analysis.interval)
    report(turn, plan)
    _remember_events(turn)
    return turn.status, replace(plan, events=tuple(turn.events), wake_at=min(turn.wakes, default=None))


def _settle(turn: Turn) -> None:
    """Notice what has come true or has gone since the last step: a rollback done, a bake over, a revision lost."""
    last = turn.status.last_rollback
    if last is not None and not last.done_at and last.shifted_at and not turn.observed.weights.get(last.source, 0):
        turn.update(last_rollback=replace(last, done_at=turn.now))
        turn.tell("RollbackDone", f"no sidecar routes to {last.source_version} any more")
    rollout = turn.rollout
    if rollout is not None and rollout.promoted_at:
        bake_time = turn.spec.auto_rollback.bake_time if turn.spec.auto_rollback else 0.0
        if turn.now - rollout.promoted_at >= bake_time:
            turn.update(rollout=None)
            turn.tell("BakeTimeOver", f"{turn.version(rollout.revision)} is stable")
        else:
            turn.wake(rollout.promoted_at + bake_time)
    if turn.stable and turn.record(turn.stable) is None:
        turn.tell("StableLost", f"revision {turn.stable} is not kept anywhere: starting anew", warning=True)
        turn.update(stable=None, rollout=None, previous="")


def _pursue(turn: Turn) -> None:
    """Start, go on with or withdraw a rollout, by what the spec asks for."""
    if turn.problems:
        return
    target, rollout, last = turn.target, turn.rollout, turn.status.last_rollback
    if rollout is not None and rollout.revision != target.name:
        turn.withdraw(rollout, f"the spec asks for {target.version}")
        rollout = None
    if rollout is not None or target.name == turn.stable or turn.quarantined(target.name):
        return
    if last is not None and not last.done_at:
        return  # one thing at a time: weights first leave the one rolled back
    turn.begin()


def _remember_events(turn: Turn) -> None:
    """With the decision that they are of, so that no crash can come between. Each at a time of its own."""
    told = list(turn.status.events)
    for event in turn.events:
        at = max(turn.now, told[-1].at + _TICK) if told else turn.now
        told.append(Told(reason=event.reason, message=event.message[:MAX_MESSAGE], warning=event.warning, at=at))
    turn.update(events=tuple(told[-MAX_EVENTS:]))
